//! The page for readers: what was measured where, what each row means, and how far from its peer each one is.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::growth_plot;
use crate::outcome::Outcome;
use crate::records::{Records, Run};
use crate::report::{Figure, Growth, rounded};

/// What the page begins with, whatever was measured.
const HEAD: &str = "\
# Performance

`cargo xtask bench -- --report docs/performance.md` measures and writes this page; `cargo xtask bench -- --help` has the options.
A row that is measured by itself takes its place on the page, and the others stay: `performance.json` beside it has what was measured.
Peers run in the same run on the same machine, in turns with ours, so that a ratio means more than a rate.
Encryption and fsync are on in every leg unless a row says otherwise.
What is missed, and why, stands in [performance-limits.md](performance-limits.md).
A peer is measured where it is on the PATH, and a row whose peer is missing says so in its remark:

- pgbench and Postgres, nats-server, and perf, which counts fsyncs: packages of the system.
- durable-streams-server: `cargo install durable-streams --version 0.1.5 --locked`.
- document-peers, which has yrs and loro: `cargo install --path benches/document-peers --locked`.
";
/// The plots beside the page.
const PLOT: &str = "performance-ratios.svg";
const GROWTH_PLOT: &str = "performance-growth.svg";

/// Writes the page and its plots.
pub fn write(path: &Path, records: &Records) -> Outcome {
    let mut page = HEAD.to_owned();
    runs(&mut page, records)?;
    let figures: Vec<&Figure> = records.measured().flat_map(|(_, of)| &of.figures).collect();
    let figures = figures.as_slice();
    let plotted = plotted(figures);
    if !plotted.is_empty() {
        fs::write(path.with_file_name(PLOT), plot(&plotted))?;
        write!(
            page,
            "\n## Against peers\n\n![How many times as good as its peer each row is]({PLOT})\n"
        )?;
        page.push_str("\nTo the right of the line ours is better, to the left the peer; the scale is logarithmic.\n");
    }
    growth(path, &mut page, figures)?;
    page.push_str(
        "\n## Figures\n\n| name | value | unit | reference | its value | ratio | remark |\n",
    );
    page.push_str("|---|---|---|---|---|---|---|\n");
    for figure in figures {
        writeln!(
            page,
            "| `{}` | {} | {} | {} | {} | {} | {} |",
            figure.name,
            rounded(figure.value),
            figure.unit,
            figure.reference.as_deref().unwrap_or_default(),
            figure.reference_value.map(rounded).unwrap_or_default(),
            figure.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            figure.remark.as_deref().unwrap_or_default(),
        )?;
    }
    page.push_str("\n## What the rows mean\n\n| name | meaning | to reach |\n|---|---|---|\n");
    for (bench, _) in records.measured() {
        let row = bench.row();
        writeln!(page, "| `{}` | {} | {} |", bench.name(), row.meaning, row.reach)?;
    }
    page.push_str("\n## Notes\n\n");
    for figure in figures.iter().filter(|figure| !figure.note.is_empty()) {
        writeln!(page, "- {}.", figure.note.trim_end_matches('.'))?;
    }
    fs::write(path, page).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// In which run each row was measured.
fn runs(page: &mut String, records: &Records) -> Outcome {
    let mut runs: Vec<(&Run, Vec<String>)> = Vec::new();
    for (bench, measured) in records.measured() {
        let name = format!("`{}`", bench.name());
        match runs.iter_mut().find(|(run, _)| **run == measured.run) {
            Some((_, names)) => names.push(name),
            None => runs.push((&measured.run, vec![name])),
        }
    }
    page.push_str("\n## The runs\n");
    for (Run { commit, machine, setting }, names) in runs {
        let names = names.join(", ");
        write!(page, "\n{names}:\n\n```text\ncommit {commit}\n{machine}\n{setting}\n```\n")?;
    }
    Ok(())
}

/// How costs grow, with a plot of its own.
fn growth(path: &Path, page: &mut String, figures: &[&Figure]) -> Outcome {
    let rows =
        figures.iter().filter_map(|figure| Some((figure.name.as_str(), figure.growth.as_ref()?)));
    let rows: Vec<(&str, &Growth)> = rows.collect();
    if rows.is_empty() {
        return Ok(());
    }
    fs::write(path.with_file_name(GROWTH_PLOT), growth_plot::draw(&rows))?;
    write!(
        page,
        "\n## How costs grow\n\n![The cost of one operation at 1, 10 and 100 times the size]({GROWTH_PLOT})\n"
    )?;
    page.push_str("\nEach line is the cost of one operation, as a multiple of its cost at the smallest size; a line that stays flat or falls does not grow.\n");
    page.push_str("\n| name | cost | sizes | at 1x | at 10x | at 100x | slope |\n|---|---|---|---|---|---|---|\n");
    for (name, growth) in rows {
        let sizes: Vec<String> = growth.points.iter().map(|point| point.size.to_string()).collect();
        let costs: Vec<String> = growth.points.iter().map(|point| rounded(point.cost)).collect();
        writeln!(
            page,
            "| `{name}` | {} | {} {} | {} | {:.2} |",
            growth.cost,
            sizes.join(", "),
            growth.of,
            costs.join(" | "),
            growth.slope(),
        )?;
    }
    Ok(())
}

/// The main figures that have a peer, with how many times as good as it they are.
fn plotted<'a>(figures: &[&'a Figure]) -> Vec<(&'a str, f64)> {
    let better = |figure: &Figure| {
        let ratio = figure.ratio.filter(|ratio| *ratio > 0.0 && ratio.is_finite())?;
        let more_is_better = figure.unit.ends_with("/s");
        Some(if more_is_better { ratio } else { 1.0 / ratio })
    };
    let main = figures.iter().filter(|figure| !figure.name.contains('.'));
    main.filter_map(|figure| Some((figure.name.as_str(), better(figure)?))).collect()
}

/// Bars from the line at which both are equal, on a logarithmic scale.
fn plot(rows: &[(&str, f64)]) -> String {
    const NAMES: f64 = 150.0;
    const HALF: f64 = 240.0;
    const LINE: f64 = 24.0;
    const MOST: f64 = 100.0;
    let (width, middle) = (NAMES + 2.0 * HALF + 60.0, NAMES + HALF);
    let height = (rows.len() + 2) as f64 * LINE;
    let place = |times: f64| middle + times.clamp(1.0 / MOST, MOST).log10() / MOST.log10() * HALF;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for times in [0.01, 0.1, 1.0, 10.0, 100.0] {
        let (at, end, label) = (place(times), height - LINE, height - LINE / 3.0);
        let colour = if times == 1.0 { "#333" } else { "#ccc" };
        svg.push_str(&format!(
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"8\" y2=\"{end:.1}\" stroke=\"{colour}\"/>\n\
             <text x=\"{at:.1}\" y=\"{label:.1}\" text-anchor=\"middle\" fill=\"#555\">{times}x</text>\n"
        ));
    }
    for (number, (name, times)) in rows.iter().enumerate() {
        let top = 12.0 + number as f64 * LINE;
        let (from, to) = (place(times.min(1.0)), place(times.max(1.0)));
        let colour = if *times >= 1.0 { "#2a7f62" } else { "#b5622c" };
        let (length, text) = ((to - from).max(1.0), top + 12.0);
        svg.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{name}</text>\n\
             <rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"16\" fill=\"{colour}\"/>\n\
             <text x=\"{:.1}\" y=\"{text:.1}\">{times:.2}x</text>\n",
            NAMES - 8.0,
            to + 6.0
        ));
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Bench;
    use crate::report::Point;

    /// Writes a page with one row.
    fn page_of(dir: &Path, bench: Bench, figure: Figure) -> String {
        let path = dir.join("performance.md");
        let mut records = Records::beside(&path).unwrap();
        records.put(bench, &Run::now("two processors"), vec![figure]).unwrap();
        write(&path, &records).unwrap();
        fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn a_rate_is_better_above_its_peer_and_a_time_below() {
        let figures = [
            Figure::against("rate", 200.0, "rows/s", "peer", 100.0),
            Figure::against("time", 1.0, "ms", "peer", 4.0),
            Figure::against("time.p99", 1.0, "ms", "peer", 4.0),
            Figure::alone("alone", 1.0, "ms"),
        ];
        let plotted = plotted(&figures.each_ref());
        assert_eq!(plotted, [("rate", 2.0), ("time", 4.0)]);
        let svg = plot(&plotted);
        assert!(svg.contains(">2.00x<") && svg.contains(">4.00x<"), "{svg}");
    }

    #[test]
    fn the_page_has_every_figure_and_what_its_row_means() {
        let dir = tempfile::tempdir().unwrap();
        let figure = Figure::against("local_write", 6.0, "rows/s", "by hand", 10.0).noted("it ran");
        let page = page_of(dir.path(), Bench::LocalWrite, figure);
        for part in [
            "`local_write` | 6.00 | rows/s | by hand | 10.0 | 0.60",
            "- it ran.",
            "ratio at least 0.6",
            PLOT,
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        assert!(dir.path().join(PLOT).is_file());
        assert!(!page.contains("How costs grow"));
    }

    #[test]
    fn growth_has_a_table_and_a_plot_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let points = [(80, 20.0), (800, 19.0), (8_000, 15.0)];
        let points = points.map(|(size, cost)| Point { size, cost }).to_vec();
        let figure = Figure::of_growth("growth.idle_socket", "KiB a socket", "sockets", points);
        let page = page_of(dir.path(), Bench::Growth, figure);
        let row = "| `growth.idle_socket` | KiB a socket | 80, 800, 8000 sockets | 20.0 | 19.0 | 15.0 | -0.06 |";
        assert!(page.contains(row), "{row} is not in\n{page}");
        let svg = fs::read_to_string(dir.path().join(GROWTH_PLOT)).unwrap();
        assert!(svg.contains(">idle_socket<") && svg.contains("<polyline"), "{svg}");
    }
}

//! The plot of how costs grow: a line for each row, both scales logarithmic.

use crate::report::Growth;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
/// Where the lines end and their names begin.
const RIGHT: f64 = 440.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 320.0;
/// Most decades that a cost is drawn up or down from its first one.
const DECADES: f64 = 2.0;
/// Decades of size.
const SIZES: f64 = 2.0;
/// Least distance between two names.
const NAME_LINE: f64 = 15.0;
const COLOURS: [&str; 7] =
    ["#2a7f62", "#b5622c", "#3b6ea8", "#8a4f9e", "#a83b4b", "#6b7a1f", "#444444"];

/// Draws the cost of each row as a multiple of its first one.
pub fn draw(rows: &[(&str, &Growth)]) -> String {
    let across = |times: f64| LEFT + times.log10() / SIZES * (RIGHT - LEFT);
    let down = |times: f64| {
        let decades = times.log10().clamp(-DECADES, DECADES);
        (TOP + BOTTOM) / 2.0 - decades / DECADES * (BOTTOM - TOP) / 2.0
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for times in [0.01, 0.1, 1.0, 10.0, 100.0] {
        let (at, text) = (down(times), down(times) + 4.0);
        let colour = if times == 1.0 { "#333" } else { "#ccc" };
        svg.push_str(&format!(
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"{colour}\"/>\n\
             <text x=\"{:.1}\" y=\"{text:.1}\" text-anchor=\"end\" fill=\"#555\">{times}x</text>\n",
            LEFT - 8.0
        ));
    }
    for times in [1.0, 10.0, 100.0] {
        svg.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{times}x the size</text>\n",
            across(times),
            BOTTOM + 20.0
        ));
    }
    let mut ends = Vec::new();
    for ((name, growth), colour) in rows.iter().zip(COLOURS.iter().cycle()) {
        let Some(first) = growth.points.first() else { continue };
        let place =
            |(size, cost): (f64, f64)| (across(size / first.size as f64), down(cost / first.cost));
        let places = growth.points.iter().map(|point| place((point.size as f64, point.cost)));
        let places: Vec<(f64, f64)> = places.collect();
        let line: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        svg.push_str(&format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
            line.join(" ")
        ));
        let short = name.strip_prefix("growth.").unwrap_or(name);
        ends.extend(places.last().map(|(_, y)| (*y, short, *colour)));
    }
    // Names stand where their lines end, as far as there is room.
    ends.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut free = f64::NEG_INFINITY;
    for (end, name, colour) in ends {
        let at = end.max(free);
        free = at + NAME_LINE;
        svg.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>\n",
            RIGHT + 8.0,
            at + 4.0
        ));
    }
    svg + "</svg>\n"
}

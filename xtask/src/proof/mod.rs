//! `proof`: runs every kind of trial, each within its time, and writes down what came of it: `docs/proof.md`.
//!
//! A row is a program that prints its trials and failures; this counts nothing itself.
//!
//! - `rows`: which programs, with how many trials.
//! - `sheet`: what came of each when it was last run, and the page that shows it.

mod rows;
mod sheet;

use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::process;
use crate::release::Profile;

use rows::{Counted, ROWS, Size};
use sheet::{Line, Run, Sheet};

/// The page, from the root of the repository.
const PAGE: &str = "docs/proof.md";
/// What it shows.
const RECORDS: &str = "docs/proof.json";
/// Time for all rows where none is given.
const MINUTES: u64 = 120;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    size: Size,
    minutes: u64,
    /// The rows to run; none: all.
    only: Vec<String>,
    profile: Profile,
}

/// Runs the rows and writes the page after each, so that what was run counts although a later one is stopped. Rows that
/// were not asked for stay as they are. A quick run is shown and not written.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let options = options(arguments)?;
    let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
    if let Some(unknown) = options.only.iter().find(|only| !known.contains(&only.as_str())) {
        let known = known.join(", ");
        return Err(Failure::Usage(format!("there is no row {unknown}: there are {known}")));
    }
    let wanted =
        |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let rows: Vec<_> = ROWS.iter().filter(|row| wanted(row.name)).collect();
    let command = ["cargo xtask proof"].into_iter().chain(arguments.iter().map(String::as_str));
    let began = Run::now(command.collect::<Vec<_>>().join(" "))?;
    let (records, page) = (process::root().join(RECORDS), process::root().join(PAGE));
    let mut sheet = Sheet::read(&records)?;
    let shares: u64 = rows.iter().map(|row| row.share).sum();
    let mut failed = 0;
    for row in rows {
        let minutes = (options.minutes * row.share / shares).max(1);
        eprintln!("xtask: {} for {minutes} minutes at most", row.name);
        let (counted, took) = timed(|| row.run(options.size, minutes, options.profile));
        for Counted { row, what, ended } in counted? {
            let (row, what) = (row.to_owned(), what.to_owned());
            let line = Line { row, what, took_s: took.as_secs(), ended, run: began.clone() };
            eprintln!("xtask: {line}");
            failed += usize::from(line.failed());
            sheet.put(line);
        }
        if options.size == Size::Full {
            sheet.write(&rows::order(), &records, &page)?;
        }
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Proof { failed }) }
}

fn options(arguments: &[String]) -> Result<Options, Failure> {
    let mut options =
        Options { size: Size::Full, minutes: MINUTES, only: vec![], profile: Profile::Release };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let missing = || Failure::Usage(format!("{argument} needs a value"));
            arguments.next().cloned().ok_or_else(missing)
        };
        match argument.as_str() {
            "--quick" => options.size = Size::Quick,
            "--dev" => options.profile = Profile::Development,
            "--only" => options.only.push(value()?),
            "--minutes" => {
                let text = value()?;
                options.minutes = text
                    .parse()
                    .map_err(|_| Failure::Usage(format!("{text:?} is no number of minutes")))?;
            }
            unknown => return Err(Failure::Usage(format!("unexpected argument {unknown:?}"))),
        }
    }
    Ok(options)
}

#[expect(clippy::disallowed_methods, reason = "the sheet says how long each row took")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let done = work();
    (done, started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Options, Failure> {
        options(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read_and_wrong_ones_are_named() {
        let quick = read(&["--quick", "--minutes", "5", "--dev"]).unwrap();
        let expected =
            Options { size: Size::Quick, minutes: 5, only: vec![], profile: Profile::Development };
        assert_eq!(quick, expected);
        let both = read(&["--only", "kills", "--only", "fuzz"]).unwrap();
        assert_eq!(both.only, ["kills", "fuzz"]);
        for wrong in [&["--slow"][..], &["--minutes"], &["--minutes", "many"], &["--only"]] {
            assert!(matches!(read(wrong), Err(Failure::Usage(_))), "{wrong:?}");
        }
    }

    #[test]
    fn a_row_that_there_is_not_is_an_error_that_names_those_there_are() {
        let arguments = ["--only", "kills", "--only", "miracles"].map(str::to_owned);
        let failure = run(&arguments).unwrap_err();
        let text = failure.to_string();
        assert!(text.contains("no row miracles") && text.contains("crash-images"), "{text}");
    }
}

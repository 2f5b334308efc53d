//! `proof`: runs every kind of trial, each within its time, and writes down what came of it: `docs/proof.md`.
//!
//! A row is a program that prints its trials and failures; this counts nothing itself.
//!
//! - `rows`: which programs, with how many trials.
//! - `sheet`: the page.

mod rows;
mod sheet;

use std::fs;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::process;
use crate::release::Profile;

use rows::{ROWS, Size};
use sheet::{Line, Sheet};

/// The page, from the root of the repository.
const PAGE: &str = "docs/proof.md";
/// Time for all rows where none is given.
const MINUTES: u64 = 120;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    size: Size,
    minutes: u64,
    only: Option<String>,
    profile: Profile,
}

/// Runs the rows and writes the page; with `--only`, one row that is shown and not written.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let options = options(arguments)?;
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| only == name);
    let rows: Vec<_> = ROWS.iter().filter(|row| wanted(row.name)).collect();
    if rows.is_empty() {
        let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        return Err(Failure::Usage(format!("there are the rows {}", known.join(", "))));
    }
    let shares: u64 = rows.iter().map(|row| row.share).sum();
    let mut lines = Vec::new();
    for row in rows {
        let minutes = (options.minutes * row.share / shares).max(1);
        eprintln!("xtask: {} for {minutes} minutes at most", row.name);
        let (line, took) = timed(|| row.run(options.size, minutes, options.profile));
        let line = Line { row: row.name, what: row.what, took, ended: line? };
        eprintln!("xtask: {line}");
        lines.push(line);
    }
    let failed = lines.iter().filter(|line| line.failed()).count();
    if options.only.is_none() {
        let page = Sheet { lines, size: options.size, profile: options.profile }.page()?;
        let path = process::root().join(PAGE);
        fs::write(&path, page).map_err(|source| Failure::Write { path, source })?;
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Proof { failed }) }
}

fn options(arguments: &[String]) -> Result<Options, Failure> {
    let mut options =
        Options { size: Size::Full, minutes: MINUTES, only: None, profile: Profile::Release };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let missing = || Failure::Usage(format!("{argument} needs a value"));
            arguments.next().cloned().ok_or_else(missing)
        };
        match argument.as_str() {
            "--quick" => options.size = Size::Quick,
            "--dev" => options.profile = Profile::Development,
            "--only" => options.only = Some(value()?),
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
            Options { size: Size::Quick, minutes: 5, only: None, profile: Profile::Development };
        assert_eq!(quick, expected);
        for wrong in [&["--slow"][..], &["--minutes"], &["--minutes", "many"], &["--only"]] {
            assert!(matches!(read(wrong), Err(Failure::Usage(_))), "{wrong:?}");
        }
    }

    #[test]
    fn a_row_that_there_is_not_is_an_error_that_names_those_there_are() {
        let failure = run(&["--only".to_owned(), "miracles".to_owned()]).unwrap_err();
        assert!(failure.to_string().contains("crash-images"), "{failure}");
    }
}

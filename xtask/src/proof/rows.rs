//! The rows of the proof sheet: which program makes the trials, and how it tells what came of them.

use serde_json::Value;

use crate::failure::Failure;
use crate::mutants::{self, Extent};
use crate::process;
use crate::release::{self, Profile, Programs};

/// How many trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// As many as the sheet promises.
    Full,
    /// About a hundredth, to see that every row runs.
    Quick,
}

/// How a row ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ended {
    /// Trials that were made.
    pub trials: u64,
    /// Those that failed.
    pub failures: u64,
    /// What else there is to say.
    pub note: String,
}

/// What came of a row.
#[derive(Debug)]
pub struct Counted {
    /// Its name.
    pub row: &'static str,
    /// What one trial is.
    pub what: &'static str,
    /// Its counts.
    pub ended: Ended,
}

/// A row.
pub struct Row {
    /// Its name for `--only`.
    pub name: &'static str,
    /// What one trial is.
    pub what: &'static str,
    /// Its share of the time.
    pub share: u64,
    kind: Kind,
}

enum Kind {
    /// A program of a package whose last line is an object with `trials` and `failed`: its name, the command, the
    /// option that says how many, and how many those are in full and quick.
    Counts(&'static str, &'static str, &'static [&'static str], &'static str, [u64; 2]),
    /// New seeds of the simulator; the frames that they search are the row [`FRAMES`].
    Seeds([u64; 2]),
    /// Bugs of the bank, each with as many seeds as this at most.
    Bank([u64; 2]),
    /// Mutants of the code that everything else stands on; those fail that live and are not listed.
    Mutants,
}

const STORAGE: &str = "storage-faults";
const SYSTEM: &str = "system-tests";
const REAL: &str = "real-faults";
const SIM: &str = "farshore-sim";
/// The programs that `real-faults` starts.
const STARTED: [&str; 2] = ["farshore-server", "farshore-replica"];

/// A row that comes with the one of the seeds, and what one trial of it is.
const FRAMES: (&str, &str) =
    ("canary-frames", "frame to a device, searched for words of other tenants");

/// Every row, in the order of the sheet.
pub const ROWS: &[Row] = &[
    Row {
        name: "seeds",
        what: "simulated seed: a fleet, its server and its faults",
        share: 45,
        kind: Kind::Seeds([100_000, 300]),
    },
    Row {
        name: "bug-bank",
        what: "planted bug that has to be caught",
        share: 15,
        kind: Kind::Bank([2_000, 60]),
    },
    Row {
        name: "crash-images",
        what: "files after a power cut, opened by the real stores",
        share: 12,
        kind: Kind::Counts(STORAGE, STORAGE, &["crashes"], "--images", [20_000, 400]),
    },
    Row {
        name: "storage-errors",
        what: "run with a write, sync, truncation or read that fails",
        share: 10,
        kind: Kind::Counts(STORAGE, STORAGE, &["errors"], "--trials", [2_000, 40]),
    },
    Row {
        name: "flipped-bits",
        what: "flipped bit in a store's files",
        share: 4,
        kind: Kind::Counts(STORAGE, STORAGE, &["flips"], "--trials", [20_000, 400]),
    },
    Row {
        name: "kills",
        what: "kill -9 of a real server or device in mid-sync",
        share: 14,
        kind: Kind::Counts(SYSTEM, REAL, &["kills"], "--cycles", [1_000, 20]),
    },
    Row {
        name: "partitions",
        what: "partition of real devices from their server",
        share: 12,
        kind: Kind::Counts(SYSTEM, REAL, &["partitions"], "--runs", [200, 10]),
    },
    Row {
        name: "fuzz",
        what: "input of a decoder or parser",
        share: 8,
        kind: Kind::Counts(
            "fuzz-targets",
            "fuzz-targets",
            &[],
            "--executions",
            [50_000_000, 500_000],
        ),
    },
    Row {
        name: "mutants",
        what: "small change to the code that a unit test has to notice",
        share: 30,
        kind: Kind::Mutants,
    },
];

/// The names of all rows in the order of the sheet, those that come with another after it.
pub fn order() -> Vec<&'static str> {
    let with = |row: &Row| match row.kind {
        Kind::Seeds(_) => vec![row.name, FRAMES.0],
        Kind::Counts(..) | Kind::Bank(_) | Kind::Mutants => vec![row.name],
    };
    ROWS.iter().flat_map(with).collect()
}

impl Row {
    /// Runs it. What came of it is under its own name, and under those of the rows that come with it.
    pub fn run(&self, size: Size, minutes: u64, profile: Profile) -> Result<Vec<Counted>, Failure> {
        let own = |ended| Counted { row: self.name, what: self.what, ended };
        let of = |counts: [u64; 2]| match size {
            Size::Full => counts[0],
            Size::Quick => counts[1],
        };
        match &self.kind {
            Kind::Counts(package, program, command, option, counts) => {
                let mut started: Vec<&str> = vec![package];
                if *package == SYSTEM {
                    started.extend(STARTED);
                }
                let programs = release::build(&started, profile)?;
                let mut run = programs.command(package, program)?;
                run.args(*command).args([option, of(*counts).to_string().as_str()]);
                run.args(["--minutes", minutes.to_string().as_str()]);
                let (printed, succeeded) = process::told(run)?;
                Ok(vec![own(counted(&printed, succeeded)?)])
            }
            Kind::Seeds(counts) => {
                let (printed, succeeded, repeats) = sim(of(*counts), minutes)?;
                let seeds = simulated(&printed, succeeded, &repeats)?;
                let (row, what) = FRAMES;
                let ended = searched(&printed, seeds.trials);
                Ok(vec![own(seeds), Counted { row, what, ended }])
            }
            Kind::Bank(counts) => {
                let seeds = of(*counts).to_string();
                let mut run =
                    process::cargo(["run", "--profile", release::SIMULATOR, "--package", SIM]);
                run.args(["--features", "bugs", "--", "--bugs", "--seeds", seeds.as_str()]);
                let (printed, _) = process::told(run)?;
                Ok(vec![own(bank(&printed)?)])
            }
            Kind::Mutants => {
                let extent = if size == Size::Full { Extent::All } else { Extent::Few };
                let tried = mutants::prove(minutes, extent)?;
                let (trials, failures) = (tried.trials(), tried.unlisted);
                Ok(vec![own(Ended { trials, failures, note: tried.note() })])
            }
        }
    }
}

/// Runs seeds; what was printed, whether it succeeded, and what repeats it.
fn sim(seeds: u64, minutes: u64) -> Result<(String, bool, String), Failure> {
    let programs: Programs = release::build_as(&[SIM], release::SIMULATOR)?;
    let mut run = programs.command(SIM, SIM)?;
    run.args(["--seeds", seeds.to_string().as_str(), "--minutes", minutes.to_string().as_str()]);
    let (printed, succeeded) = process::told(run)?;
    let repeats = printed.lines().next().unwrap_or_default().to_owned();
    Ok((printed, succeeded, repeats))
}

/// What a program says whose last line is an object.
fn counted(printed: &str, succeeded: bool) -> Result<Ended, Failure> {
    let malformed = |problem: &str| Failure::Malformed {
        what: "what a row printed".to_owned(),
        problem: problem.to_owned(),
    };
    let lines: Vec<&str> = printed.lines().collect();
    let (last, others) = lines.split_last().ok_or_else(|| malformed("nothing"))?;
    let report: Value =
        serde_json::from_str(last).map_err(|error| malformed(&error.to_string()))?;
    let number = |key: &str| report[key].as_u64();
    let trials = number("trials").ok_or_else(|| malformed("no number of trials"))?;
    let failures = number("failed").ok_or_else(|| malformed("no number of failures"))?;
    if (failures == 0) != succeeded {
        return Err(malformed("its exit code and its failures do not agree"));
    }
    for line in others {
        eprintln!("  {line}");
    }
    let mut notes = Vec::new();
    if let (Some(p50), Some(p99)) = (number("p50_ms"), number("p99_ms")) {
        notes.push(format!("heal to converged: median {p50} ms, p99 {p99} ms"));
    }
    if let Some(executions) = number("executions") {
        notes.push(format!("{executions} executions"));
    }
    Ok(Ended { trials, failures, note: notes.join("; ") })
}

/// What the simulator says at its end.
fn simulated(printed: &str, succeeded: bool, repeats: &str) -> Result<Ended, Failure> {
    let runs = printed.lines().find(|line| line.contains(" runs in "));
    let runs = runs.ok_or_else(|| Failure::Malformed {
        what: "what the simulator printed".to_owned(),
        problem: "no line says how many runs there were".to_owned(),
    })?;
    let trials = runs.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
    // Its lines name failing seeds by kind: `new: lost-write: seeds [1, 2]`.
    let lists = printed.lines().filter_map(|line| line.split_once(": seeds ["));
    let failures: u64 = lists.map(|(_, seeds)| 1 + seeds.matches(',').count() as u64).sum();
    let rate = runs.split_once(": ").map_or("", |(_, rate)| rate);
    let failures = if succeeded { failures } else { failures.max(1) };
    Ok(Ended { trials, failures, note: format!("{rate}; `{repeats}`") })
}

/// What the simulator says of the frames that its seeds searched; a leak is a kind of violation.
fn searched(printed: &str, seeds: u64) -> Ended {
    let counts = printed.lines().filter(|line| line.contains("scanned_frames: "));
    let trials = counts.map(|line| number_after(line, "scanned_frames: ")).sum();
    let leaks = printed.lines().filter_map(|line| line.split_once(": leaked: seeds ["));
    let failures = leaks.map(|(_, seeds)| 1 + seeds.matches(',').count() as u64).sum();
    Ended { trials, failures, note: format!("in {seeds} seeds") }
}

/// What the simulator says of the bug bank.
fn bank(printed: &str) -> Result<Ended, Failure> {
    let malformed = || Failure::Malformed {
        what: "what the bug bank printed".to_owned(),
        problem: "no line says how many bugs were caught".to_owned(),
    };
    let counts = printed.lines().rev().find_map(|line| line.split_once(" bugs caught, "));
    let (counts, median) = counts.ok_or_else(malformed)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| malformed());
    let (caught, all) = counts.split_once(" of ").ok_or_else(malformed)?;
    let (caught, all) = (number(caught)?, number(all)?);
    let lines = printed.lines().filter(|line| line.contains(" MISSED "));
    let missed: Vec<&str> = lines.filter_map(|line| line.split(' ').next()).collect();
    let missed =
        if missed.is_empty() { String::new() } else { format!("; missed: {}", missed.join(", ")) };
    Ok(Ended {
        trials: all,
        failures: all - caught,
        note: format!("caught after {median}{missed}"),
    })
}

/// The number that follows a text, the last time it comes.
fn number_after(printed: &str, text: &str) -> u64 {
    let after = printed.rsplit_once(text).map_or("", |(_, after)| after);
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_line_with_counts_is_read() {
        let printed = "device: 10 images\n{\"trials\":20,\"failed\":0,\"p50_ms\":3,\"p99_ms\":9}\n";
        let ended = counted(printed, true).unwrap();
        assert_eq!((ended.trials, ended.failures), (20, 0));
        assert_eq!(ended.note, "heal to converged: median 3 ms, p99 9 ms");
        for wrong in ["", "no object\n", "{\"trials\":20}\n"] {
            assert!(counted(wrong, true).is_err(), "{wrong:?}");
        }
        assert!(counted(printed, false).is_err(), "a program that failed has failures");
    }

    #[test]
    fn what_the_simulator_says_is_read() {
        let printed = "sim: --from 7 --seeds 9\nkept: 3 seeds, 1 of them twice; Covered { messages: 5, scanned_frames: 3 }\n\
            new: 9 seeds, 1 of them twice; Covered { transactions: 1, messages: 77, scanned_frames: 40 }\n\
            new: leaked: seeds [9]\nnew: lost-write: seeds [8, 11]\n12 runs in 2.0s: 6.0 a second\nsim: --from 7 --seeds 9\n";
        let ended = simulated(printed, false, "sim: --from 7 --seeds 9").unwrap();
        assert_eq!((ended.trials, ended.failures), (12, 3));
        assert_eq!(ended.note, "6.0 a second; `sim: --from 7 --seeds 9`");
        let frames = searched(printed, ended.trials);
        assert_eq!((frames.trials, frames.failures), (43, 1));
        assert!(simulated("nothing", true, "").is_err());
    }

    #[test]
    fn what_the_bug_bank_says_is_read() {
        let printed = "a-bug  caught  2 seeds  1.5 s  lost\nb-bug  MISSED 60 seeds  9.0 s\n\
            2 of 3 bugs caught, median 1.5 s\n";
        let ended = bank(printed).unwrap();
        assert_eq!((ended.trials, ended.failures), (3, 1));
        assert_eq!(ended.note, "caught after median 1.5 s; missed: b-bug");
        assert!(bank("").is_err());
    }
}

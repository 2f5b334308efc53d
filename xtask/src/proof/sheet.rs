//! The page: when, on what, and one line for each row.

use std::fmt::{self, Write as _};
use std::fs;
use std::time::Duration;

use super::rows::{Ended, Size};
use crate::failure::Failure;
use crate::process;
use crate::release::Profile;

/// With so many failures at most, times the number of trials, 95 of 100 would have shown one: the rule of three.
const RULE_OF_THREE: f64 = 3.0;

/// What came of a row.
#[derive(Debug)]
pub struct Line {
    /// Its name.
    pub row: &'static str,
    /// What one trial is.
    pub what: &'static str,
    /// How long it took, the build included.
    pub took: Duration,
    /// Its counts.
    pub ended: Ended,
}

impl Line {
    /// Whether anything failed, or nothing was tried.
    pub fn failed(&self) -> bool {
        self.ended.failures > 0 || self.ended.trials == 0
    }

    /// How often it fails at most, with 95 % confidence; `None` where it failed.
    fn bound(&self) -> Option<f64> {
        (!self.failed()).then(|| RULE_OF_THREE / self.ended.trials as f64)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended { trials, failures, note } = &self.ended;
        let seconds = self.took.as_secs();
        write!(f, "{}: {trials} trials, {failures} failures, {seconds} s; {note}", self.row)
    }
}

/// The page.
pub struct Sheet {
    /// The rows.
    pub lines: Vec<Line>,
    /// How many trials were asked for.
    pub size: Size,
    /// How the programs were built.
    pub profile: Profile,
}

impl Sheet {
    /// The page as Markdown.
    pub fn page(&self) -> Result<String, Failure> {
        let mut page = String::from(HEAD);
        let command = match (self.size, self.profile) {
            (Size::Full, Profile::Release) => "cargo xtask proof",
            (Size::Full, Profile::Development) => "cargo xtask proof --dev",
            (Size::Quick, Profile::Release) => "cargo xtask proof --quick",
            (Size::Quick, Profile::Development) => "cargo xtask proof --quick --dev",
        };
        let _ = writeln!(page, "- Written by `{command}`.");
        let _ = writeln!(page, "- Commit: {}.", commit()?);
        let _ = writeln!(page, "- Machine: {}.", machine());
        page.push_str(
            "\n| row | one trial | trials | failures | at most, with 95 % confidence | time | |\n",
        );
        page.push_str("|---|---|---:|---:|---:|---:|---|\n");
        for line in &self.lines {
            let Ended { trials, failures, note } = &line.ended;
            let bound = line.bound().map_or_else(|| "none".to_owned(), percent);
            let (row, what) = (line.row, line.what);
            let (trials, took) = (grouped(*trials), took(line.took));
            let _ = writeln!(
                page,
                "| {row} | {what} | {trials} | {failures} | {bound} | {took} | {note} |"
            );
        }
        Ok(page)
    }
}

const HEAD: &str = "\
# Proof sheet

What was tried to break Farshore, how often, and how often it broke.
Anyone can run it again: `cargo xtask proof`, or one row of it with `--only ROW`.
A row without failures bounds how often one trial fails: 3/n with 95 % confidence, where n is the number of trials.
Each harness is itself tested on planted faults: `tests/storage/tests/sample.rs`, `tests/sim/src/oracles/tests.rs` and the bug bank.

";

fn commit() -> Result<String, Failure> {
    let git = |arguments: &[&str]| {
        let mut git = std::process::Command::new("git");
        git.current_dir(process::root()).args(arguments);
        process::output(git)
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?.trim().to_owned();
    let page = [":(exclude)docs/proof.md"];
    let changed = git(&[&["status", "--porcelain", "--", "."][..], &page].concat())?;
    let changed =
        if changed.trim().is_empty() { "" } else { ", with changes that are not committed" };
    Ok(format!("{commit}{changed}"))
}

/// Processor, cores, memory and system, as Linux tells them.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = value(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = value(&read("/proc/meminfo"), "MemTotal")
        .and_then(|kib| kib.split(' ').next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib >> 20);
    let system = read("/proc/sys/kernel/osrelease");
    format!("{model}, {cores} cores, {memory} GiB, {} {}", std::env::consts::OS, system.trim())
}

fn percent(share: f64) -> String {
    format!("{:.*} %", if share < 0.001 { 4 } else { 2 }, share * 100.0)
}

/// A number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let (head, rest) = digits.split_at(first);
    let groups = rest.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    let groups: Vec<String> =
        Some(head.to_owned()).filter(|head| !head.is_empty()).into_iter().chain(groups).collect();
    groups.join(",")
}

fn took(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(trials: u64, failures: u64) -> Line {
        let ended = Ended { trials, failures, note: String::new() };
        Line { row: "row", what: "what", took: Duration::from_secs(1), ended }
    }

    #[test]
    fn the_bound_is_the_rule_of_three_and_a_row_that_failed_has_none() {
        assert_eq!(line(20_000, 0).bound().map(percent).unwrap(), "0.0150 %");
        assert_eq!(line(100, 0).bound().map(percent).unwrap(), "3.00 %");
        assert_eq!(line(100, 1).bound(), None);
        assert!(line(0, 0).failed(), "a row that tried nothing shows nothing");
    }

    #[test]
    fn numbers_and_times_are_readable() {
        assert_eq!(
            [7, 1_000, 20_000, 1_234_567].map(grouped).join(" "),
            "7 1,000 20,000 1,234,567"
        );
        assert_eq!(took(Duration::from_secs(119)), "119 s");
        assert_eq!(took(Duration::from_secs(600)), "10 min");
    }
}

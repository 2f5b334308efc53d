//! The page: when, on what, and one line for each row.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Value, json};

use super::rows::Ended;
use crate::failure::Failure;
use crate::process;

/// With so many failures at most, times the number of trials, 95 of 100 would have shown one: the rule of three.
const RULE_OF_THREE: f64 = 3.0;

/// What came of a row, when, where and with which command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The row's name.
    pub row: String,
    /// What one trial is.
    pub what: String,
    /// How long it took, the build included, in seconds.
    pub took_s: u64,
    /// Its counts.
    pub ended: Ended,
    /// What it was run on.
    pub run: Run,
}

/// A run of `cargo xtask proof`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command that repeats it.
    pub command: String,
    /// The commit, and whether there were changes besides.
    pub commit: String,
    /// The machine.
    pub machine: String,
}

impl Run {
    /// One that begins now.
    pub fn now(command: String) -> Result<Self, Failure> {
        Ok(Self { command, commit: commit()?, machine: machine() })
    }
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

    fn to_json(&self) -> Value {
        let Ended { trials, failures, note } = &self.ended;
        let Run { command, commit, machine } = &self.run;
        json!({
            "row": self.row, "what": self.what, "trials": trials, "failures": failures, "note": note,
            "took_s": self.took_s, "command": command, "commit": commit, "machine": machine,
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().map(ToOwned::to_owned);
        let number = |key: &str| value[key].as_u64();
        let (trials, failures) = (number("trials")?, number("failures")?);
        Some(Self {
            row: text("row")?,
            what: text("what")?,
            took_s: number("took_s")?,
            ended: Ended { trials, failures, note: text("note")? },
            run: Run {
                command: text("command")?,
                commit: text("commit")?,
                machine: text("machine")?,
            },
        })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended { trials, failures, note } = &self.ended;
        write!(f, "{}: {trials} trials, {failures} failures, {} s; {note}", self.row, self.took_s)
    }
}

/// The rows as they were last run, each for itself.
#[derive(Debug, Default)]
pub struct Sheet(Vec<Line>);

impl Sheet {
    /// The rows that were run before; none where there is no file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(Failure::Read { path: path.to_owned(), source }),
        };
        let malformed =
            |problem: String| Failure::Malformed { what: path.display().to_string(), problem };
        let rows: Value =
            serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        let lines = rows.as_array().map(|rows| rows.iter().map(Line::from_json).collect());
        let lines: Option<Option<Vec<Line>>> = lines;
        lines.flatten().map(Self).ok_or_else(|| malformed("a row lacks a part".to_owned()))
    }

    /// Puts a row in the place of what was known of it.
    pub fn put(&mut self, line: Line) {
        match self.0.iter_mut().find(|known| known.row == line.row) {
            Some(known) => *known = line,
            None => self.0.push(line),
        }
    }

    /// Writes the rows, and the page that shows them, in the order of these names.
    pub fn write(&mut self, order: &[&str], rows: &Path, page: &Path) -> Result<(), Failure> {
        let place = |line: &Line| order.iter().position(|name| *name == line.row);
        self.0.retain(|line| place(line).is_some());
        self.0.sort_by_key(place);
        let write = |path: &Path, text: String| {
            fs::write(path, text).map_err(|source| Failure::Write { path: path.to_owned(), source })
        };
        let values: Vec<Value> = self.0.iter().map(Line::to_json).collect();
        write(rows, format!("{:#}\n", Value::from(values)))?;
        write(page, self.page())
    }

    /// The page as Markdown.
    fn page(&self) -> String {
        let mut page = String::from(HEAD);
        let machines: BTreeSet<&str> =
            self.0.iter().map(|line| line.run.machine.as_str()).collect();
        for machine in machines {
            let _ = writeln!(page, "- Machine: {machine}.");
        }
        page.push_str(TABLE);
        for line in &self.0 {
            let Ended { trials, failures, note } = &line.ended;
            let bound = line.bound().map_or_else(|| "none".to_owned(), percent);
            let Line { row, what, run, took_s, .. } = line;
            let (trials, took, commit) = (grouped(*trials), took(*took_s), &run.commit);
            let _ = writeln!(
                page,
                "| {row} | {what} | {trials} | {failures} | {bound} | {took} | {commit} | {note} |"
            );
        }
        page.push_str("\nWritten by:\n\n```sh\n");
        let commands: BTreeSet<&str> =
            self.0.iter().map(|line| line.run.command.as_str()).collect();
        for command in commands {
            let _ = writeln!(page, "{command}");
        }
        page.push_str("```\n");
        page
    }
}

const HEAD: &str = "\
# Proof sheet

What was tried to break Farshore, how often, and how often it broke.
Anyone can run it again: `cargo xtask proof`, or some rows of it with `--only ROW`, once for each, which leaves the others as they are.
A row without failures bounds how often one trial fails: 3/n with 95 % confidence, where n is the number of trials.
Each harness is itself tested on planted faults: `tests/storage/tests/sample.rs`, `tests/sim/src/oracles/tests.rs` and the bug bank.

";

const TABLE: &str = "
| row | one trial | trials | failures | at most, with 95 % confidence | time | commit | |
|---|---|---:|---:|---:|---:|---|---|
";

fn commit() -> Result<String, Failure> {
    let git = |arguments: &[&str]| {
        let mut git = std::process::Command::new("git");
        git.current_dir(process::root()).args(arguments);
        process::output(git)
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?.trim().to_owned();
    let page = [":(exclude)docs/proof.md", ":(exclude)docs/proof.json"];
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

fn took(seconds: u64) -> String {
    if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(trials: u64, failures: u64) -> Line {
        Line {
            row: "row".to_owned(),
            what: "what".to_owned(),
            took_s: 1,
            ended: Ended { trials, failures, note: "note".to_owned() },
            run: Run {
                command: "cargo xtask proof".to_owned(),
                commit: "0123".to_owned(),
                machine: "machine".to_owned(),
            },
        }
    }

    #[test]
    fn the_bound_is_the_rule_of_three_and_a_row_that_failed_has_none() {
        assert_eq!(line(20_000, 0).bound().map(percent).unwrap(), "0.0150 %");
        assert_eq!(line(100, 0).bound().map(percent).unwrap(), "3.00 %");
        assert_eq!(line(100, 1).bound(), None);
        assert!(line(0, 0).failed(), "a row that tried nothing shows nothing");
    }

    #[test]
    fn a_row_takes_the_place_of_what_was_known_of_it_and_the_others_stay() {
        let other = Line { row: "other".to_owned(), ..line(7, 0) };
        let mut sheet = Sheet::default();
        [line(1, 1), other.clone(), line(2_000, 0)].into_iter().for_each(|line| sheet.put(line));
        assert_eq!(sheet.0, [line(2_000, 0), other.clone()]);
        let page = sheet.page();
        assert!(page.contains("| row | what | 2,000 | 0 | 0.15 % | 1 s | 0123 | note |"), "{page}");
        assert!(page.contains("- Machine: machine.\n"), "{page}");
        let read: Vec<_> = sheet.0.iter().map(|line| Line::from_json(&line.to_json())).collect();
        assert_eq!(read, [Some(line(2_000, 0)), Some(other)]);
        assert_eq!(Line::from_json(&json!({ "row": "row" })), None);
    }

    #[test]
    fn numbers_and_times_are_readable() {
        assert_eq!(
            [7, 1_000, 20_000, 1_234_567].map(grouped).join(" "),
            "7 1,000 20,000 1,234,567"
        );
        assert_eq!(took(119), "119 s");
        assert_eq!(took(600), "10 min");
    }
}

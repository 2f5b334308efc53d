//! What cargo-mutants wrote down, `outcomes.json`, and what it says of the mutants that there are.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::failure::Failure;

/// What came of mutants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcomes {
    /// A test noticed, also by not ending in time.
    pub caught: u64,
    /// It does not compile.
    pub unviable: u64,
    /// No test noticed: their names without line and column, which change with every edit above them.
    pub alive: Vec<String>,
}

impl Outcomes {
    /// Reads a report.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path)
            .map_err(|source| Failure::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let report = json(text)?;
        let all = report["outcomes"].as_array().ok_or_else(|| malformed("it has no outcomes"))?;
        let mut outcomes = Self::default();
        for outcome in all {
            // The run without a mutant is an outcome too; where it fails, cargo-mutants says so itself.
            if outcome["scenario"] == "Baseline" {
                continue;
            }
            let name = outcome["scenario"]["Mutant"]["name"].as_str();
            let name = name.ok_or_else(|| malformed("an outcome has no name"))?;
            match outcome["summary"].as_str() {
                Some("CaughtMutant" | "Timeout") => outcomes.caught += 1,
                Some("Unviable") => outcomes.unviable += 1,
                Some("MissedMutant") => outcomes.alive.push(without_place(name)),
                other => return Err(malformed(&format!("{name} ended as {other:?}"))),
            }
        }
        Ok(outcomes)
    }

    /// How many mutants it is about.
    pub fn mutants(&self) -> usize {
        usize::try_from(self.caught + self.unviable).unwrap_or(usize::MAX) + self.alive.len()
    }

    /// Counts those of another report in.
    pub fn add(&mut self, other: Self) {
        self.caught += other.caught;
        self.unviable += other.unviable;
        self.alive.extend(other.alive);
    }
}

/// How many mutants a list has.
pub fn listed(text: &str) -> Result<usize, Failure> {
    json(text)?.as_array().map(Vec::len).ok_or_else(|| malformed("it is no list"))
}

/// `a.rs:7:9: replace x` as `a.rs: replace x`.
fn without_place(name: &str) -> String {
    let mut parts = name.splitn(4, ':');
    let (file, line, column, what) = (parts.next(), parts.next(), parts.next(), parts.next());
    let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
    match (file, what) {
        (Some(file), Some(what)) if is_number(line) && is_number(column) => {
            format!("{file}:{what}")
        }
        _ => name.to_owned(),
    }
}

fn json(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| malformed(&error.to_string()))
}

fn malformed(problem: &str) -> Failure {
    Failure::Malformed { what: "what cargo-mutants wrote".to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str, summary: &str) -> String {
        format!(r#"{{"scenario":{{"Mutant":{{"name":"{name}"}}}},"summary":"{summary}"}}"#)
    }

    fn report(outcomes: &[String]) -> String {
        format!(r#"{{"outcomes":[{}],"total_mutants":9}}"#, outcomes.join(","))
    }

    #[test]
    fn a_report_is_read_and_places_do_not_matter() {
        let text = report(&[
            r#"{"scenario":"Baseline","summary":"Success"}"#.to_owned(),
            outcome("a.rs:7:9: replace f -> T with A::b()", "CaughtMutant"),
            outcome("a.rs:8:9: replace f", "Timeout"),
            outcome("a.rs:9:9: replace g", "Unviable"),
            outcome("b.rs:10:12: replace x::y -> T with A::b()", "MissedMutant"),
        ]);
        let mut outcomes = Outcomes::parse(&text).unwrap();
        let alive = vec!["b.rs: replace x::y -> T with A::b()".to_owned()];
        assert_eq!(outcomes, Outcomes { caught: 2, unviable: 1, alive });
        outcomes.add(outcomes.clone());
        assert_eq!((outcomes.caught, outcomes.alive.len(), outcomes.mutants()), (4, 2, 8));
    }

    #[test]
    fn a_report_that_is_not_understood_is_an_error() {
        for text in [
            "",
            "{}",
            &report(&[r#"{"scenario":{},"summary":"CaughtMutant"}"#.to_owned()]),
            &report(&[outcome("a.rs:7:9: replace f", "Flew")]),
        ] {
            assert!(matches!(Outcomes::parse(text), Err(Failure::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn a_list_is_counted() {
        assert_eq!(listed(r#"[{"name":"a"},{"name":"b"}]"#).unwrap(), 2);
        assert!(listed("{}").is_err());
    }
}

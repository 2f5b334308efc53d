//! `docs/mutants.md`: the one place that lists by name which mutants live, each with its reason.
//!
//! An entry is a line such as ``- `FILE: CHANGE`: REASON``, or ``- 3 of `FILE: CHANGE`: REASON`` where as many mutants
//! have that name. The counts are rows of a table, which begin with the name of the code.

use std::collections::BTreeMap;
use std::fs;

use super::outcomes::Outcomes;
use super::{page_path, percent};
use crate::failure::Failure;

/// The page, from the root of the repository.
pub const PAGE: &str = "docs/mutants.md";

/// The text of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page(String);

impl Page {
    /// Reads it.
    pub fn read() -> Result<Self, Failure> {
        let path = page_path();
        fs::read_to_string(&path).map(Self).map_err(|source| Failure::Read { path, source })
    }

    /// Writes it.
    pub fn write(&self) -> Result<(), Failure> {
        let path = page_path();
        fs::write(&path, &self.0).map_err(|source| Failure::Write { path, source })
    }

    /// The mutants that it lists.
    pub fn known(&self) -> Result<Known, Failure> {
        let mut known = BTreeMap::new();
        for line in self.0.lines() {
            let Some(entry) = line.strip_prefix("- ") else { continue };
            let malformed =
                || Failure::Malformed { what: PAGE.to_owned(), problem: line.to_owned() };
            let (count, rest) = entry.split_once('`').ok_or_else(malformed)?;
            let (name, reason) = rest.split_once('`').ok_or_else(malformed)?;
            let count: usize = match count.strip_suffix(" of ") {
                Some(count) => count.parse().map_err(|_| malformed())?,
                None if count.is_empty() => 1,
                None => return Err(malformed()),
            };
            if reason.strip_prefix(": ").is_none_or(|reason| reason.trim().is_empty()) {
                return Err(malformed());
            }
            *known.entry(name.to_owned()).or_default() += count;
        }
        Ok(Known(known))
    }

    /// Whether it has a row for a code.
    #[cfg(test)]
    pub fn has_row(&self, name: &str) -> bool {
        self.0.lines().any(|line| line.starts_with(&start_of_row(name)))
    }

    /// The page with the counts of a code whose mutants have all been tried.
    pub fn with_row(&self, name: &str, outcomes: &Outcomes) -> Self {
        let start = start_of_row(name);
        let lines = self.0.lines().map(|line| {
            if line.starts_with(&start) { row(name, outcomes, 0) } else { line.to_owned() }
        });
        Self(lines.map(|line| line + "\n").collect())
    }
}

fn start_of_row(name: &str) -> String {
    format!("| {name} |")
}

/// The row of a code, `left` of whose mutants have not been tried.
pub fn row(name: &str, outcomes: &Outcomes, left: usize) -> String {
    let Outcomes { caught, unviable, alive } = outcomes;
    let (all, alive) = (outcomes.mutants() + left, alive.len() as u64);
    let share = percent(*caught, alive);
    let start = start_of_row(name);
    format!("{start} {all} | {unviable} | {caught} | {alive} | {left} | {share} |")
}

/// Mutants that are known to live: how many by each name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known(BTreeMap<String, usize>);

impl Known {
    /// Those of a list that are not known.
    pub fn without(&self, alive: &[String]) -> Vec<String> {
        let mut left = self.0.clone();
        let is_new = |name: &&String| match left.get_mut(*name) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        };
        alive.iter().filter(is_new).cloned().collect()
    }

    /// Those known in some files that are not on a list.
    pub fn gone(&self, files: &[&str], alive: &[String]) -> Vec<String> {
        let count = |name: &String| alive.iter().filter(|alive| *alive == name).count();
        let here = self.0.iter().filter(|(name, _)| is_in(files, name));
        here.filter(|(name, known)| count(name) < **known).map(|(name, _)| name.clone()).collect()
    }

    /// Those that are in none of some files.
    #[cfg(test)]
    pub fn outside(&self, files: &[&str]) -> Vec<String> {
        self.0.keys().filter(|name| !is_in(files, name)).cloned().collect()
    }
}

fn is_in(files: &[&str], name: &str) -> bool {
    let of = name.split(':').next().unwrap_or_default();
    files.iter().any(|file| match file.split_once('*') {
        Some((before, after)) => of.starts_with(before) && of.ends_with(after),
        None => of == *file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let lines = [
            "# Mutants",
            "| code | mutants |",
            "|---|---:|",
            "| merge | 1 |",
            "| outbox | 2 |",
            "- `src/a.rs: replace < with <= in f`: at the bound both are the same.",
            "- 2 of `src/b/c.rs: replace || with && in g`: only where a bug is planted.",
        ];
        Page(lines.join("\n") + "\n")
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_lives_is_listed_as_often_as_it_does() {
        let known = page().known().unwrap();
        let (a, b) = ("src/a.rs: replace < with <= in f", "src/b/c.rs: replace || with && in g");
        assert_eq!(known.without(&names(&[a, b, b])), names(&[]));
        assert_eq!(known.without(&names(&[a, a, b, "x"])), names(&[a, "x"]));
        assert_eq!(known.gone(&["src/a.rs", "src/b/*.rs"], &names(&[b])), names(&[a, b]));
        assert_eq!(known.gone(&["src/a.rs"], &names(&[a])), names(&[]));
        assert_eq!(known.outside(&["src/b/*.rs"]), names(&[a]));
    }

    #[test]
    fn an_entry_without_a_name_a_count_or_a_reason_is_an_error() {
        for line in ["- words", "- `a.rs: x", "- `a.rs: x`", "- `a.rs: x`: ", "- many of `a`: y"] {
            assert!(Page(line.to_owned()).known().is_err(), "{line}");
        }
    }

    #[test]
    fn a_row_is_replaced_and_nothing_else() {
        let outcomes = Outcomes { caught: 17, unviable: 4, alive: names(&["a", "b", "c"]) };
        let changed = page().with_row("merge", &outcomes);
        let expected = page().0.replace("| merge | 1 |", "| merge | 24 | 4 | 17 | 3 | 0 | 85 % |");
        assert_eq!(changed.0, expected);
        assert_eq!(page().with_row("clock", &outcomes), page());
        assert_eq!(row("merge", &outcomes, 6), "| merge | 30 | 4 | 17 | 3 | 6 | 85 % |");
    }
}

//! What was measured, bench by bench and each in its run: the file beside the page, from which the page is written.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;
use crate::plan::Bench;
use crate::report::Figure;

/// One run of the benches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The commit of the sources, and whether there were changes besides.
    pub commit: String,
    /// Processor, memory and kernel.
    pub machine: String,
    /// What else the reader has to know of it.
    pub setting: String,
}

impl Run {
    /// One that begins now.
    pub fn now(setting: &str) -> Self {
        Self { commit: commit(), machine: machine(), setting: setting.to_owned() }
    }
}

/// What one bench found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    bench: String,
    pub run: Run,
    pub figures: Vec<Figure>,
}

/// What was measured so far.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    measured: Vec<Measured>,
}

impl Records {
    /// Those of a page; none where there is none yet.
    pub fn beside(page: &Path) -> Outcome<Self> {
        let path = page.with_extension("json");
        let measured = match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json)
                .map_err(|error| format!("{}: {error}", path.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(format!("{}: {error}", path.display()).into()),
        };
        Ok(Self { path, measured })
    }

    /// Puts what a bench found in the place of what it found before, and writes the file.
    pub fn put(&mut self, bench: Bench, run: &Run, figures: Vec<Figure>) -> Outcome {
        self.measured.retain(|measured| measured.bench != bench.name());
        self.measured.push(Measured { bench: bench.name().to_owned(), run: run.clone(), figures });
        let json = serde_json::to_string_pretty(&self.measured)? + "\n";
        fs::write(&self.path, json)
            .map_err(|error| format!("{}: {error}", self.path.display()).into())
    }

    /// What each bench found that there is, in their order.
    pub fn measured(&self) -> impl Iterator<Item = (Bench, &Measured)> {
        let found = |bench: Bench| {
            let measured = self.measured.iter().find(|of| of.bench == bench.name())?;
            Some((bench, measured))
        };
        Bench::ALL.into_iter().filter_map(found)
    }
}

/// The commit of the sources, where they are in a repository.
fn commit() -> String {
    let sources = env!("CARGO_MANIFEST_DIR");
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(["-C", sources]).args(arguments).output().ok()?;
        let said = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| said.trim().to_owned())
    };
    let Some(commit) = git(&["log", "-1", "--format=%h of %cs"]) else { return "not known".into() };
    // What documents say does not change what is measured.
    let changed = git(&["status", "--porcelain"]);
    let changed = changed
        .is_some_and(|changed| changed.lines().any(|line| !line.contains("docs/performance")));
    if changed { format!("{commit}, with changes") } else { commit }
}

/// Processor, memory and kernel, as far as the system says.
fn machine() -> String {
    let field = |path: &str, key: &str| {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_else(|| "unknown".to_owned());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // The number alone: what a provider adds to it says nothing about the kernel.
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    format!(
        "{processor}, memory {memory}, {} {kernel}, {}",
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_again_takes_its_place_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let page = dir.path().join("performance.md");
        let (first, second) = (Run::now("first"), Run::now("second"));
        let figure = |value| vec![Figure::alone("a", value, "ms").noted("as it was")];
        let mut records = Records::beside(&page).unwrap();
        records.put(Bench::Repair, &first, figure(1.0)).unwrap();
        records.put(Bench::LocalWrite, &first, figure(2.0)).unwrap();
        let mut records = Records::beside(&page).unwrap();
        records.put(Bench::Repair, &second, figure(3.0)).unwrap();
        let records = Records::beside(&page).unwrap();
        let found = records.measured().map(|(bench, of)| {
            assert_eq!(of.figures[0].note, "as it was");
            (bench, of.run.setting.as_str(), of.figures[0].value)
        });
        let expected = [(Bench::LocalWrite, "first", 2.0), (Bench::Repair, "second", 3.0)];
        assert_eq!(found.collect::<Vec<_>>(), expected);
        fs::write(page.with_extension("json"), "{").unwrap();
        assert!(Records::beside(&page).is_err(), "what cannot be read is not written over");
    }
}

//! A run of a store whose every write and sync is recorded, with what the store showed after each step.

use std::io;
use std::path::{Path, PathBuf};

use fault_vfs::{Disk, Log, Syncs};
use tempfile::TempDir;

use crate::subject::{Observation, Problem, Subject};

/// Memory that looks like a folder, where the system has it: what is written here need not survive.
const MEMORY: &str = "/dev/shm";
/// After so many steps the log is moved into the file.
const STEPS_BETWEEN_TIDYING: u64 = 23;
/// After so many steps the store is closed and opened again.
const STEPS_BETWEEN_OPENINGS: u64 = 61;

/// A recorded run.
pub struct Recording<S> {
    /// The store's driver after the run.
    pub subject: S,
    /// What was written and synced.
    pub log: Log,
    /// What the store showed after each step; the first is before any.
    pub shown: Vec<Observation>,
}

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The file system failed.
    #[error("the file system of the run: {0}")]
    FileSystem(#[from] io::Error),
    /// The store failed though nothing was wrong with its disk.
    #[error("step {step}: {problem}")]
    Store {
        /// The step.
        step: u64,
        /// What it said.
        problem: Problem,
    },
}

/// A folder for files that need not survive.
///
/// # Errors
/// Those of the file system.
pub fn scratch() -> io::Result<TempDir> {
    if Path::new(MEMORY).is_dir() { TempDir::new_in(MEMORY) } else { TempDir::new() }
}

/// Runs some steps and records them.
///
/// # Errors
/// [`WorkloadError`].
pub fn record<S: Subject>(steps: u64, seed: u64) -> Result<Recording<S>, WorkloadError> {
    let folder = scratch()?;
    let folder: PathBuf = folder.path().canonicalize()?;
    let during = |step| move |problem| WorkloadError::Store { step, problem };
    let disk = Disk::attach(&folder, Syncs::Skipped)?;
    let mut subject = S::create(&folder, seed).map_err(during(0))?;
    let shown = if S::RUNS_ALIKE { Some(observed_apart::<S>(&folder, steps, seed)?) } else { None };
    disk.record()?;
    let observed = run(&mut subject, &folder, steps, Some(&disk), shown.is_none())?;
    Ok(Recording { subject, log: disk.stop(), shown: shown.unwrap_or(observed) })
}

/// What a store shows after each step, in a run of its own on a copy of the folder.
fn observed_apart<S: Subject>(
    folder: &Path,
    steps: u64,
    seed: u64,
) -> Result<Vec<Observation>, WorkloadError> {
    let (elsewhere, copy) = (scratch()?, scratch()?);
    let during = |problem| WorkloadError::Store { step: 0, problem };
    let mut subject = S::create(elsewhere.path(), seed).map_err(during)?;
    copy_folder(folder, copy.path())?;
    run(&mut subject, copy.path(), steps, None, true)
}

/// Runs some steps; what was shown before and after each.
fn run<S: Subject>(
    subject: &mut S,
    folder: &Path,
    steps: u64,
    disk: Option<&Disk>,
    observes: bool,
) -> Result<Vec<Observation>, WorkloadError> {
    let during = |step| move |problem| WorkloadError::Store { step, problem };
    let mut store = subject.open(folder).map_err(during(0))?;
    let mut shown = Vec::new();
    for step in 0..=steps {
        if step > 0 {
            disk.inspect(|disk| disk.begin(step));
            subject.step(&store, step).map_err(during(step))?;
            disk.inspect(|disk| disk.end(step));
        }
        if observes {
            shown.push(subject.observe(&store).map_err(during(step))?);
        }
        if step > 0 && step.is_multiple_of(STEPS_BETWEEN_TIDYING) {
            subject.tidy(&store).map_err(during(step))?;
        }
        if step > 0 && step.is_multiple_of(STEPS_BETWEEN_OPENINGS) {
            subject.close(store).map_err(during(step))?;
            store = subject.open(folder).map_err(during(step))?;
        }
    }
    subject.close(store).map_err(during(steps))?;
    Ok(shown)
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir_all(&copy)?;
            copy_folder(&entry.path(), &copy)?;
        } else {
            std::fs::copy(entry.path(), copy)?;
        }
    }
    Ok(())
}

//! The n-th call of a kind fails while the store works: once, or until the disk is mended.
//!
//! A step that fails names the trouble and leaves nothing behind; what was acknowledged before and after is there after
//! a power cut. Only where the sync of a commit failed, nobody knows whether the commit is on the disk: the step is not
//! acknowledged, and it may be there, whole, when the store is opened again. A sync that failed has lost what it should have brought to the disk, whatever a later one says: a
//! store that acknowledges after trying it again is caught.

use std::io;
use std::ops::Range;
use std::path::Path;

use fault_vfs::{Call, Crash, Disk, Fault, How, Log, Op, Repeat, Replay, Syncs};
use test_chance::Chance;

use crate::crashes::{Report, judge};
use crate::subject::{Observation, Problem, Subject};
use crate::workload::{Recording, scratch};

/// Steps before the fault waits for its call.
const STEPS_BEFORE_AT_MOST: u64 = 12;
/// Steps of a run.
const STEPS: u64 = 40;
/// Failed steps after which a disk is mended that fails until then.
const ENDURED: u32 = 2;
/// Tries of a call that the fault may strike, beside steps.
const TRIES: u32 = 3;
/// Failures that a report tells in full.
const TOLD: usize = 20;

/// What can fail, how, and the last call that it is drawn from.
const FAULTS: [(Call, How, u64); 7] = [
    (Call::Write, How::IoError, 160),
    (Call::Write, How::Full, 160),
    (Call::Write, How::Short, 160),
    (Call::Sync, How::IoError, 16),
    (Call::Sync, How::IoError, 16),
    (Call::Truncate, How::IoError, 1),
    (Call::Read, How::IoError, 40),
];

/// Runs trials with a fault each, by their numbers, until `go_on` says no.
///
/// # Errors
/// Those of the file system that holds the stores.
pub fn run<S: Subject>(
    trials: Range<usize>,
    seed: u64,
    go_on: &impl Fn(usize) -> bool,
) -> io::Result<(Report, usize)> {
    let mut report = Report::default();
    let mut struck = 0;
    for trial in trials {
        let mut chance = Chance::apart(seed, trial as u64);
        let (call, how, last) =
            FAULTS[usize::try_from(chance.below(FAULTS.len() as u64)).unwrap_or_default()];
        let repeat = if chance.once_in(3) { Repeat::UntilHealed } else { Repeat::Once };
        let fault = Fault { call, nth: chance.between(1, last), how, repeat };
        let scratch = scratch()?;
        match one::<S>(&scratch.path().canonicalize()?, fault, seed ^ trial as u64)? {
            Ok(strikes) => struck += usize::from(strikes > 0),
            Err(problem) => {
                report.failed += 1;
                if report.failures.len() < TOLD {
                    let told = format!("{}: {fault:?}, seed {seed}, trial {trial}", S::NAME);
                    report.failures.push(format!("{told}: {problem}"));
                }
            }
        }
        report.images += 1;
        if !go_on(report.images) {
            break;
        }
    }
    Ok((report, struck))
}

/// One run with one fault; how many calls it struck, or what was wrong.
///
/// # Errors
/// Those of the file system.
pub fn one<S: Subject>(base: &Path, fault: Fault, seed: u64) -> io::Result<Result<u64, String>> {
    let (live, images) = (base.join("live"), base.join("images"));
    std::fs::create_dir_all(&live)?;
    std::fs::create_dir_all(&images)?;
    let disk = Disk::attach(&live, Syncs::Skipped)?;
    let _images_disk = Disk::attach(&images, Syncs::Skipped)?;
    let mut run = match Run::<S>::begin(&live, &disk, seed)? {
        Ok(run) => run,
        Err(problem) => return Ok(Err(problem.to_string())),
    };
    let struck = match run.all(fault, seed) {
        Ok(struck) => struck,
        Err(problem) => return Ok(Err(problem)),
    };
    let Run { subject, shown, .. } = run;
    let recording = Recording { subject, log: disk.stop(), shown };
    let judged = after_power_cuts(&recording, &images)?;
    Ok(judged.map(|()| struck))
}

/// The power is cut after each acknowledged step.
fn after_power_cuts<S: Subject>(
    recording: &Recording<S>,
    images: &Path,
) -> io::Result<Result<(), String>> {
    let Log { ops, .. } = &recording.log;
    // Only from the first failure on: before it, the run is one of those that the crash images are about.
    let struck = ops.iter().position(|op| matches!(op, Op::SyncFailed(_)));
    let from = struck.unwrap_or(ops.len().saturating_sub(1));
    let mut replay = Replay::of(&recording.log);
    let mut chance = Chance::of(from as u64);
    while let Some(op) = replay.step() {
        let last = replay.played() == ops.len();
        if replay.played() <= from || !(last || matches!(op, Op::End(_))) {
            continue;
        }
        for way in [Crash::SyncedOnly, Crash::Reordered] {
            let folder = images.join(format!("{}-{way:?}", replay.played()));
            replay.image(way, &mut chance).write_to(&folder)?;
            let steps = replay.steps();
            if let Err(problem) = judge(recording, &folder, steps.clone()) {
                return Ok(Err(format!("a power cut ({way:?}) after step {steps:?}: {problem}")));
            }
            std::fs::remove_dir_all(&folder)?;
        }
    }
    Ok(Ok(()))
}

struct Run<'r, S: Subject> {
    folder: &'r Path,
    disk: &'r Disk,
    subject: S,
    store: Option<S::Store>,
    shown: Vec<Observation>,
    fault: Option<Fault>,
    /// Whether the last step failed at a sync, so that it may be there after all.
    uncertain: bool,
}

impl<'r, S: Subject> Run<'r, S> {
    fn begin(folder: &'r Path, disk: &'r Disk, seed: u64) -> io::Result<Result<Self, Problem>> {
        let subject = match S::create(folder, seed) {
            Ok(subject) => subject,
            Err(problem) => return Ok(Err(problem)),
        };
        disk.record()?;
        let opened = subject.open(folder);
        let begun = opened.and_then(|store| {
            let shown = vec![subject.observe(&store)?];
            let store = Some(store);
            Ok(Self { folder, disk, subject, store, shown, fault: None, uncertain: false })
        });
        Ok(begun)
    }

    /// Every step; how many calls the fault struck.
    fn all(&mut self, fault: Fault, seed: u64) -> Result<u64, String> {
        let before = Chance::of(seed).below(STEPS_BEFORE_AT_MOST);
        let (mut failed, mut struck) = (0, 0);
        self.fault = Some(fault);
        for step in 1..=STEPS {
            if step == before + 1 {
                self.disk.inject(fault);
            }
            if step == STEPS {
                struck = self.disk.struck();
                self.disk.heal();
            }
            if self.step(step)? {
                failed += 1;
                if failed == ENDURED {
                    struck = self.disk.struck();
                    self.disk.heal();
                }
            }
            if step.is_multiple_of(9) {
                self.tidy(step)?;
            }
            if step.is_multiple_of(14) {
                self.reopen(step)?;
            }
        }
        let struck = struck.max(self.disk.struck());
        self.reopen(STEPS)?;
        Ok(struck)
    }

    /// One step; whether it failed.
    fn step(&mut self, step: u64) -> Result<bool, String> {
        self.disk.begin(step);
        let store = self.store.as_ref().expect("it is open between steps");
        let done = self.subject.step(store, step);
        if done.is_ok() {
            self.disk.end(step);
        }
        let found = self.observe(step)?;
        let last = self.shown.last().expect("the first is there");
        match done {
            Ok(()) => {
                self.shown.push(found);
                self.uncertain = false;
                Ok(false)
            }
            Err(problem) => {
                self.check_named(step, &problem)?;
                let difference = last.difference(&found);
                if !difference.is_empty() {
                    return Err(format!("step {step} failed and left something: {difference}"));
                }
                self.shown.push(found);
                self.uncertain = self.fault.is_some_and(|fault| fault.call == Call::Sync);
                Ok(true)
            }
        }
    }

    /// What it shows; a read that the fault strikes says so and is tried again.
    fn observe(&self, step: u64) -> Result<Observation, String> {
        let store = self.store.as_ref().expect("it is open between steps");
        for _ in 0..TRIES {
            match self.subject.observe(store) {
                Ok(shown) => return Ok(shown),
                Err(problem) => self.check_named(step, &problem)?,
            }
        }
        self.disk.heal();
        self.subject.observe(store).map_err(|problem| format!("mended, step {step}: {problem}"))
    }

    fn tidy(&self, step: u64) -> Result<(), String> {
        let store = self.store.as_ref().expect("it is open between steps");
        match self.subject.tidy(store) {
            Ok(()) => Ok(()),
            Err(problem) => self.check_named(step, &problem),
        }
    }

    fn reopen(&mut self, step: u64) -> Result<(), String> {
        let store = self.store.take().expect("it is open between steps");
        if let Err(problem) = self.subject.close(store) {
            self.check_named(step, &problem)?;
        }
        let mut opened = self.subject.open(self.folder);
        for _ in 0..TRIES {
            match &opened {
                Ok(_) => break,
                Err(problem) => self.check_named(step, problem)?,
            }
            self.disk.heal();
            opened = self.subject.open(self.folder);
        }
        self.store = Some(opened.map_err(|problem| format!("mended, step {step}: {problem}"))?);
        let found = self.observe(step)?;
        let last = self.shown.last_mut().expect("the first is there");
        let difference = last.difference(&found);
        if difference.is_empty() {
            Ok(())
        } else if self.uncertain {
            *last = found;
            Ok(())
        } else {
            Err(format!("opened again after step {step}: {difference}"))
        }
    }

    /// A failure says what the disk said.
    fn check_named(&self, step: u64, problem: &Problem) -> Result<(), String> {
        let named = self.fault.is_some_and(|fault| match fault.how {
            How::IoError => matches!(problem, Problem::Device(_)),
            How::Full | How::Short => matches!(problem, Problem::Full(_)),
        });
        if named {
            Ok(())
        } else {
            Err(format!("step {step}: not named as {:?}: {problem}", self.fault))
        }
    }
}

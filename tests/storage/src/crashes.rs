//! Crash images: at every write and sync of a recorded run, the files as a power cut may leave them.
//!
//! Images that were seen before are neither opened nor counted again.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use fault_vfs::{Crash, Disk, Image, Op, Replay, Syncs};
use test_chance::Chance;

use crate::subject::{Problem, Subject};
use crate::workload::{Recording, scratch};

/// Failures that a report tells in full.
const TOLD: usize = 20;
/// So many rounds in a row without a new image are the end: the ways to crash are used up.
const ROUNDS_IN_VAIN: u32 = 20;

/// How many images, and how.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Different images to open; fewer where there are no more.
    pub images: usize,
    /// Threads that open them.
    pub threads: usize,
    /// What is random comes from here.
    pub seed: u64,
}

/// What a campaign found.
#[derive(Debug, Default)]
pub struct Report {
    /// Different images that were opened.
    pub images: usize,
    /// Writes, truncations, removals and syncs at which the power was cut.
    pub places: usize,
    /// How many failed.
    pub failed: usize,
    /// The first of them, each with what repeats it.
    pub failures: Vec<String>,
}

/// Opens crash images until the budget is used up or `go_on` says no.
///
/// # Errors
/// Those of the file system that holds the images.
pub fn run<S: Subject>(
    recording: &Recording<S>,
    budget: Budget,
    go_on: &(impl Fn(usize) -> bool + Sync),
) -> io::Result<Report> {
    let places: Vec<usize> = (0..recording.log.ops.len())
        .filter(|at| !matches!(recording.log.ops[*at], Op::Begin(_) | Op::End(_) | Op::Create(_)))
        .collect();
    let campaign = Campaign {
        recording,
        budget,
        places: &places,
        seen: Mutex::default(),
        opened: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        failures: Mutex::default(),
        go_on,
    };
    let mut in_vain = 0;
    for round in 0.. {
        let before = campaign.opened.load(Ordering::Relaxed);
        campaign.round(round)?;
        let new = campaign.opened.load(Ordering::Relaxed) - before;
        in_vain = if new == 0 { in_vain + 1 } else { 0 };
        if campaign.is_over() || in_vain == ROUNDS_IN_VAIN {
            break;
        }
    }
    let failures = campaign.failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Report {
        images: campaign.opened.load(Ordering::Relaxed),
        places: places.len(),
        failed: failures.len(),
        failures: failures.into_iter().take(TOLD).collect(),
    })
}

struct Campaign<'r, S, F> {
    recording: &'r Recording<S>,
    budget: Budget,
    places: &'r [usize],
    seen: Mutex<BTreeSet<u64>>,
    opened: AtomicUsize,
    stop: AtomicBool,
    failures: Mutex<Vec<String>>,
    go_on: &'r F,
}

impl<S: Subject, F: Fn(usize) -> bool + Sync> Campaign<'_, S, F> {
    fn is_over(&self) -> bool {
        let opened = self.opened.load(Ordering::Relaxed);
        opened >= self.budget.images || self.stop.load(Ordering::Relaxed)
    }

    /// One image at each place, or at as many, evenly spread, as the budget has images.
    fn round(&self, round: u64) -> io::Result<()> {
        let left = self.budget.images.saturating_sub(self.opened.load(Ordering::Relaxed)).max(1);
        // Rounded up, so that a round reaches the end of the run.
        let stride = self.places.len().div_ceil(left).max(1);
        let first = usize::try_from(round).unwrap_or_default() % stride;
        let places: Vec<usize> = self.places.iter().copied().skip(first).step_by(stride).collect();
        let threads = self.budget.threads.max(1);
        std::thread::scope(|scope| {
            let work = |thread: usize| {
                let mine = places.iter().copied().skip(thread).step_by(threads);
                self.images_at(mine, round, thread)
            };
            let running: Vec<_> =
                (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
            let ended = running.into_iter().map(|thread| thread.join().expect("it does not panic"));
            ended.collect()
        })
    }

    fn images_at(
        &self,
        places: impl Iterator<Item = usize>,
        round: u64,
        thread: usize,
    ) -> io::Result<()> {
        let scratch = scratch()?;
        let base = scratch.path().canonicalize()?;
        let _disk = Disk::attach(&base, Syncs::Skipped)?;
        let mut replay = Replay::of(&self.recording.log);
        for place in places {
            while replay.played() <= place {
                replay.step();
            }
            if self.is_over() {
                return Ok(());
            }
            let way = way(&self.recording.log.ops[place], place as u64 + round);
            let mut chance = Chance::apart(self.budget.seed ^ round, place as u64);
            let image = replay.image(way, &mut chance);
            let steps = replay.steps();
            if !self.is_new(&image, *steps.start()) {
                continue;
            }
            let folder = base.join(format!("{thread}-{place}"));
            image.write_to(&folder)?;
            let judged =
                catch_unwind(AssertUnwindSafe(|| judge(self.recording, &folder, steps.clone())));
            let judged =
                judged.unwrap_or_else(|_| Err(Problem::Unsound("the store panicked".to_owned())));
            std::fs::remove_dir_all(&folder)?;
            if let Err(problem) = judged {
                let seed = self.budget.seed;
                let at = format!("{}: {way:?} at operation {place}, steps {steps:?}", S::NAME);
                let told = format!("{at}, seed {seed}, round {round}: {problem}");
                self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(told);
            }
            let opened = self.opened.fetch_add(1, Ordering::Relaxed) + 1;
            if !(self.go_on)(opened) {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn is_new(&self, image: &Image, ended: u64) -> bool {
        let mut hasher = DefaultHasher::new();
        (ended, &image.0).hash(&mut hasher);
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(hasher.finish())
    }
}

/// How the power is cut at a place; each turn another way.
fn way(op: &Op, turn: u64) -> Crash {
    let ways: &[Crash] = match op {
        Op::Write { .. } => {
            &[Crash::Reordered, Crash::Torn(512), Crash::AllWritten, Crash::Torn(4096)]
        }
        Op::Sync(_) | Op::SyncFailed(_) => &[Crash::SyncedOnly, Crash::AllWritten],
        _ => &[Crash::SyncedOnly, Crash::Reordered, Crash::AllWritten],
    };
    ways[usize::try_from(turn % ways.len() as u64).unwrap_or_default()]
}

/// Whether a store that is opened in a folder shows one of the steps, and goes on from there.
///
/// # Errors
/// What is wrong with it.
pub fn judge<S: Subject>(
    recording: &Recording<S>,
    folder: &Path,
    steps: std::ops::RangeInclusive<u64>,
) -> Result<u64, Problem> {
    let subject = &recording.subject;
    let store = subject.open(folder)?;
    let found = subject.observe(&store)?;
    let shown = |step: u64| &recording.shown[usize::try_from(step).unwrap_or(usize::MAX)];
    let (acknowledged, begun) = (*steps.start(), *steps.end());
    let step = steps.rev().find(|step| *shown(*step) == found);
    let Some(step) = step else {
        let earlier = (0..acknowledged).rev().find(|step| *shown(*step) == found);
        let lost = earlier
            .map(|step| format!("it shows step {step}, and step {acknowledged} was acknowledged"));
        let difference = shown(acknowledged).difference(&found);
        return Err(Problem::Unsound(lost.unwrap_or(difference)));
    };
    subject.goes_on(&store, step, begun)?;
    subject.close(store)?;
    Ok(step)
}

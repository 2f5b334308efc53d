//! How well the harness catches bugs: each one of the bank is planted, and seeds run until one fails.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use farshore_sync_core::bugs::{Bug, plant};

use crate::oracles::Violation;
use crate::plan::Plan;
use crate::world::run;

/// What became of one bug.
#[derive(Debug, Clone)]
pub struct Caught {
    /// The bug.
    pub bug: Bug,
    /// Seeds that were run.
    pub seeds: u64,
    /// How long that took.
    pub took: Duration,
    /// What gave it away; `None` where nothing did.
    pub violation: Option<Violation>,
}

/// Plants every bug in turn and runs the seeds from `first` on until one fails, `most_seeds` at most. `tell` hears of
/// each bug as soon as it is known what became of it.
#[must_use]
pub fn measure(
    bugs: &[Bug],
    first: u64,
    most_seeds: u64,
    threads: usize,
    tell: impl Fn(&Caught) + Sync,
) -> Vec<Caught> {
    let next = AtomicUsize::new(0);
    let caught = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = hunt(*bug, first, most_seeds);
                    tell(&result);
                    caught.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                }
            });
        }
    });
    caught.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "how long it takes to catch a bug is the measure")]
fn hunt(bug: Bug, first: u64, most_seeds: u64) -> Caught {
    let began = Instant::now();
    plant(Some(bug));
    let mut violation = None;
    let mut seeds = 0;
    while seeds < most_seeds && violation.is_none() {
        violation = run(&Plan::draw(first + seeds)).violations.into_iter().next();
        seeds += 1;
    }
    plant(None);
    Caught { bug, seeds, took: began.elapsed(), violation }
}

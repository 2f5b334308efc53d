//! How well the harness catches bugs: each one of the bank is planted, and seeds run until one fails, the kept ones
//! first, as in every campaign.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use farshore_sync_core::bugs::{Bug, plant};

use crate::campaign::{KEPT_SEEDS, kept_seeds};
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
    /// The seed that gave it away, and how; `None` where nothing did.
    pub by: Option<(u64, Violation)>,
}

/// The middle one of the times that catching took; `None` where nothing was caught.
#[must_use]
pub fn median(caught: &[Caught]) -> Option<Duration> {
    let mut times: Vec<Duration> = caught.iter().map(|caught| caught.took).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// Plants every bug in turn and runs the kept seeds and those from `first` on until one fails, `most_seeds` of those at
/// most. `tell` hears of each bug as soon as it is known what became of it.
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
    let mut seeds = 0;
    let by = kept_seeds(KEPT_SEEDS).into_iter().chain(first..first + most_seeds).find_map(|seed| {
        seeds += 1;
        Some((seed, run(&Plan::draw(seed)).violations.into_iter().next()?))
    });
    plant(None);
    Caught { bug, seeds, took: began.elapsed(), by }
}

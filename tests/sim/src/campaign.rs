//! Many seeds, on as many threads as are given: each run is a thread's own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::causal::Table;
use crate::plan::Plan;
use crate::world::{Covered, Outcome, run};

/// One seed in so many is run twice, and both runs must leave the same trace.
pub const REPEAT_ONE_IN: u64 = 50;
/// Failures after which no further seed begins.
pub const MOST_FAILURES: usize = 20;
/// The seeds that failed once.
pub const KEPT_SEEDS: &str = include_str!("../seeds.txt");

/// Which seeds to run.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The seeds.
    pub seeds: Vec<u64>,
    /// Threads.
    pub threads: usize,
    /// How the plan of a seed is drawn.
    pub draw: fn(u64) -> Plan,
}

/// A seed whose run showed what must never be.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Its outcome.
    pub outcome: Outcome,
}

/// What a campaign found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Seeds that were run.
    pub seeds: u64,
    /// What they covered together.
    pub covered: Covered,
    /// Seeds that were run twice.
    pub repeated: u64,
    /// Seeds of which the second run left another trace.
    pub unrepeatable: Vec<u64>,
    /// Seeds that failed.
    pub failures: Vec<Failure>,
    /// What runs that judge causal consistency showed, by kind of fault.
    pub causal: Table,
}

impl Campaign {
    /// Runs the seeds until all are done, enough have failed, or `goes_on` says no. `tell` hears after each how it
    /// stands, and of the failure where it is one.
    pub fn run(
        &self,
        goes_on: impl Fn() -> bool + Sync,
        tell: impl Fn(&Report, Option<&Failure>) + Sync,
    ) -> Report {
        let next = AtomicUsize::new(0);
        let report = Mutex::new(Report::default());
        let lock = || report.lock().unwrap_or_else(PoisonError::into_inner);
        let work = || {
            while goes_on() && lock().failures.len() < MOST_FAILURES {
                let Some(seed) = self.seeds.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    return;
                };
                let plan = (self.draw)(*seed);
                let outcome = run(&plan);
                let again = seed.is_multiple_of(REPEAT_ONE_IN).then(|| run(&plan));
                if let (Some(fault), Some(causal)) = (plan.causal, &outcome.causal) {
                    let other = outcome.violations.len() > causal.errors.len();
                    lock().causal.add(fault, causal, other);
                }
                let mut report = lock();
                let failed = report.take(*seed, outcome, again);
                let failure = report.failures.last().filter(|_| failed);
                tell(&report, failure);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(work);
            }
        });
        report.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report {
    /// Counts a seed in; whether it failed.
    fn take(&mut self, seed: u64, outcome: Outcome, again: Option<Outcome>) -> bool {
        self.seeds += 1;
        self.covered.add(&outcome.covered);
        if let Some(again) = again {
            self.repeated += 1;
            if again.trace != outcome.trace {
                self.unrepeatable.push(seed);
            }
        }
        let failed = !outcome.violations.is_empty();
        if failed {
            self.failures.push(Failure { seed, outcome });
        }
        failed
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty() && self.unrepeatable.is_empty()
    }

    /// How many runs it took.
    #[must_use]
    pub const fn runs(&self) -> u64 {
        self.seeds + self.repeated
    }
}

/// The seeds of a file: one in a line, and after `#` why it is there.
#[must_use]
pub fn kept_seeds(file: &str) -> Vec<u64> {
    let lines = file.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).filter_map(|line| line.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_kept_seeds_is_a_seed_or_a_remark() {
        let lines = KEPT_SEEDS.lines().filter(|line| !line.trim_start().starts_with('#'));
        let seeds = lines.filter(|line| !line.trim().is_empty()).count();
        assert_eq!(kept_seeds(KEPT_SEEDS).len(), seeds);
        assert!(seeds > 0);
    }

    #[test]
    fn a_failure_or_another_trace_is_no_success() {
        let outcome = |trace| Outcome {
            violations: Vec::new(),
            trace: [trace; 32],
            covered: Covered::default(),
            causal: None,
        };
        let mut report = Report::default();
        report.take(1, outcome(1), Some(outcome(1)));
        assert!(report.passed());
        report.take(2, outcome(1), Some(outcome(2)));
        assert_eq!(report.unrepeatable, [2]);
        assert!(!report.passed());
    }
}

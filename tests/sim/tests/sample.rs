//! A sample of the simulator's seeds: those that failed once, and some that everybody runs.

use farshore_sim::campaign::{Campaign, KEPT_SEEDS, Report, kept_seeds};
use farshore_sim::plan::Plan;

/// Seeds of the sample.
const SAMPLE: std::ops::Range<u64> = 5_000..5_120;
/// Seeds of the sample that judges causal consistency: some of each kind of fault.
const CAUSAL_SAMPLE: std::ops::Range<u64> = 0..45;
/// Threads on which they run.
const THREADS: usize = 2;

fn check(seeds: Vec<u64>, draw: fn(u64) -> Plan) -> Report {
    let report = Campaign { seeds, threads: THREADS, draw }.run(|| true, |_, _| {});
    let failures = report.failures.iter().map(|failure| {
        let violations = failure.outcome.violations.iter().map(ToString::to_string);
        (format!("farshore-sim --seed {}", failure.seed), violations.collect::<Vec<_>>())
    });
    let failures: Vec<_> = failures.collect();
    assert!(report.passed(), "{failures:#?}, not repeatable: {:?}", report.unrepeatable);
    report
}

#[test]
fn seeds_that_failed_once_pass() {
    check(kept_seeds(KEPT_SEEDS), Plan::draw);
}

#[test]
fn reads_and_writes_are_causally_consistent_under_every_kind_of_fault() {
    let report = check(CAUSAL_SAMPLE.collect(), Plan::draw_causal);
    assert!(report.covered.transactions > 0 && report.causal.failed() == 0, "{}", report.causal);
}

#[test]
fn a_sample_of_seeds_passes_and_repeats_to_the_letter() {
    let report = check(SAMPLE.collect(), Plan::draw);
    assert!(report.repeated > 0 && report.covered.transactions > 0, "{report:?}");
    assert!(report.covered.scanned_bytes > 0, "frames were searched for words of other tenants");
}

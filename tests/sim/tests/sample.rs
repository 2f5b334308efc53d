//! A sample of the simulator's seeds: those that failed once, and some that everybody runs.

use farshore_sim::campaign::{Campaign, KEPT_SEEDS, Report, kept_seeds};

/// Seeds of the sample.
const SAMPLE: std::ops::Range<u64> = 5_000..5_120;
/// Threads on which they run.
const THREADS: usize = 2;

fn check(seeds: Vec<u64>) -> Report {
    let report = Campaign { seeds, threads: THREADS }.run(|| true);
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
    check(kept_seeds(KEPT_SEEDS));
}

#[test]
fn a_sample_of_seeds_passes_and_repeats_to_the_letter() {
    let report = check(SAMPLE.collect());
    assert!(report.repeated > 0 && report.covered.transactions > 0, "{report:?}");
    assert!(report.covered.scanned_bytes > 0, "frames were searched for words of other tenants");
}

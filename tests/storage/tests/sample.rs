//! A sample of each campaign, and each oracle on a fault that was planted for it.
#![expect(clippy::unwrap_used, reason = "a campaign that cannot run fails its test")]

use std::sync::Arc;

use fault_vfs::{Call, Fault, How, Log, Op, Repeat};
use storage_faults::crashes::{self, Budget, Report};
use storage_faults::device::Device;
use storage_faults::node::Node;
use storage_faults::subject::Subject;
use storage_faults::tenant::Tenant;
use storage_faults::workload::{Recording, record, scratch};
use storage_faults::{errors, flips, install};

/// Steps of the runs of the sample.
const STEPS: u64 = 130;
/// Images of each store.
const IMAGES: usize = 600;
/// Runs with a fault of each store.
const RUNS: usize = 60;
/// Reads of the run of a node in which each fails once.
const READS: u64 = 60;
/// Flipped bits of each store.
const FLIPS: usize = 400;

fn images<S: Subject>(recording: &Recording<S>, images: usize) -> Report {
    let budget = Budget { images, threads: 2, seed: 7 };
    crashes::run(recording, budget, &|_| true).unwrap()
}

fn recording<S: Subject>() -> Recording<S> {
    install();
    record(STEPS, 11).unwrap()
}

fn check_crashes<S: Subject>() {
    let report = images(&recording::<S>(), IMAGES);
    assert!(report.images >= IMAGES, "{report:?}");
    assert_eq!(report.failed, 0, "{:#?}", report.failures);
}

#[test]
fn a_device_survives_power_cuts() {
    check_crashes::<Device>();
}

#[test]
fn a_tenant_survives_power_cuts() {
    check_crashes::<Tenant>();
}

#[test]
fn tenants_that_share_a_journal_survive_power_cuts() {
    check_crashes::<Node>();
}

fn check_errors<S: Subject>() {
    install();
    let (report, struck) = errors::run::<S>(0..RUNS, 5, &|_| true).unwrap();
    assert_eq!(report.failed, 0, "{:#?}", report.failures);
    assert!(struck > RUNS / 2, "{struck} of {RUNS} faults struck");
}

#[test]
fn a_device_survives_calls_that_fail() {
    check_errors::<Device>();
}

#[test]
fn a_tenant_survives_calls_that_fail() {
    check_errors::<Tenant>();
}

#[test]
fn tenants_that_share_a_journal_survive_calls_that_fail() {
    check_errors::<Node>();
}

/// Each read of a run fails once, so those as well with which the transaction ends that commits share.
#[test]
fn a_node_says_of_each_read_that_fails_that_the_disk_failed() {
    install();
    let mut struck = 0;
    for nth in 1..=READS {
        let fault = Fault { call: Call::Read, nth, how: How::IoError, repeat: Repeat::Once };
        let dir = scratch().unwrap();
        struck += errors::one::<Node>(dir.path(), fault, 10).unwrap().unwrap();
    }
    assert!(struck > READS / 2, "{struck} of {READS} reads failed");
}

fn check_flips<S: Subject>() {
    let (report, ends) = flips::run(&recording::<S>(), FLIPS, 3, &|_| true).unwrap();
    assert_eq!(report.failed, 0, "{ends:?} {:#?}", report.failures);
    assert_eq!(ends.len(), 6, "every region had its turn: {ends:?}");
}

#[test]
fn a_device_tells_flipped_bits() {
    check_flips::<Device>();
}

#[test]
fn a_tenant_tells_flipped_bits() {
    check_flips::<Tenant>();
}

#[test]
fn tenants_that_share_a_journal_tell_flipped_bits() {
    check_flips::<Node>();
}

/// A run whose record was altered: the same as if the store had done that.
fn planted<S: Subject>(alter: impl FnOnce(&mut Log)) -> Report {
    let mut recording = recording::<S>();
    alter(&mut recording.log);
    images(&recording, 150)
}

fn is_log(name: &str) -> bool {
    name.ends_with("-wal")
}

#[test]
fn a_store_that_does_not_sync_is_caught() {
    let without =
        |log: &mut Log| log.ops.retain(|op| !matches!(op, Op::Sync(name) if is_log(name)));
    for report in [planted::<Device>(without), planted::<Tenant>(without), planted::<Node>(without)]
    {
        let told = report.failures.join("\n");
        assert!(told.contains("was acknowledged"), "{told}");
    }
}

#[test]
fn an_acknowledgement_before_the_commit_is_caught() {
    let early = |log: &mut Log| {
        let begins: Vec<_> = (0..log.ops.len())
            .filter_map(|at| match log.ops[at] {
                Op::Begin(step) => Some((at, step)),
                _ => None,
            })
            .collect();
        log.ops.retain(|op| !matches!(op, Op::End(_)));
        for (at, step) in begins.into_iter().rev() {
            let at = log.ops[..=at.min(log.ops.len() - 1)]
                .iter()
                .rposition(|op| matches!(op, Op::Begin(found) if *found == step));
            log.ops.insert(at.unwrap_or_default() + 1, Op::End(step));
        }
    };
    for report in [planted::<Device>(early), planted::<Tenant>(early), planted::<Node>(early)] {
        let told = report.failures.join("\n");
        assert!(told.contains("was acknowledged"), "{told}");
    }
}

#[test]
fn a_write_that_never_arrives_is_caught() {
    let lost = |log: &mut Log| {
        let databases = |op: &Op| matches!(op, Op::Write { file, .. } if file.ends_with(".db"));
        let mut count = 0;
        log.ops.retain(|op| {
            count += usize::from(databases(op));
            !databases(op) || count % 9 != 0
        });
    };
    for report in [planted::<Device>(lost), planted::<Tenant>(lost)] {
        assert!(report.failed > 0, "{report:?}");
    }
}

#[test]
fn a_row_that_nobody_wrote_is_caught() {
    let mut recording = recording::<Tenant>();
    for shown in &mut recording.shown {
        // What the store shows then is one row more than it ever should.
        shown.0.pop();
    }
    let report = images(&recording, 20);
    assert_eq!(report.failed, report.images);
}

/// A store that tries a failed sync again and acknowledges: what the first one lost is not in its record.
#[test]
fn an_acknowledgement_after_a_sync_that_was_tried_again_is_caught() {
    let again = |log: &mut Log| {
        let failing = |op: &Op| match op {
            Op::Sync(name) if is_log(name) => Some(Arc::clone(name)),
            _ => None,
        };
        let (at, name) = log
            .ops
            .iter()
            .enumerate()
            .filter_map(|(at, op)| Some((at, failing(op)?)))
            .nth(20)
            .unwrap();
        log.ops.insert(at, Op::SyncFailed(name));
        // The power is cut some steps later, before anything else comes to the same places.
        log.ops.truncate(at + 60);
    };
    for report in [planted::<Device>(again), planted::<Tenant>(again)] {
        assert!(report.failed > 0, "{report:?}");
    }
}

/// The sync of a log fails as its tenant closes. Had its pages been moved into the file all the same, what is on the
/// disk of that log, once its removal is undone, would hide newer pages behind older ones.
#[test]
fn a_log_that_could_not_be_synced_stays_when_its_tenant_closes() {
    install();
    let scratch = scratch().unwrap();
    let fault = Fault { call: Call::Sync, nth: 12, how: How::IoError, repeat: Repeat::Once };
    let struck = errors::one::<Node>(&scratch.path().canonicalize().unwrap(), fault, 273).unwrap();
    assert_eq!(struck, Ok(1));
}

/// A disk that fails for good: the store must not acknowledge a single step, and says so.
#[test]
fn a_fault_that_strikes_is_counted() {
    install();
    let scratch = scratch().unwrap();
    let fault = Fault { call: Call::Write, nth: 1, how: How::IoError, repeat: Repeat::UntilHealed };
    let struck = errors::one::<Tenant>(scratch.path(), fault, 1).unwrap();
    assert!(struck.unwrap() >= 2, "it is mended after two failures");
}

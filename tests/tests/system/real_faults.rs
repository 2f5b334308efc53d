//! A sample of the kills and partitions of which `cargo xtask proof` runs thousands.

use std::time::Duration;

use system_tests::real_faults::{kills, partitions, percentile};
use system_tests::seeds::Seed;

/// Kills of the sample.
const KILLS: u64 = 16;
/// Partitions of the sample.
const PARTITIONS: u64 = 10;
/// How long most may take from the heal until everything is equal, on a machine that is busy with other tests.
const HEALED_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn servers_and_replicas_that_are_killed_and_stopped_lose_nothing_and_apply_nothing_twice() {
    let seed = Seed::of("real kills");
    kills(seed.chance().next(), KILLS);
}

#[test]
fn every_copy_is_the_same_soon_after_a_partition() {
    let seed = Seed::of("real partitions");
    let times = partitions(seed.chance().next(), PARTITIONS);
    assert_eq!(times.len() as u64, PARTITIONS);
    let median = percentile(&times, 50);
    assert!(median < HEALED_WITHIN, "{times:?}");
}

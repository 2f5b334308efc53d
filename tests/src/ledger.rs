//! What programs that are killed must agree on: each transaction inserts a row of its own and counts one up, so that
//! rows and count must be equal everywhere.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use test_chance::Chance;

use crate::deadline::{LATER, eventually, within_deadline};
use crate::proxy::{Direction, Proxy};
use crate::replica::Replica;
use crate::server::{Server, TENANT};

/// Longest time between the first bytes of a sync and the kill.
const MAX_LIFE_MS: u64 = 60;
/// Bytes that a wire still passes before it stalls, at most.
const MAX_BYTES_BEFORE_STALL: u64 = 512;

/// A moment of chance: nothing is waited for, but a kill has to come at some time.
pub fn for_a_moment(chance: &mut Chance) {
    let moment = Duration::from_millis(chance.below(MAX_LIFE_MS));
    within_deadline(moment, || None::<()>);
}

/// Every other kill finds a wire that stalled after some bytes, one way or the other: on a machine of any speed
/// something is then unanswered.
pub fn stall_at_times(chance: &mut Chance, proxy: &Proxy, kill: u64) {
    if kill.is_multiple_of(2) {
        let direction = if chance.below(2) == 0 { Direction::Up } else { Direction::Down };
        proxy.stall_after(direction, chance.below(MAX_BYTES_BEFORE_STALL));
    }
}

/// Lets everything pass again.
pub fn flow(proxy: &Proxy) {
    proxy.flow(Direction::Up);
    proxy.flow(Direction::Down);
}

/// One transaction: a row that no other one has, and one more on the tally.
#[must_use]
pub fn step(tally: &str, label: &str) -> serde_json::Value {
    json!({"op": "txn", "do": [["put", "items", {"label": label, "amount": 1}], ["inc", "tallies", tally, "count", 1]]})
}

/// What must hold on every copy: as many rows as were counted, each label once, and nothing missing that must be there.
fn check_copy(
    replica: &mut Replica,
    written: &BTreeSet<String>,
    acknowledged: &BTreeSet<String>,
) -> i64 {
    let labels = replica.column("SELECT label FROM items");
    let unique: BTreeSet<String> =
        labels.iter().map(|label| label.as_str().unwrap().to_owned()).collect();
    assert_eq!(labels.len(), unique.len(), "a row came twice");
    let missing: Vec<_> = acknowledged.difference(&unique).collect();
    assert!(missing.is_empty(), "lost: {missing:?}");
    let unknown: Vec<_> = unique.difference(written).collect();
    assert!(unknown.is_empty(), "from nowhere: {unknown:?}");
    let count = replica.number("SELECT count FROM tallies");
    assert_eq!(count, i64::try_from(unique.len()).unwrap(), "rows and tally differ");
    count
}

/// A new tally that every replica will count on.
#[must_use]
pub fn tally(server: &Server) -> String {
    let mut replica = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    let tally = replica.insert("tallies", json!({"name": "all"}));
    replica.sync();
    tally
}

/// Waits until every copy, a fresh one included, holds the same, and checks that it is what was written.
///
/// # Panics
/// Where something is lost, came twice or from nowhere, or a comparison had to mend something.
pub fn check_equal(
    server: &Server,
    replicas: &mut [Replica],
    written: &BTreeSet<String>,
    acknowledged: &BTreeSet<String>,
) {
    let mut fresh = Replica::create(&server.url(), &server.token(&["tenant"]));
    fresh.sync();
    let count = check_copy(&mut fresh, written, acknowledged);
    let digest = fresh.digest();
    for replica in replicas {
        assert_eq!(replica.quarantine().len(), 0);
        replica.wait_for_number("SELECT count FROM tallies", count);
        assert_eq!(check_copy(replica, written, acknowledged), count);
        eventually("equal digests", LATER, || (replica.digest() == digest).then_some(()));
        let status = replica.status();
        assert_eq!((&status["in_step"], &status["repairs"]), (&json!(true), &json!(0)), "{status}");
    }
    let log = server.log();
    assert!(!log.contains("protocol_violation"), "a device of ours broke the protocol\n{log}");
    assert_eq!(
        server.try_operate(&["scrub", "--tenant", TENANT]).code,
        Some(0),
        "the server's sums match its rows"
    );
}

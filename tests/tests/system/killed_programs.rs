//! Programs that are killed in mid-sync, again and again: nothing acknowledged is lost, nothing is applied twice, and
//! the queue drains with no new write.
//!
//! Each transaction inserts a row of its own and counts one up, so that rows and count must agree everywhere.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use system_tests::deadline::{LATER, eventually, within_deadline};
use system_tests::proxy::{Direction, Proxy};
use system_tests::replica::Replica;
use system_tests::seeds::{Chance, Seed};
use system_tests::server::{Server, ServerOptions};

/// Kills of each program.
const KILLS: u64 = 50;
/// Times that programs are told to stop.
const STOPS: u64 = 20;
/// Transactions that a replica writes between two kills, at most.
const MAX_WRITES: u64 = 8;
/// Longest time between the first bytes of a sync and the kill.
const MAX_LIFE_MS: u64 = 60;
/// Bytes that a wire still passes before it stalls, at most.
const MAX_BYTES_BEFORE_STALL: u64 = 512;
/// Kills that have to find something unanswered, so that the test is about what it says.
const MIN_INTERRUPTIONS: u64 = KILLS / 5;

/// A moment of chance: nothing is waited for, but a kill has to come at some time.
pub fn for_a_moment(chance: &mut Chance) {
    let moment = Duration::from_millis(chance.below(MAX_LIFE_MS));
    within_deadline(moment, || None::<()>);
}

/// Every other kill finds a wire that stalled after some bytes, one way or the other: on a machine of any speed
/// something is then unanswered.
fn stall_at_times(chance: &mut Chance, proxy: &Proxy, kill: u64) {
    if kill.is_multiple_of(2) {
        let direction = if chance.below(2) == 0 { Direction::Up } else { Direction::Down };
        proxy.stall_after(direction, chance.below(MAX_BYTES_BEFORE_STALL));
    }
}

fn flow(proxy: &Proxy) {
    proxy.flow(Direction::Up);
    proxy.flow(Direction::Down);
}

/// One transaction: a row that no other one has, and one more on the tally.
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

pub fn tally(server: &Server) -> String {
    let mut replica = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    let tally = replica.insert("tallies", json!({"name": "all"}));
    replica.sync();
    tally
}

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
        server.try_operate(&["scrub", "--tenant", "acme"]).code,
        Some(0),
        "the server's sums match its rows"
    );
}

#[test]
fn a_server_that_is_killed_in_mid_sync_loses_nothing_and_applies_nothing_twice() {
    let seed = Seed::of("killed server");
    let mut chance = seed.chance();
    let mut server = Server::start(ServerOptions::default());
    let tally = tally(&server);
    let proxies = [Proxy::to(server.address()), Proxy::to(server.address())];
    let mut replicas: Vec<Replica> = proxies
        .iter()
        .map(|proxy| Replica::create(&proxy.url(), &server.token(&["tenant:rw"])))
        .collect();
    replicas.iter_mut().for_each(Replica::sync);
    let mut written = BTreeSet::new();
    let mut interrupted = 0;
    for kill in 1..=KILLS {
        proxies.iter().for_each(|proxy| stall_at_times(&mut chance, proxy, kill));
        for (who, replica) in replicas.iter_mut().enumerate() {
            for n in 0..=chance.below(MAX_WRITES) {
                let label = format!("{kill} {who} {n}");
                replica.call(step(&tally, &label));
                written.insert(label);
            }
        }
        for_a_moment(&mut chance);
        server.kill9();
        interrupted +=
            u64::from(replicas.iter_mut().any(|replica| replica.status()["unanswered"] != 0));
        proxies.iter().for_each(flow);
        let before: Vec<u64> = proxies.iter().map(|proxy| proxy.passed(Direction::Up)).collect();
        server.restart();
        // The next kill comes into the middle of what follows, now and then before it.
        let begun = || {
            proxies.iter().zip(&before).any(|(proxy, before)| proxy.passed(Direction::Up) > *before)
        };
        within_deadline(Duration::from_secs(1), || begun().then_some(()));
    }
    for replica in &mut replicas {
        replica.wait_for_within("synced", LATER);
    }
    assert!(interrupted >= MIN_INTERRUPTIONS, "only {interrupted} kills came in between");
    // What a replica wrote was acknowledged to its app: all of it has to arrive.
    check_equal(&server, &mut replicas, &written, &written);
}

#[test]
fn a_replica_that_is_killed_in_mid_sync_loses_nothing_and_applies_nothing_twice() {
    let seed = Seed::of("killed replica");
    let mut chance = seed.chance();
    let server = Server::start(ServerOptions::default());
    let tally = tally(&server);
    let proxies = [Proxy::to(server.address()), Proxy::to(server.address())];
    let mut replicas: Vec<Replica> = proxies
        .iter()
        .map(|proxy| Replica::create(&proxy.url(), &server.token(&["tenant:rw"])))
        .collect();
    replicas.iter_mut().for_each(Replica::sync);
    let (mut written, mut acknowledged) = (BTreeSet::new(), BTreeSet::new());
    let mut interrupted = 0;
    for kill in 1..=KILLS {
        let (victim, other) = if chance.below(2) == 0 { (0, 1) } else { (1, 0) };
        // The other one's rows come down while the victim's go up.
        let label = format!("{kill} other");
        replicas[other].call(step(&tally, &label));
        acknowledged.insert(label.clone());
        written.insert(label);
        let replica = &mut replicas[victim];
        stall_at_times(&mut chance, &proxies[victim], kill);
        replica.connect();
        // The last commands are killed before anybody can know whether they were done.
        let sent: Vec<(u64, String)> = (0..=chance.below(MAX_WRITES))
            .map(|n| {
                let label = format!("{kill} victim {n}");
                written.insert(label.clone());
                (replica.send(step(&tally, &label)), label)
            })
            .collect();
        let answered = chance.below(sent.len() as u64 + 1);
        for (id, label) in sent.into_iter().take(usize::try_from(answered).unwrap()) {
            replica.answer(id).expect("it is alive").unwrap_or_else(|error| panic!("{error:?}"));
            acknowledged.insert(label);
        }
        for_a_moment(&mut chance);
        replica.kill9();
        flow(&proxies[victim]);
        replica.open();
        interrupted += u64::from(replica.status()["unanswered"] != 0);
        for label in &acknowledged {
            let found = format!("SELECT count(*) FROM items WHERE label = '{label}'");
            if label.contains("victim") && label.starts_with(&format!("{kill} ")) {
                assert_eq!(replica.number(&found), 1, "{label} was durable");
            }
        }
    }
    assert!(interrupted >= MIN_INTERRUPTIONS, "only {interrupted} kills came in between");
    for replica in &mut replicas {
        replica.sync();
    }
    check_equal(&server, &mut replicas, &written, &acknowledged);
}

#[test]
fn programs_that_are_told_to_stop_in_mid_sync_end_well() {
    let seed = Seed::of("stopped programs");
    let mut chance = seed.chance();
    let mut server = Server::start(ServerOptions::default());
    let tally = tally(&server);
    let mut replica = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    replica.sync();
    let mut written = BTreeSet::new();
    for stop in 1..=STOPS {
        replica.connect();
        for n in 0..MAX_WRITES {
            let label = format!("{stop} {n}");
            replica.send(step(&tally, &label));
            written.insert(label);
        }
        for_a_moment(&mut chance);
        // Both look at how the program ends: whatever its threads were doing, it ends by itself and without a signal.
        server.terminate();
        replica.close();
        server.restart();
        replica.open();
    }
    replica.sync();
    check_equal(&server, &mut [replica], &written, &written);
}

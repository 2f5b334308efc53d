//! Programs that are killed in mid-sync, again and again: nothing acknowledged is lost, nothing is applied twice, and
//! the queue drains with no new write.
//!
//! Each transaction inserts a row of its own and counts one up, so that rows and count must agree everywhere.

use std::collections::BTreeSet;
use std::time::Duration;

use system_tests::deadline::{LATER, within_deadline};
use system_tests::ledger::{check_equal, flow, for_a_moment, stall_at_times, step, tally};
use system_tests::proxy::{Direction, Proxy};
use system_tests::replica::Replica;
use system_tests::seeds::Seed;
use system_tests::server::{Server, ServerOptions};

/// Kills of each program.
const KILLS: u64 = 50;
/// Times that programs are told to stop.
const STOPS: u64 = 20;
/// Transactions that a replica writes between two kills, at most.
const MAX_WRITES: u64 = 8;
/// Kills that have to find something unanswered, so that the test is about what it says.
const MIN_INTERRUPTIONS: u64 = KILLS / 5;

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

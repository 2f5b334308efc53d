//! Several servers on one Postgres are one server: over a bus within a moment, without one a little later.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::json;
use system_tests::deadline::{LATER, eventually};
use system_tests::ledger::{check_equal, for_a_moment, step, tally};
use system_tests::replica::Replica;
use system_tests::seeds::Seed;
use system_tests::server::{Server, ServerOptions, TENANT};
use test_services::nats::Nats;
use test_services::postgres::{Database, Postgres};

/// Kills of each kind of program.
const KILLS: u64 = 30;
/// Transactions that a replica writes between two kills, at most.
const MAX_WRITES: u64 = 4;
/// An interval so long that nothing in a test happens because of it.
const NEVER_MS: u64 = 3_600_000;

/// Two nodes on one database, and their bus.
struct Platform {
    nodes: [Server; 2],
    bus: Nats,
}

impl Platform {
    fn start(database: Database<'static>, more: impl Fn(ServerOptions) -> ServerOptions) -> Self {
        let bus = Nats::start().unwrap_or_else(|error| panic!("{error}"));
        let database = Arc::new(database);
        let node = || {
            let options = ServerOptions::default().set("bus.url", format!("{:?}", bus.url()));
            Server::start_node(&database, more(options))
        };
        let nodes = [node(), node()];
        nodes[0].create_tenant(TENANT);
        let platform = Self { nodes, bus };
        platform.wait_for_bus("up");
        platform
    }

    /// Both nodes say that their bus stands like this.
    fn wait_for_bus(&self, standing: &str) {
        for node in &self.nodes {
            eventually("the bus", LATER, || {
                let (status, body) = node.get("/readyz")?;
                assert_eq!(status, 200, "a node without its bus serves all the same: {body}");
                body.contains(&format!("\"bus\":\"{standing}\"")).then_some(())
            });
        }
    }

    fn replica(&self, node: usize) -> Replica {
        let token = self.nodes[0].token(&["tenant:rw"]);
        let mut replica = Replica::create(&self.nodes[node].url(), &token);
        replica.sync();
        replica
    }
}

/// A Postgres that is made to crash. It stays until the process ends, as the databases on it do.
struct CrashingPostgres(&'static Postgres);

impl CrashingPostgres {
    fn start() -> Self {
        let postgres = Postgres::start().unwrap_or_else(|error| panic!("{error}"));
        Self(Box::leak(Box::new(postgres)))
    }
}

impl Drop for CrashingPostgres {
    fn drop(&mut self) {
        // Where it was not running any more, there is nothing to end.
        let _ = self.0.stop();
    }
}

fn shared_database() -> Database<'static> {
    Postgres::shared().fresh_database()
}

#[test]
fn a_commit_on_one_node_reaches_devices_of_the_other_over_the_bus() {
    // Nobody looks by himself: what arrives has come over the bus.
    let platform = Platform::start(shared_database(), |options| {
        options.set("bus.check_interval_ms", NEVER_MS).set("bus.poll_interval_ms", NEVER_MS)
    });
    let (mut left, mut right) = (platform.replica(0), platform.replica(1));
    for (n, (writer, reader)) in [(0, 1), (1, 0), (0, 1)].into_iter().enumerate() {
        let replicas = [&mut left, &mut right];
        let label = format!("{n}");
        replicas[writer].insert("items", json!({"label": label, "amount": 1}));
        let count = i64::try_from(n).unwrap() + 1;
        replicas[reader].wait_for_number("SELECT count(*) FROM items", count);
    }
    let heard = platform.nodes[1].metric("farshore_bus_notices_total{direction=\"in\"}");
    assert!(heard >= 2, "two commits of the other node, but {heard} notices");
    eventually("equal digests", LATER, || (left.digest() == right.digest()).then_some(()));
}

#[test]
fn rights_that_change_on_one_node_hold_on_the_other_at_once() {
    let platform = Platform::start(shared_database(), |options| {
        options.set("sync.reauthorise_interval_ms", NEVER_MS)
    });
    let mut replica = platform.replica(1);
    platform.nodes[0].suspend(replica.device());
    replica.wait_for_status("suspended", |status| status["state"] != "connected");
    platform.nodes[0].resume(replica.device());
    replica.insert("items", json!({"label": "back", "amount": 1}));
    replica.wait_for_within("synced", LATER);
}

#[test]
fn without_their_bus_nodes_look_for_themselves_and_say_so() {
    let mut platform =
        Platform::start(shared_database(), |options| options.set("bus.poll_interval_ms", 50));
    let (mut left, mut right) = (platform.replica(0), platform.replica(1));
    platform.bus.kill();
    platform.wait_for_bus("polling");
    assert_eq!(platform.nodes[0].metric("farshore_bus_up"), 0);
    left.insert("items", json!({"label": "while it is down", "amount": 1}));
    right.wait_for_number("SELECT count(*) FROM items", 1);
    platform.bus.restart().unwrap();
    platform.wait_for_bus("up");
    assert_eq!(platform.nodes[0].metric("farshore_bus_up"), 1);
    right.insert("items", json!({"label": "when it is back", "amount": 1}));
    left.wait_for_number("SELECT count(*) FROM items", 2);
}

#[test]
fn nodes_database_and_bus_that_are_killed_lose_nothing_and_apply_nothing_twice() {
    let seed = Seed::of("killed nodes");
    let mut chance = seed.chance();
    // Not the one of the other tests, which would not survive it.
    let crashing = CrashingPostgres::start();
    let mut platform = Platform::start(crashing.0.fresh_database(), |options| {
        options.set("bus.poll_interval_ms", 200).set("bus.check_interval_ms", 1_000)
    });
    let tally = tally(&platform.nodes[0]);
    let mut replicas = [platform.replica(0), platform.replica(1)];
    let mut written = BTreeSet::new();
    for kill in 1..=3 * KILLS {
        for (who, replica) in replicas.iter_mut().enumerate() {
            for n in 0..=chance.below(MAX_WRITES) {
                let label = format!("{kill} {who} {n}");
                replica.call(step(&tally, &label));
                written.insert(label);
            }
        }
        for_a_moment(&mut chance);
        match kill % 3 {
            0 => {
                let node = &mut platform.nodes[usize::try_from(chance.below(2)).unwrap()];
                node.kill9();
                node.restart();
            }
            1 => crashing.0.crash().unwrap(),
            _ => {
                platform.bus.kill();
                for_a_moment(&mut chance);
                platform.bus.restart().unwrap();
            }
        }
    }
    for replica in &mut replicas {
        replica.wait_for_within("synced", LATER);
    }
    check_equal(&platform.nodes[0], &mut replicas, &written, &written);
}

#[test]
fn a_tenant_moves_while_devices_write_through_two_nodes() {
    let platform = Platform::start(shared_database(), |options| {
        options.set("bus.poll_interval_ms", 200).set("bus.check_interval_ms", 1_000)
    });
    let [near, far] = &platform.nodes;
    let east = shared_database();
    let url = near.home().join("east.url");
    fs::write(&url, east.url()).unwrap();
    near.operate(&["cluster", "add", "east", "--url-file", url.to_str().unwrap()]);
    let tally = tally(near);
    let mut replicas = [platform.replica(0), platform.replica(1)];
    let mut written = BTreeSet::new();
    let mut write = |replicas: &mut [Replica; 2]| {
        for (who, replica) in replicas.iter_mut().enumerate() {
            let label = format!("{who} {}", written.len());
            replica.call(step(&tally, &label));
            written.insert(label);
        }
    };
    for _ in 0..200 {
        write(&mut replicas);
    }
    let mut moves = Vec::new();
    // The node that moves it, and the one that hears of it over the bus.
    for (node, to) in [(near, "east"), (far, "home"), (far, "east"), (near, "home")] {
        let mut command = node.command("tenant");
        command.args(["move", TENANT, "--to", to, "--config"]).arg(node.config_path());
        let mut moving = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut meanwhile = 0;
        while moving.try_wait().unwrap().is_none() {
            write(&mut replicas);
            meanwhile += 1;
        }
        assert!(meanwhile > 0, "nothing was written while the tenant was moved");
        let moved = moving.wait_with_output().unwrap();
        assert!(moved.status.success());
        moves.push(String::from_utf8(moved.stdout).unwrap());
        for _ in 0..5 {
            write(&mut replicas);
        }
        for replica in &mut replicas {
            replica.wait_for_within("synced", LATER);
        }
    }
    assert!(moves.iter().all(|moved| moved.contains("no writes for")), "{moves:?}");
    assert_eq!(near.operate(&["tenant", "where", TENANT]).trim(), "home");
    check_equal(near, &mut replicas, &written, &written);
    let left = east.run("SELECT count(*) FROM farshore.tenants");
    assert_eq!(left.trim(), "0", "what was left behind is gone");
}

//! A primary that is lost while its standby lags: what the standby lacks was acknowledged, and comes back from the
//! devices in a new epoch, whether anybody writes or not.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;
use system_tests::deadline::{LATER, eventually};
use system_tests::proxy::Proxy;
use system_tests::replica::Replica;
use system_tests::server::{Server, ServerOptions, TENANT};
use test_services::nats::Nats;
use test_services::postgres::{Database, Postgres};

/// What the tally says, also where it has not come yet.
const COUNTED: &str = "SELECT coalesce(sum(count), 0) FROM tallies";
/// How often a node looks whether its tenants began anew.
const LOOK_INTERVAL_MS: u64 = 500;

/// A primary with a standby, and the address under which servers find whichever is in charge. Servers of tests stay
/// until the process ends, as the databases on them do.
struct Cluster {
    primary: &'static Postgres,
    standby: Postgres,
    database: Arc<Database<'static>>,
    address: Proxy,
    lost: Cell<bool>,
}

impl Cluster {
    fn start() -> Self {
        let primary = Postgres::start().unwrap_or_else(|error| panic!("{error}"));
        let primary: &'static Postgres = Box::leak(Box::new(primary));
        let standby = primary.standby().unwrap_or_else(|error| panic!("{error}"));
        let database = Arc::new(primary.fresh_database());
        let address = Proxy::to(at(primary));
        Self { primary, standby, database, address, lost: Cell::new(false) }
    }

    fn node(&self, more: impl Fn(ServerOptions) -> ServerOptions) -> Server {
        let url = self.database.url_at(self.address.address().port());
        let options = ServerOptions::default()
            .set("postgres.url", format!("{url:?}"))
            .set("sync.reauthorise_interval_ms", LOOK_INTERVAL_MS);
        Server::start_node(&self.database, more(options))
    }

    /// Cuts the standby off once it has everything that there is now.
    fn begin_to_lag(&self) {
        let there = self.primary.position();
        eventually("the standby follows", LATER, || {
            (self.standby.position() >= there).then_some(())
        });
        self.standby.stop_following();
    }

    /// Loses the primary and puts the standby in its place.
    fn fail_over(&self) {
        self.lose_primary();
        self.promote();
    }

    fn lose_primary(&self) {
        self.primary.stop().unwrap();
        self.lost.set(true);
    }

    fn promote(&self) {
        self.standby.promote();
        self.address.lead_to(at(&self.standby));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It ends with the process anyway, which would be late.
        if !self.lost.get() {
            let _ = self.primary.stop();
        }
    }
}

fn at(server: &Postgres) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], server.port()))
}

/// How many rows of the tenant the standby has.
fn rows_of_standby(cluster: &Cluster) -> String {
    let run = |statement: &str| cluster.standby.run_in(cluster.database.name(), statement);
    let key = run(&format!("SELECT key FROM farshore.tenants WHERE id = '{TENANT}'"));
    run(&format!("SELECT count(*) FROM tenant_{}.changes", key.trim())).trim().to_owned()
}

fn check_that_nothing_is_lost(cluster: &Cluster, nodes: &[Server]) {
    nodes[0].create_tenant(TENANT);
    let node_of = |n: usize| &nodes[n % nodes.len()];
    let replica = |n: usize, scopes: &[&str]| {
        let mut replica = Replica::create(&node_of(n).url(), &nodes[0].token(scopes));
        replica.sync();
        replica
    };
    let (mut writer, mut reader) = (replica(0, &["tenant:rw"]), replica(1, &["tenant:rw"]));
    let edited = writer.insert("items", json!({"label": "before", "amount": 1}));
    let tally = writer.insert("tallies", json!({"name": "counted"}));
    writer.transact(json!([["inc", "tallies", tally, "count", 10]]));
    writer.wait_for("synced");
    reader.wait_for_number(COUNTED, 10);
    let epoch = nodes[0].digest().epoch;

    cluster.begin_to_lag();
    writer.transact(json!([["put", "items", {"id": edited, "label": "after"}]]));
    writer.insert("items", json!({"label": "lost by the database", "amount": 2}));
    writer.transact(json!([["inc", "tallies", tally, "count", 5]]));
    writer.wait_for("synced");
    reader.wait_for_number(COUNTED, 15);
    reader.wait_for_number("SELECT count(*) FROM items", 2);
    assert_eq!(
        rows_of_standby(cluster),
        "2",
        "an item and a tally: the rest was acknowledged and is not there"
    );
    cluster.fail_over();

    // Nobody writes: the nodes find it by themselves.
    eventually("a new epoch", LATER, || {
        let digest = nodes[0].try_operate(&["digest", "--tenant", TENANT, "--json"]);
        (digest.code == Some(0) && nodes[0].digest().epoch != epoch).then_some(())
    });
    let mut fresh = replica(1, &["tenant"]);
    eventually("everything that was acknowledged", LATER, || {
        let back = "SELECT count(*) FROM items WHERE label IN ('after', 'lost by the database')";
        (fresh.number(back) == 2 && fresh.number(COUNTED) == 15).then_some(())
    });
    assert_eq!(fresh.number("SELECT count(*) FROM items"), 2, "and nothing of it twice");

    reader.insert("items", json!({"label": "later", "amount": 3}));
    for replica in [&mut writer, &mut reader] {
        replica.wait_for_within("synced", LATER);
        assert_eq!(replica.quarantine().len(), 0);
        replica.wait_for_number("SELECT count(*) FROM items", 3);
    }
    eventually("equal digests", LATER, || {
        let digest = fresh.digest();
        (writer.digest() == digest && reader.digest() == digest).then_some(())
    });
    let logs: String = nodes.iter().map(Server::log).collect();
    let said = logs.lines().filter(|line| line.contains("goes on from another history")).count();
    assert_eq!(said, 1, "one node begins the epoch, and says so");
    assert_eq!(nodes[0].try_operate(&["scrub", "--tenant", TENANT]).code, Some(0));
}

#[test]
fn what_a_promoted_standby_lacks_comes_back_from_the_devices() {
    let cluster = Cluster::start();
    let node = cluster.node(|options| options);
    check_that_nothing_is_lost(&cluster, &[node]);
}

#[test]
fn all_nodes_notice_that_a_standby_was_promoted() {
    let cluster = Cluster::start();
    let bus = Nats::start().unwrap_or_else(|error| panic!("{error}"));
    let node = || {
        cluster.node(|options| {
            options
                .set("bus.url", format!("{:?}", bus.url()))
                .set("bus.check_interval_ms", LOOK_INTERVAL_MS)
        })
    };
    let nodes = [node(), node()];
    check_that_nothing_is_lost(&cluster, &nodes);
}

#[test]
fn a_writer_that_was_away_during_the_failover_is_not_needed() {
    let cluster = Cluster::start();
    let node = cluster.node(|options| options);
    node.create_tenant(TENANT);
    let replica = || {
        let mut replica = Replica::create(&node.url(), &node.token(&["tenant:rw"]));
        replica.sync();
        replica
    };
    let (mut writer, mut reader) = (replica(), replica());
    cluster.begin_to_lag();
    writer.insert("items", json!({"label": "lost by the database", "amount": 2}));
    writer.wait_for("synced");
    reader.wait_for_number("SELECT count(*) FROM items", 1);
    writer.kill9();
    cluster.lose_primary();
    // What stands on a standby may be older than what devices were told: nobody reads it.
    cluster.address.lead_to(at(&cluster.standby));
    let refused = node.try_operate(&["digest", "--tenant", TENANT]);
    assert_ne!(refused.code, Some(0), "{}", refused.stdout);
    cluster.promote();
    let mut fresh = replica_of(&node);
    fresh.wait_for_number("SELECT count(*) FROM items", 1);
    writer.open();
    writer.sync();
    writer.insert("items", json!({"label": "later", "amount": 3}));
    fresh.wait_for_number("SELECT count(*) FROM items", 2);
}

/// A new device, as soon as the node serves again.
fn replica_of(node: &Server) -> Replica {
    let token = eventually("the node serves", LATER, || {
        let token = node.try_operate(&["token", "--tenant", TENANT, "--scope", "tenant", "--json"]);
        (token.code == Some(0)).then(|| serde_json::from_str(&token.stdout).unwrap())
    });
    let mut fresh = Replica::create(&node.url(), &token);
    fresh.sync();
    fresh
}

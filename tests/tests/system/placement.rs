//! Tenants in several databases: created in a cluster, moved under connected devices, and moved by a server that is
//! killed in the middle.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::{Value, json};
use system_tests::deadline::{LATER, eventually};
use system_tests::ledger::for_a_moment;
use system_tests::replica::Replica;
use system_tests::seeds::Seed;
use system_tests::server::{Server, ServerOptions, TENANT};
use test_services::postgres::{Database, Postgres};

/// A server that is killed while it moves a tenant, so often.
const KILLS: u32 = 6;

fn fresh_database() -> Arc<Database<'static>> {
    Arc::new(Postgres::shared().fresh_database())
}

fn add_cluster(server: &Server, name: &str, database: &Database<'_>) -> String {
    let file = server.home().join(format!("{name}.url"));
    fs::write(&file, format!("{}\n", database.url())).unwrap();
    server.operate(&["cluster", "add", name, "--url-file", file.to_str().unwrap()])
}

fn place(server: &Server) -> Value {
    serde_json::from_str(&server.operate(&["tenant", "where", TENANT, "--json"])).unwrap()
}

fn move_to(server: &Server, to: &str) -> String {
    server.operate(&["tenant", "move", TENANT, "--to", to])
}

fn refused(server: &Server, arguments: &[&str], what: &str) {
    let finished = server.try_operate(arguments);
    assert_eq!(finished.code, Some(1), "{}", finished.stdout);
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    assert!(finished.stderr.contains(what), "{}", finished.stderr);
}

#[test]
fn a_tenant_moves_under_connected_devices() {
    let mut server = Server::start(ServerOptions::default());
    let (east, west) = (fresh_database(), fresh_database());
    let added = add_cluster(&server, "east", &east);
    assert!(added.starts_with("added east (postgres://"), "{added}");
    add_cluster(&server, "west", &west);
    let mut first = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    let mut second = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    for amount in 0..300 {
        first.insert("items", json!({"label": "before", "amount": amount}));
    }
    first.sync();
    second.sync();
    let epoch = server.digest().epoch;

    let mut rows = 300;
    for to in ["east", "west", "home", "west"] {
        let from = place(&server)["at"].as_str().unwrap().to_owned();
        let moved = move_to(&server, to);
        assert!(
            moved.starts_with(&format!("moved {TENANT} from {from} to {to}: {rows} rows")),
            "{moved}"
        );
        assert_eq!(place(&server)["at"], to);
        first.insert("items", json!({"label": to, "amount": 1}));
        rows += 1;
        first.wait_for("synced");
        second.wait_for_number("SELECT count(*) FROM items", rows);
        assert_eq!(server.digest().epoch, epoch, "the same history goes on");
        server.operate(&["scrub", "--tenant", TENANT]);
    }
    assert_eq!(second.status()["repairs"], 0, "nobody is repaired");
    assert_eq!(first.digest(), second.digest());
    assert!(server.metric("farshore_pool_connections{place=\"west\",state=\"limit\"}") == 32);

    // What was left behind is gone, and the registry outlives the process.
    let left = east.run("SELECT count(*) FROM farshore.tenants; SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tenant\\_%'");
    assert_eq!(left.split_whitespace().collect::<Vec<_>>(), ["0", "0"]);
    server.kill9();
    server.restart();
    let token = server.token(&["tenant"]);
    let heir = Server::start_node(&west, ServerOptions::default());
    let mut third = Replica::create(&heir.url(), &token);
    third.sync();
    assert_eq!(third.number("SELECT count(*) FROM items"), rows, "the cluster can be a home");
    drop(heir);
    second.insert("items", json!({"label": "after a restart", "amount": 1}));
    second.wait_for("synced");
    first.wait_for_number("SELECT count(*) FROM items", rows + 1);
    assert_eq!(place(&server)["at"], "west");
    server.operate(&["cluster", "remove", "east"]);
    refused(&server, &["cluster", "remove", "west"], "1 tenants are in the cluster west");
    server.operate(&["tenant", "erase", TENANT, "--confirm", TENANT]);
    server.operate(&["cluster", "remove", "west"]);
}

#[test]
fn a_tenant_is_created_in_a_cluster_backed_up_and_restored_there() {
    let server = Server::start_empty(ServerOptions::default());
    let database = fresh_database();
    add_cluster(&server, "east", &database);
    server.operate(&["tenant", "create", TENANT, "--algorithm", "EdDSA", "--cluster", "east"]);
    let schema = server.home().join("fleet.json");
    server.operate(&["schema", "apply", "--tenant", TENANT, schema.to_str().unwrap()]);
    assert_eq!(server.operate(&["tenant", "where", TENANT]).trim(), "east");
    assert_eq!(server.operate(&["tenant", "list"]).trim(), TENANT);
    let mut replica = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    replica.insert("items", json!({"label": "kept", "amount": 1}));
    replica.sync();
    let file = server.home().join("archive");
    let file = file.to_str().unwrap();
    server.operate(&["tenant", "backup", TENANT, file]);
    server.operate(&["tenant", "restore", TENANT, file, "--replace", TENANT]);
    assert_eq!(server.operate(&["tenant", "where", TENANT]).trim(), "east");
    replica.insert("items", json!({"label": "after", "amount": 1}));
    replica.wait_for("synced");
    refused(&server, &["tenant", "create", TENANT], "tenant_exists");
}

#[test]
fn what_cannot_be_moved_stays_where_it_is() {
    let server = Server::start(ServerOptions::default());
    let database = fresh_database();
    add_cluster(&server, "east", &database);
    let mut replica = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    replica.insert("items", json!({"label": "kept", "amount": 1}));
    replica.sync();
    let before = server.digest();
    refused(&server, &["tenant", "move", TENANT, "--to", "nowhere"], "cluster_not_found");
    refused(&server, &["tenant", "move", TENANT, "--to", "No Where"], "out_of_range");
    refused(&server, &["tenant", "move", TENANT, "--to", "home"], "is in home already");
    refused(&server, &["tenant", "move", "nobody", "--to", "east"], "tenant_not_found");
    refused(&server, &["tenant", "create", "other", "--cluster", "nowhere"], "cluster_not_found");

    // Another platform has a tenant of that name there, under the same master key.
    let other = Server::start_node(&database, ServerOptions::default());
    other.create_tenant(TENANT);
    refused(&server, &["tenant", "move", TENANT, "--to", "east"], "another tenant called acme");
    other.operate(&["digest", "--tenant", TENANT]);

    // A cluster that is not there: one line, without the password.
    let closed = server.home().join("closed.url");
    fs::write(&closed, "postgres://farshore:s3cret@127.0.0.1:1/farshore").unwrap();
    let add = ["cluster", "add", "closed", "--url-file", closed.to_str().unwrap()];
    refused(&server, &add, "cluster_refused");
    fs::write(&closed, "mysql://farshore:s3cret@127.0.0.1:1/farshore").unwrap();
    refused(&server, &add, "does not begin with postgres://");
    assert!(!server.try_operate(&add).stderr.contains("s3cret"));
    assert!(!server.log().contains("s3cret"));
    assert!(!secret_is_in(server.home(), database.url()), "the URL rests sealed");

    assert_eq!(server.digest(), before);
    assert_eq!(
        place(&server),
        json!({"tenant": TENANT, "at": "home", "moving_to": null, "phase": null, "records": 0})
    );
    replica.insert("items", json!({"label": "after", "amount": 1}));
    replica.wait_for("synced");
}

/// Whether the password of a URL stands in a file of the data directory.
fn secret_is_in(home: &Path, url: &str) -> bool {
    let password = url.split(':').nth(2).unwrap().split('@').next().unwrap().as_bytes().to_owned();
    let folder = fs::read_dir(home.join("data/clusters"));
    folder.into_iter().flatten().any(|entry| {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(password.len()).any(|window| window == password)
    })
}

#[test]
fn a_move_goes_on_after_its_server_was_killed() {
    let (east, west) = (fresh_database(), fresh_database());
    let seed = Seed::of("a_move_goes_on_after_its_server_was_killed");
    let mut chance = seed.chance();
    let mut server = Server::start(ServerOptions::default());
    add_cluster(&server, "east", &east);
    add_cluster(&server, "west", &west);
    let mut replica = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    let mut rows = 0;
    for _ in 0..200 {
        replica.insert("items", json!({"label": "before", "amount": rows}));
        rows += 1;
    }
    replica.sync();
    for round in 0..KILLS {
        let from = place(&server)["at"].as_str().unwrap().to_owned();
        let to = ["home", "east", "west"].into_iter().filter(|to| *to != from);
        let to = to.collect::<Vec<_>>()[usize::try_from(chance.below(2)).unwrap()];
        let mut command = server.command("tenant");
        command.args(["move", TENANT, "--to", to, "--config"]).arg(server.config_path());
        let mut moving = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        replica.insert("items", json!({"label": "meanwhile", "amount": rows}));
        rows += 1;
        for_a_moment(&mut chance);
        server.kill9();
        moving.wait().unwrap();
        server.restart();
        // It goes on by itself, or it had not begun.
        let at = eventually("the move to end", LATER, || {
            let place = place(&server);
            place["moving_to"].is_null().then(|| place["at"].as_str().unwrap().to_owned())
        });
        assert!(at == to || at == from, "round {round}: {at} is neither {from} nor {to}");
        replica.insert("items", json!({"label": "after", "amount": rows}));
        rows += 1;
        replica.wait_for("synced");
        let mut fresh = Replica::create(&server.url(), &server.token(&["tenant"]));
        fresh.sync();
        fresh.wait_for_number("SELECT count(*) FROM items", rows);
        assert_eq!(fresh.digest(), replica.digest(), "round {round}");
        server.operate(&["scrub", "--tenant", TENANT]);
    }
}

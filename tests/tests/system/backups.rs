//! A tenant in one file, and back: what the file lacks comes from the devices, and a bad file changes nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use system_tests::deadline::{LATER, eventually};
use system_tests::replica::Replica;
use system_tests::server::{Server, ServerOptions, TENANT};
use test_services::postgres::Postgres;

fn refused(server: &Server, arguments: &[&str], code: &str) {
    let finished = server.try_operate(arguments);
    assert_eq!(finished.code, Some(1), "{}", finished.stdout);
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    assert!(finished.stderr.contains(code), "{}", finished.stderr);
}

fn path(of: &Path) -> &str {
    of.to_str().unwrap()
}

#[test]
fn a_restored_tenant_gets_back_from_devices_what_its_archive_lacks() {
    let server = Server::start(ServerOptions::default());
    let mut first = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    let mut second = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    let edited = first.insert("items", json!({"label": "before the backup", "amount": 1}));
    let counted = first.insert("tallies", json!({"name": "counted"}));
    first.transact(json!([["inc", "tallies", counted, "count", 10]]));
    first.sync();
    second.sync();
    let file = server.home().join("acme.archive");
    let file = path(&file);
    let wrote = server.operate(&["tenant", "backup", TENANT, file]);
    assert!(wrote.starts_with(&format!("wrote {file} (")), "{wrote}");
    refused(&server, &["tenant", "backup", TENANT, file], "exists");
    let archive = fs::read(file).unwrap();
    let readable = b"before the backup";
    assert!(!archive.windows(readable.len()).any(|window| window == readable), "it is encrypted");

    // The devices stay connected while their tenant is restored under them.
    first.transact(json!([["put", "items", {"id": edited, "label": "after the backup"}]]));
    first.insert("items", json!({"label": "lost by the server", "amount": 2}));
    second.transact(json!([["inc", "tallies", counted, "count", 7]]));
    for replica in [&mut first, &mut second] {
        replica.wait_for("synced");
        replica.wait_for_number("SELECT count FROM tallies", 17);
        replica.wait_for_number("SELECT count(*) FROM items", 2);
    }
    let old = server.digest();
    let checked = server.operate(&["tenant", "restore", TENANT, file, "--check"]);
    assert!(checked.contains("is good: 2 rows"), "{checked}");
    refused(&server, &["tenant", "restore", TENANT, file], "tenant_exists");
    refused(&server, &["tenant", "restore", TENANT, file, "--replace", "other"], "name it again");
    assert_eq!(server.digest(), old, "nothing has changed so far");
    let restored = server.operate(&["tenant", "restore", TENANT, file, "--replace", TENANT]);
    assert!(restored.starts_with(&format!("restored {TENANT}: 2 rows")), "{restored}");
    assert_ne!(server.digest().epoch, old.epoch);

    let mut fresh = Replica::create(&server.url(), &server.token(&["tenant"]));
    fresh.sync();
    fresh.wait_for_number(
        "SELECT count(*) FROM items WHERE label IN ('after the backup', 'lost by the server')",
        2,
    );
    fresh.wait_for_number("SELECT count FROM tallies", 17);
    first.insert("items", json!({"label": "after the restore", "amount": 3}));
    first.wait_for("synced");
    fresh.wait_for_number("SELECT count(*) FROM items", 3);
    eventually("equal digests", LATER, || {
        let digest = fresh.digest();
        (first.digest() == digest && second.digest() == digest).then_some(())
    });
    server.operate(&["scrub", "--tenant", TENANT]);
}

#[test]
fn a_tenant_is_restored_on_another_server_and_its_tokens_stay_good() {
    let server = Server::start(ServerOptions::default());
    let token = server.token(&["tenant:rw"]);
    let mut replica = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    replica.insert("items", json!({"label": "kept", "amount": 1}));
    replica.sync();
    let file = server.home().join("acme.archive");
    server.operate(&["tenant", "backup", TENANT, path(&file)]);

    // The same master key, another machine.
    let other = Server::start_empty(ServerOptions::default());
    let restored = other.operate(&["tenant", "restore", TENANT, path(&file)]);
    assert!(restored.starts_with(&format!("restored {TENANT}: 1 rows")), "{restored}");
    let mut moved = Replica::create(&other.url(), &token);
    moved.sync();
    assert_eq!(moved.number("SELECT count(*) FROM items WHERE label = 'kept'"), 1);
    moved.insert("items", json!({"label": "new", "amount": 2}));
    moved.wait_for("synced");
}

#[test]
fn a_bad_archive_changes_nothing() {
    let server = Server::start(ServerOptions::default());
    let mut replica = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    for amount in 0..50 {
        replica.insert("items", json!({"label": "kept", "amount": amount}));
    }
    replica.sync();
    let home = server.home();
    let (good, bad) = (home.join("good"), home.join("bad"));
    server.operate(&["tenant", "backup", TENANT, path(&good)]);
    let archive = fs::read(&good).unwrap();
    let before = server.digest();
    let try_restoring = |bytes: &[u8], code: &str| {
        fs::write(&bad, bytes).unwrap();
        refused(&server, &["tenant", "restore", TENANT, path(&bad), "--replace", TENANT], code);
        assert_eq!(server.digest(), before);
    };
    try_restoring(b"no archive at all", "this is no archive of a tenant (archive_refused)");
    try_restoring(b"", "cut off");
    try_restoring(&archive[..archive.len() - 1], "cut off");
    let mut altered = archive.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    try_restoring(&altered, "damaged");
    refused(&server, &["tenant", "restore", TENANT, "/nowhere", "--replace", TENANT], "/nowhere");

    server.create_tenant("other");
    let others = ["tenant", "restore", "other", path(&good), "--replace", "other"];
    refused(&server, &others, "the archive is one of acme, not of other");
    server.operate(&["tenant", "erase", "other", "--confirm", "other"]);
    let never = home.join("never-written");
    refused(&server, &["tenant", "backup", "other", path(&never)], "tenant_erased");
    refused(&server, &["tenant", "backup", "nobody", path(&never)], "tenant_not_found");
    assert!(!never.exists());

    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("another-key");
    fs::write(&key, "7b".repeat(32)).unwrap();
    let key = format!("{:?}", path(&key));
    let foreign = Server::start_empty(ServerOptions::default().set("store.master_key_file", key));
    let restore = ["tenant", "restore", TENANT, path(&good)];
    refused(&foreign, &restore, "made under another master key");
    // The device goes on as if nothing had been tried.
    replica.insert("items", json!({"label": "after", "amount": 51}));
    replica.wait_for("synced");
}

/// What `pg_dump` made of a tenant's schemas can be put back; then the tenant begins a new epoch by a command.
#[test]
fn a_tenant_goes_through_pg_dump() {
    let database = Arc::new(Postgres::shared().fresh_database());
    let server = Server::start_node(&database, ServerOptions::default());
    server.create_tenant(TENANT);
    let mut replica = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    replica.insert("items", json!({"label": "dumped", "amount": 1}));
    replica.sync();
    let old = server.digest();
    let key = database.run(&format!("SELECT key FROM farshore.tenants WHERE id = '{TENANT}'"));
    let schemas = ["tenant", "rows"].map(|schema| format!("{schema}_{}", key.trim()));
    let dump = database.dump(&schemas);
    replica.insert("items", json!({"label": "lost", "amount": 2}));
    replica.wait_for("synced");
    replica.disconnect();

    let drop = schemas.map(|schema| format!("DROP SCHEMA \"{schema}\" CASCADE;"));
    database.run(&drop.concat());
    database.run(&dump);
    let begun = server.operate(&["tenant", "new-epoch", TENANT]);
    assert!(begun.starts_with(&format!("{TENANT} is in epoch ")), "{begun}");
    assert_ne!(server.digest().epoch, old.epoch);
    server.operate(&["scrub", "--tenant", TENANT]);
    replica.sync();
    let mut fresh = Replica::create(&server.url(), &server.token(&["tenant"]));
    fresh.sync();
    fresh.wait_for_number("SELECT count(*) FROM items WHERE label IN ('dumped', 'lost')", 2);
}

//! Replicas that are wrong: cloned, ahead of the server's schema or clock, damaged, or without their key. Each gets
//! an error of its own, and nothing is deleted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farshore_client::environment::{Environment, OsEnvironment};
use farshore_client::vault::MemoryVault;
use farshore_client::{Client, Goal, TokenSource};
use farshore_sync_core::value::Value;
use serde_json::json;
use system_tests::backstage::copy_folder;
use system_tests::deadline::LATER;
use system_tests::fleet::SCHEMA;
use system_tests::replica::Replica;
use system_tests::server::{Server, ServerOptions, TENANT};

/// Ten years, in milliseconds.
const TEN_YEARS_MS: u64 = 10 * 365 * 86_400_000;

#[test]
fn a_cloned_replica_is_told_from_its_original() {
    let server = Server::start(ServerOptions::default());
    let mut original = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    original.insert("items", json!({"label": "before the copy", "amount": 1}));
    original.sync();
    original.close();
    let copies = tempfile::tempdir().unwrap();
    let dir = copies.path().join("clone");
    copy_folder(original.dir(), &dir);
    private(&dir);
    let mut clone = Replica::at(dir, original.device());

    original.open();
    original.insert("items", json!({"label": "by the original", "amount": 2}));
    original.sync();
    original.disconnect();
    clone.open();
    clone.insert("items", json!({"label": "by the clone", "amount": 3}));
    clone.connect();
    let status =
        clone.wait_for_status("the fork", |status| status["cause"]["code"] == "replica_forked");
    assert_eq!(status["cause"]["final"], true, "{status}");
    assert_eq!(
        clone.number("SELECT count(*) FROM items WHERE label = 'by the clone'"),
        1,
        "nothing is deleted"
    );

    let mut witness = Replica::create(&server.url(), &server.token(&["tenant"]));
    witness.sync();
    let labels = "SELECT label FROM items ORDER BY amount";
    assert_eq!(witness.column(labels), ["before the copy", "by the original"]);
}

/// Copies have the permissions that new files get; a vault wants to be its owner's alone.
fn private(dir: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            private(&path);
        } else {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

#[test]
fn an_app_with_a_newer_schema_waits_for_its_server() {
    let server = Server::start(ServerOptions::default());
    let newer = SCHEMA.replace("\"version\": 1", "\"version\": 2").replace(
        "{\"id\": 4, \"name\": \"tags\", \"type\": \"set\"}",
        "{\"id\": 4, \"name\": \"tags\", \"type\": \"set\"}, {\"id\": 5, \"name\": \"colour\", \"type\": \"text\"}",
    );
    let mut replica = Replica::init(&server.url(), &server.token(&["tenant:rw"]), &newer);
    replica.open();
    replica.insert("items", json!({"label": "new", "amount": 1, "colour": "green"}));
    replica.connect();
    let status = replica
        .wait_for_status("the refusal", |status| status["cause"]["code"] == "schema_too_new");
    assert_eq!(
        (&status["cause"]["final"], &status["unanswered"]),
        (&json!(true), &json!(1)),
        "{status}"
    );

    let file = server.home().join("newer.json");
    fs::write(&file, newer).unwrap();
    server.operate(&["schema", "apply", "--tenant", TENANT, file.to_str().unwrap()]);
    replica.sync();

    // An app that does not know the column keeps it.
    let mut older = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    older.sync();
    let id = older.value("SELECT id FROM items");
    older.transact(json!([["put", "items", {"id": id, "label": "renamed by the old app"}]]));
    older.wait_for("synced");
    replica.wait_for_number(
        "SELECT count(*) FROM items WHERE label = 'renamed by the old app' AND colour = 'green'",
        1,
    );
}

/// A device whose clock is years ahead.
struct AheadOfTime(OsEnvironment);

impl Environment for AheadOfTime {
    fn wall_ms(&self) -> u64 {
        self.0.wall_ms() + TEN_YEARS_MS
    }

    fn steady_ms(&self) -> u64 {
        self.0.steady_ms()
    }

    fn entropy(&self) -> Option<u64> {
        self.0.entropy()
    }
}

#[test]
fn a_device_whose_clock_is_years_ahead_keeps_its_writes_and_learns_the_correction() {
    let server = Server::start(ServerOptions::default());
    let token = server.mint(TENANT, &["tenant:rw"], &["--expires-in", "300d"]);
    let home = tempfile::tempdir().unwrap();
    let client = Client::builder()
        .dir(home.path())
        .schema(SCHEMA)
        .vault(Arc::new(MemoryVault::default()))
        .server(server.url())
        .token(TokenSource::fixed(&token.token).unwrap())
        .environment(Arc::new(AheadOfTime(OsEnvironment::default())))
        .build()
        .unwrap();
    let write = |label: &str| {
        client.write(|write| write.insert("items", None, &[("label", Value::from(label))])).unwrap()
    };
    let row = write("from the future");
    client.connect().unwrap();
    let status = client.wait_for(Goal::Synced, LATER).unwrap();
    assert_eq!(status.corrections, 1, "{status:?}");
    let years = status.last_correction_ms.unsigned_abs().abs_diff(TEN_YEARS_MS);
    assert!(status.last_correction_ms < 0 && years < 3_600_000, "{status:?}");
    assert_eq!(client.quarantine().unwrap().len(), 0);

    // The next writer's clock is right, and its later edit wins.
    let mut other = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    other.sync();
    assert_eq!(other.value("SELECT label FROM items"), "from the future");
    other.transact(json!([["put", "items", {"id": row.to_string(), "label": "edited later"}]]));
    other.wait_for("synced");
    let arrived = || client.row("items", row).unwrap().unwrap();
    system_tests::deadline::eventually("the edit", LATER, || {
        format!("{:?}", arrived()).contains("edited later").then_some(())
    });
    client.disconnect();
}

/// A closed replica with one row, its database and its key file.
struct Broken {
    replica: Replica,
    database: PathBuf,
}

impl Broken {
    fn new() -> Self {
        let server = Server::start(ServerOptions::default());
        let mut replica = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
        for n in 0..200 {
            replica.insert("items", json!({"label": format!("row {n}"), "amount": n}));
        }
        replica.close();
        let mut files = fs::read_dir(replica.dir()).unwrap().map(|entry| entry.unwrap().path());
        let is_database = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "db");
        let database = files.find(is_database).unwrap();
        Self { replica, database }
    }

    fn key_file(&self) -> PathBuf {
        let mut name = self.database.clone().into_os_string();
        name.push(".key");
        name.into()
    }

    /// Every file of the replica with its bytes.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn collect(dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    collect(&path, files);
                } else {
                    files.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        collect(self.replica.dir(), &mut files);
        files
    }

    /// The command line fails with this code, in one line, and leaves every file as it was.
    fn check(&self, code: &str) {
        let before = self.files();
        let sql = "SELECT count(*), sum(amount), max(label) FROM items";
        let finished = self.replica.run("query", &[sql]);
        assert_eq!(finished.code, Some(1), "{code}: {}", finished.stdout);
        assert_eq!(finished.stderr.trim_end().lines().count(), 1, "{}", finished.stderr);
        assert!(finished.stderr.contains(code), "{code} is not in {}", finished.stderr);
        let json = self.replica.run("query", &["--json", sql]);
        assert!(
            format!("{}{}", json.stdout, json.stderr).contains(&format!("\"code\":\"{code}\"")),
            "{json:?}"
        );
        assert_eq!(self.files(), before, "{code}: something was changed");
    }
}

#[test]
fn a_store_that_cannot_be_opened_has_an_error_of_its_own_for_each_reason() {
    let broken = Broken::new();
    let good = broken.files();
    let (database, key_file) = (broken.database.clone(), broken.key_file());
    let restore = || {
        for (path, bytes) in &good {
            fs::write(path, bytes).unwrap();
        }
        private(broken.replica.dir());
    };
    let vault_key =
        good.keys().find(|path| path.extension().is_some_and(|e| e == "vault-key")).unwrap();

    let plain = rusqlite::Connection::open_in_memory().unwrap();
    plain.execute_batch("CREATE TABLE t (a)").unwrap();
    fs::remove_file(&database).unwrap();
    plain.execute("VACUUM INTO ?1", [database.to_str().unwrap()]).unwrap();
    broken.check("plain_file");
    restore();

    let mut damaged = good[&database].clone();
    let middle = damaged.len() / 2;
    (0..damaged.len() / 4_096)
        .for_each(|page| damaged[(page * 4_096 + 2_000).min(middle * 2 - 1)] ^= 0xff);
    fs::write(&database, damaged).unwrap();
    broken.check("damaged");
    restore();

    fs::remove_file(vault_key).unwrap();
    broken.check("lost_key");
    restore();

    fs::remove_file(&key_file).unwrap();
    broken.check("lost_key");
    restore();

    let other = Broken::new();
    fs::write(&key_file, fs::read(other.key_file()).unwrap()).unwrap();
    broken.check("wrong_key");
    restore();

    fs::remove_file(&database).unwrap();
    broken.check("database_missing");
    restore();

    let finished = broken.replica.run("query", &["SELECT count(*) AS n FROM items", "--json"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains("200"), "{}", finished.stdout);
}

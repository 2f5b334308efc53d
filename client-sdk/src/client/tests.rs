//! The client as an app uses it, on a real encrypted store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farshore_sync_core::ids::{DeviceId, RowId};
use farshore_sync_core::value::Value;

use super::{BuildError, Client, ClientBuilder, ConnectError, Goal, owner_file};
use crate::error::Classified as _;
use crate::status::Phase;
use crate::store::{OpenError, StoreError, WriteError};
use crate::sync::{OwnerError, TokenSource};
use crate::vault::MemoryVault;

mod live;
mod users;

/// Nothing here takes longer, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

const SCHEMA: &str = r#"{"name":"s","version":1,"collections":[
    {"name":"airlines","scope":"tenant","columns":[{"name":"name","type":"text"}]},
    {"name":"stock","scope":"tenant","columns":[{"name":"count","type":"counter"}]}]}"#;

/// A directory with its vault, in which clients come and go.
struct Place {
    dir: tempfile::TempDir,
    vault: Arc<MemoryVault>,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), vault: Arc::default() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder().dir(self.path()).schema(SCHEMA).vault(Arc::clone(&self.vault) as _)
    }

    fn client(&self) -> Client {
        self.builder().build().unwrap()
    }
}

fn insert(client: &Client, name: &str) -> RowId {
    client.write(|tx| tx.insert("airlines", None, &[("name", Value::from(name))])).unwrap()
}

fn device(n: u8) -> DeviceId {
    DeviceId::from_bytes([n; 16])
}

fn token_for(device: DeviceId, tenant: &str) -> TokenSource {
    TokenSource::fixed(&crate::sync::forged_token(device, tenant)).unwrap()
}

#[test]
fn a_store_that_was_made_without_a_token_keeps_its_device() {
    let place = Place::new();
    let client = place.client();
    let made = client.device();
    insert(&client, "Farshore Air");
    assert_eq!(client.unsynced().unwrap(), 1);
    client.close().unwrap();

    let again = place.client();
    assert_eq!((again.device(), again.unsynced().unwrap()), (made, 1));
    again.close().unwrap();

    // Even where the file beside it is gone, the store knows whose it is.
    std::fs::remove_file(owner_file::path_of(place.path(), super::DEFAULT_NAME)).unwrap();
    let found = place.client();
    assert_eq!((found.device(), found.unsynced().unwrap()), (made, 1));
}

#[test]
fn the_token_decides_which_device_a_new_store_is_for() {
    let place = Place::new();
    let client = place.builder().token(token_for(device(1), "demo")).build().unwrap();
    assert_eq!(client.device(), device(1));
    assert_eq!(client.tenant(), Some("demo".parse().unwrap()));
    client.close().unwrap();

    let refused = |builder: ClientBuilder| match builder.build() {
        Err(BuildError::Owner(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was opened"),
    };
    let other_device = OwnerError::Device { stored: device(1), given: device(2) };
    assert_eq!(refused(place.builder().token(token_for(device(2), "demo"))), other_device);
    assert_eq!(refused(place.builder().device(device(2))), other_device);
    let other_tenant = refused(place.builder().token(token_for(device(1), "acme")));
    assert_eq!(other_tenant.code(), "wrong_tenant");
    assert_eq!(place.client().device(), device(1));
}

#[test]
fn a_store_that_was_made_offline_takes_only_tokens_of_its_device() {
    let place = Place::new();
    let client = place.builder().device(device(1)).build().unwrap();
    let token = |n, tenant| crate::sync::forged_token(device(n), tenant);
    let error = client.set_token(&token(2, "demo")).unwrap_err();
    assert_eq!(error.code(), "wrong_device");
    client.set_token(&token(1, "demo")).unwrap();
    assert_eq!(client.set_token(&token(1, "acme")).unwrap_err().code(), "wrong_tenant");
    assert_eq!(client.set_token("x").unwrap_err().code(), "bad_token");
    client.close().unwrap();
    assert_eq!(place.client().tenant(), Some("demo".parse().unwrap()));
}

#[test]
fn what_a_client_lacks_is_said_before_any_file_is_made() {
    let place = Place::new();
    let code = |builder: ClientBuilder| builder.build().err().unwrap().code();
    assert_eq!(code(Client::builder()), "incomplete_settings");
    assert_eq!(code(place.builder().schema("{")), "bad_schema");
    assert_eq!(code(place.builder().server("nowhere")), "bad_server_url");
    assert_eq!(code(place.builder().root_certificate("x")), "bad_root_certificate");
    assert_eq!(code(place.builder().name("../x")), "bad_name");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn a_client_without_server_or_token_says_so_and_works_offline() {
    let place = Place::new();
    let client = place.client();
    assert!(matches!(client.connect(), Err(ConnectError::NoServer)));
    insert(&client, "a");
    client.close().unwrap();
    let client = place.builder().server("http://127.0.0.1:9").build().unwrap();
    assert!(matches!(client.connect(), Err(ConnectError::NoToken)));
    assert_eq!(client.query("SELECT name FROM airlines", &[]).unwrap().rows.len(), 1);
}

#[test]
fn nothing_reads_or_writes_while_suspended_and_everything_does_after() {
    let place = Place::new();
    let client = place.client();
    let row = insert(&client, "a");
    client.suspend().unwrap();
    client.suspend().unwrap();
    let status = client.status();
    assert!(status.suspended);
    assert_eq!(status.unanswered, 1, "the numbers are those of before");
    let closed = client.write(|tx| tx.delete("airlines", row)).unwrap_err();
    assert!(matches!(closed, WriteError::Store(StoreError::Closed)), "{closed}");
    assert!(matches!(client.connect(), Err(ConnectError::Suspended | ConnectError::NoServer)));
    // The database alone is whole: there is nothing left in the write-ahead log.
    let wal = place.path().join("replica.db-wal");
    assert_eq!(std::fs::metadata(wal).map_or(0, |wal| wal.len()), 0);

    client.resume().unwrap();
    client.resume().unwrap();
    client.write(|tx| tx.delete("airlines", row)).unwrap();
    assert!(!client.status().suspended);
}

#[test]
fn syncing_once_ends_in_time_where_no_server_answers() {
    // A listener that takes connections and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let place = Place::new();
    let client = place.builder().server(url).token(token_for(device(1), "demo")).build().unwrap();
    insert(&client, "a");
    let report = client.sync_once(Duration::from_millis(300)).unwrap();
    assert!(!report.complete);
    assert!(report.elapsed_ms < 5_000, "{report:?}");
    assert_eq!((report.unanswered, report.unconfirmed), (1, 1));
    assert_eq!(client.status().phase, Phase::Stopped);
}

#[test]
fn syncing_once_gives_up_early_where_only_the_app_can_help() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        use std::io::{BufRead as _, BufReader, Write as _};
        let (stream, _) = server.accept().unwrap();
        let lines = BufReader::new(&stream).lines();
        lines.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
        (&stream).write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let place = Place::new();
    let client = place.builder().server(url).token(token_for(device(1), "demo")).build().unwrap();
    let report = client.sync_once(Duration::from_secs(3_600)).unwrap();
    assert_eq!(report.cause.map(|cause| cause.code), Some("unauthenticated"));
    answering.join().unwrap();
}

#[test]
fn waiting_in_vain_says_where_the_replica_stands() {
    let place = Place::new();
    let client = place.client();
    assert!(client.wait_for(Goal::Synced, PATIENCE).is_ok(), "nothing was written");
    insert(&client, "a");
    let error = client.wait_for(Goal::Synced, Duration::from_millis(1)).unwrap_err();
    assert_eq!((error.code(), error.status.unconfirmed), ("timeout", 1));
    assert!(error.is_retryable());
}

#[test]
fn the_status_tells_of_local_writes() {
    let place = Place::new();
    let client = place.client();
    let mut statuses = client.watch_status();
    assert!(statuses.next_within(PATIENCE).unwrap().synced);
    insert(&client, "a");
    let status = statuses.next_within(PATIENCE).unwrap();
    assert_eq!((status.synced, status.unanswered), (false, 1));
    assert_eq!(statuses.next_within(Duration::from_millis(1)), None);
}

#[test]
fn a_store_is_opened_by_its_own_key_only() {
    let place = Place::new();
    place.client().close().unwrap();
    let other = place.builder().vault(Arc::new(MemoryVault::new()));
    let error = other.build().err().unwrap();
    assert!(matches!(error, BuildError::Open(OpenError::File(_))), "{error}");
    assert_eq!(error.code(), "lost_key");
}

//! A server on real files: what it refuses to start on, and what it keeps.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use farshore_store::catalog::Catalog as _;
use farshore_store_postgres::PostgresConfig;
use test_services::postgres::Postgres;

use super::*;
use crate::clock::SystemClock;
use crate::config::{Settings, StoreKind};

fn config(data_dir: &Path) -> Config {
    let mut config = Config::from_settings(&Settings::defaults()).unwrap();
    config.store.data_dir = data_dir.to_owned();
    config.server.listen = "127.0.0.1:0".parse().unwrap();
    config
}

async fn start(config: Config, master_key: &MasterKey) -> Result<Server, String> {
    let preparation = Preparation { demo: true, restored: false };
    started(config, master_key, preparation).await.inspect_err(|line| {
        assert_eq!(line.lines().count(), 1, "{line}");
    })
}

async fn started(
    config: Config,
    master_key: &MasterKey,
    preparation: Preparation,
) -> Result<Server, String> {
    let data_dir = DataDir::lock(&config.store.data_dir).map_err(|error| error.to_string())?;
    let (master_key, clock) = (master_key.clone(), Arc::new(SystemClock));
    let server = Server::start(config, data_dir, master_key, clock, preparation).await;
    server.map_err(|error| error.to_string())
}

#[tokio::test]
async fn two_servers_do_not_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let master_key = MasterKey::generate().unwrap();
    let first = start(config(dir.path()), &master_key).await.unwrap();
    let refused = start(config(dir.path()), &master_key).await.unwrap_err();
    assert!(refused.ends_with("another server is running on this directory"), "{refused}");
    let running = server_file::read(dir.path()).unwrap().unwrap();
    assert_eq!(running.url, first.url(), "the second one touched nothing");
    first.stop().await;
    assert_eq!(server_file::read(dir.path()).unwrap(), None);
    start(config(dir.path()), &master_key).await.unwrap().stop().await;
}

#[tokio::test]
async fn a_server_that_cannot_start_says_what_and_where() {
    let dir = tempfile::tempdir().unwrap();
    let master_key = MasterKey::generate().unwrap();

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let inside_a_file = start(config(&file.join("data")), &master_key).await.unwrap_err();
    assert!(
        inside_a_file.starts_with("store.data_dir: ") && inside_a_file.contains("file/data"),
        "{inside_a_file}"
    );

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut busy = config(&dir.path().join("data"));
    busy.server.listen = taken.local_addr().unwrap();
    let in_use = start(busy, &master_key).await.unwrap_err();
    assert!(
        in_use.starts_with(&format!("server.listen: {}: ", taken.local_addr().unwrap())),
        "{in_use}"
    );
    assert!(in_use.contains("in use"), "{in_use}");

    let mut elsewhere = config(&dir.path().join("data"));
    elsewhere.server.listen = "192.0.2.1:7400".parse().unwrap();
    let not_ours = start(elsewhere, &master_key).await.unwrap_err();
    assert!(not_ours.starts_with("server.listen: 192.0.2.1:7400: "), "{not_ours}");

    start(config(&dir.path().join("data")), &master_key).await.unwrap().stop().await;
    let another = MasterKey::generate().unwrap();
    let wrong_key = start(config(&dir.path().join("data")), &another).await.unwrap_err();
    assert!(wrong_key.contains("another master key"), "{wrong_key}");
    start(config(&dir.path().join("data")), &master_key).await.unwrap().stop().await;
}

#[tokio::test]
async fn what_was_set_up_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let master_key = MasterKey::generate().unwrap();
    let key_set = async |server: &Server| {
        let tenant = "demo".parse().unwrap();
        server.app.auth().key_set(&tenant).await.unwrap()
    };
    let first = start(config(dir.path()), &master_key).await.unwrap();
    let before = key_set(&first).await;
    first.stop().await;
    let second = start(config(dir.path()), &master_key).await.unwrap();
    assert_eq!(key_set(&second).await, before);
    second.stop().await;
}

#[tokio::test]
async fn a_server_on_postgres_keeps_what_was_set_up() {
    let database = Postgres::shared().fresh_database();
    let on_postgres = |data_dir: &Path| {
        let mut config = config(data_dir);
        let postgres = PostgresConfig::new(database.url().parse().unwrap());
        config.store.kind = StoreKind::Postgres(postgres);
        config
    };
    let master_key = MasterKey::generate().unwrap();
    let key_set = async |server: &Server| {
        let tenant = "demo".parse().unwrap();
        server.app.auth().key_set(&tenant).await.unwrap()
    };
    let (first_dir, second_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = start(on_postgres(first_dir.path()), &master_key).await.unwrap();
    let before = key_set(&first).await;
    let beside = start(on_postgres(second_dir.path()), &master_key).await.unwrap();
    assert_eq!(key_set(&beside).await, before, "another node on the same database");
    first.stop().await;
    beside.stop().await;

    let another = MasterKey::generate().unwrap();
    let fresh_dir = tempfile::tempdir().unwrap();
    let refused = start(on_postgres(fresh_dir.path()), &another).await.unwrap_err();
    assert!(refused.contains("master key does not fit"), "{refused}");

    let mut gone = on_postgres(first_dir.path());
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("postgres://farshore:s3cret@{nowhere}/farshore").parse().unwrap();
    gone.store.kind = StoreKind::Postgres(PostgresConfig::new(url));
    let unreachable = start(gone, &master_key).await.unwrap_err();
    assert!(unreachable.starts_with("postgres://farshore@127.0.0.1:"), "{unreachable}");
    assert!(unreachable.contains("cannot be reached"), "{unreachable}");
}

#[tokio::test]
async fn a_restored_copy_begins_a_new_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let master_key = MasterKey::generate().unwrap();
    let epoch = async |restored: bool| {
        let preparation = Preparation { demo: true, restored };
        let server = started(config(dir.path()), &master_key, preparation).await.unwrap();
        let scope = server.app.auth().workflow_scope("demo".parse().unwrap());
        let store = store::open(&config(dir.path()).store, &master_key).await.unwrap().0;
        let epoch = store.open(&scope).await.unwrap().head().await.unwrap().epoch;
        server.stop().await;
        epoch
    };
    let first = epoch(false).await;
    assert_eq!(epoch(false).await, first);
    assert_ne!(epoch(true).await, first);
}

#[tokio::test]
async fn stopping_does_not_wait_for_those_who_say_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.server.drain_timeout_ms = 200;
    let server = start(config, &MasterKey::generate().unwrap()).await.unwrap();
    let mut silent = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut silent, b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    timeout(crate::testing::PATIENCE, server.stop())
        .await
        .expect("it waits for a request that never ends");
}

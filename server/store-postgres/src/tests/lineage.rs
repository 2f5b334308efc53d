//! A database that goes on from another history, as after a standby was promoted: each tenant begins an epoch.
//!
//! With real standbys, and devices that offer what was lost: `tests/system/lagging_standby.rs`.

use farshore_store::StoreError;
use farshore_store::catalog::Catalog as _;
use farshore_store::conformance::{commit_notes, note_batch, sample_tenant_named};

use super::*;

/// What a failover is for the store: the rows are from a history that is not the database's.
const STRAY: &str = "UPDATE tenant_demo.standing SET lineage = '123/00000001'";

#[tokio::test]
async fn an_epoch_begins_once_and_ends_what_stood_on_the_last_one() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "demo"), 3).await;
    let (before, pushed) = (store.head().await.unwrap(), note_batch(&*store, 1).await);
    server.run(STRAY);
    let after = store.head().await.unwrap();
    assert_ne!(after.epoch, before.epoch);
    assert_eq!((after.seq, after.horizon), (before.seq, before.horizon));
    assert_eq!(store.head().await.unwrap(), after, "the history is known now");
    let error = store.commit(pushed).await.unwrap_err();
    assert!(matches!(error, StoreError::BegunAnew), "{error}");
    commit_notes(&store, 1).await;
}

#[tokio::test]
async fn a_commit_is_the_first_to_notice() {
    let server = Server::cramped();
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "demo"), 3).await;
    let pushed = note_batch(&*store, 1).await;
    server.run(STRAY);
    let error = store.commit(pushed).await.unwrap_err();
    assert!(matches!(error, StoreError::BegunAnew), "{error}");
    assert_eq!(store.head().await.unwrap().seq, 3, "nothing of it was kept");
}

#[tokio::test]
async fn of_several_nodes_one_begins_the_epoch() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
    let mut stores = Vec::new();
    for _ in 0..4 {
        let (catalog, authority) = server.catalog().await;
        stores.push(catalog.open(&scope(&authority, "demo")).await.unwrap());
    }
    for _ in 0..5 {
        server.run(STRAY);
        let heads = futures_util::future::join_all(stores.iter().map(|store| store.head())).await;
        let epochs: Vec<u64> = heads.into_iter().map(|head| head.unwrap().epoch).collect();
        assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{epochs:?}");
    }
}

#[tokio::test]
async fn what_was_remembered_of_the_tenant_is_forgotten() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
    assert_eq!(store.schema().await.unwrap().unwrap().name, "sample");
    // The last registration was lost, and another one made in its place.
    server.run("UPDATE tenant_demo.schemas SET json = replace(json, 'sample', 'another')");
    server.run(STRAY);
    assert_eq!(store.schema().await.unwrap().unwrap().name, "another");
}

#[tokio::test]
async fn a_tenant_that_was_lost_and_made_anew_is_found() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    let lost = sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
    let names = server.names("demo");
    let (schema, views, role) = (names.schema(), names.views(), server.roles().of(&names.key));
    server.run(&format!(
        "DROP SCHEMA {schema}, {views} CASCADE; DROP ROLE {role}; DELETE FROM farshore.tenants"
    ));
    lost.head().await.unwrap_err();
    let gone = catalog.open(&scope(&authority, "demo")).await.err().unwrap();
    assert_eq!(gone.to_string(), "there is no tenant demo");

    let (other, other_authority) = server.catalog().await;
    sample_tenant_named(&other, &scope(&other_authority, "demo"), 2).await;
    let found = catalog.open(&scope(&authority, "demo")).await.unwrap();
    assert_eq!(found.head().await.unwrap().seq, 2);
}

#[tokio::test]
async fn a_host_that_does_not_tell_its_history_is_served_all_the_same() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    server.run("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_walfile_name(pg_lsn) FROM PUBLIC");
    let store = sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
    assert_eq!(server.run("SELECT lineage FROM tenant_demo.standing"), "unknown");
    commit_notes(&store, 1).await;
}

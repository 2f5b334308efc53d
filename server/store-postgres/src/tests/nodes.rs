//! Several nodes that serve one tenant.

use std::collections::BTreeSet;

use farshore_store::SharedTenantStore;
use farshore_store::catalog::Catalog as _;
use farshore_store::conformance::{note_batch, sample_tenant_named};
use farshore_store::sync::{PageRequest, ScopeRead};
use tokio::sync::watch;

use super::*;

const NODES: usize = 3;
const COMMITS: u64 = 40;
const NOTES: u16 = 7;
/// Tasks that create tenants at the same time, how many each creates, and how often it looks at each of them.
const CREATORS: u32 = 6;
const CREATED: u32 = 60;
const LOOKS: u32 = 8;

/// Reads what is new until told to stop, and then the rest; every seq that it saw, in that order.
async fn follow(store: SharedTenantStore, stop: watch::Receiver<bool>) -> Vec<u64> {
    let mut seen = Vec::new();
    let mut position = 0;
    loop {
        let stopping = *stop.borrow();
        let scopes = vec![ScopeRead::from_checkpoint("tenant".parse().unwrap(), position)];
        let page =
            store.page(PageRequest { scopes, target_bytes: 2_000, max_rows: 50 }).await.unwrap();
        seen.extend(page.rows.iter().map(|row| row.seq));
        position = page.positions[0];
        if stopping && page.complete {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_several_nodes_have_one_order_and_no_reader_skips_one() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    let first = sample_tenant_named(&catalog, &scope(&authority, "demo"), 0).await;
    let (stop, stopping) = watch::channel(false);
    let mut writers = Vec::new();
    let mut readers = Vec::new();
    for _ in 0..NODES {
        let (node, authority) = server.catalog().await;
        let store = node.open(&scope(&authority, "demo")).await.unwrap();
        readers.push(tokio::spawn(follow(Arc::clone(&store), stopping.clone())));
        writers.push(tokio::spawn(async move {
            for _ in 0..COMMITS {
                let committed = store.commit(note_batch(&*store, NOTES).await).await.unwrap();
                assert_eq!(committed.seq - committed.seq_before, u64::from(NOTES));
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    stop.send_replace(true);
    let last = NODES as u64 * COMMITS * u64::from(NOTES);
    assert_eq!(first.head().await.unwrap().seq, last);
    for reader in readers {
        let seen = reader.await.unwrap();
        assert!(seen.is_sorted());
        assert_eq!(BTreeSet::from_iter(seen), (1..=last).collect());
    }
    assert_eq!(first.scrub().await.unwrap(), [], "the sums add up as well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_is_there_for_all_connections_as_soon_as_it_was_created() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    let authority = Arc::new(authority);
    let creators = (0..CREATORS).map(|creator| {
        let (catalog, authority) = (catalog.clone(), Arc::clone(&authority));
        tokio::spawn(async move {
            for number in 0..CREATED {
                let scope = scope(&authority, &format!("tenant-{creator}-{number}"));
                let store = catalog.create(&scope, 1).await.unwrap();
                for _ in 0..LOOKS {
                    store.head().await.unwrap();
                }
            }
        })
    });
    for creator in creators.collect::<Vec<_>>() {
        creator.await.unwrap();
    }
}

#[tokio::test]
async fn rights_that_were_taken_away_are_an_error_and_not_waited_for() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
    let (role, us) = (server.roles().of(&server.names("demo").key), server.database.name());
    server.run(&format!("REVOKE {role} FROM {us}"));
    let error = store.head().await.unwrap_err().to_string();
    assert!(error.contains("permission denied to set role"), "{error}");
    server.run(&format!("GRANT {role} TO {us}"));
    store.head().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_arrives_at_two_nodes_counts_once() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    let first = sample_tenant_named(&catalog, &scope(&authority, "demo"), 0).await;
    let (node, authority) = server.catalog().await;
    let second = node.open(&scope(&authority, "demo")).await.unwrap();
    for round in 1..=20_u64 {
        let batch = note_batch(&*first, 5).await;
        let (left, right) = tokio::join!(first.commit(batch.clone()), second.commit(batch));
        let (left, right) = (left.unwrap(), right.unwrap());
        assert_eq!(left.results, right.results, "both give the same answer");
        let rows = left.rows.len() + right.rows.len();
        assert_eq!(rows, 5, "one of them applied it");
        assert_eq!(first.head().await.unwrap().seq, 5 * round);
    }
}

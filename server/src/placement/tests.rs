//! What holds of a tenant while it is being moved, and of clusters that change.

use std::fs;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use farshore_store::placement::{ClusterRecord, MoveToken};
use farshore_store::scope::ScopeAuthority;
use farshore_store_sqlite::SqliteConfig;
use test_services::postgres::{Database, Postgres};

use super::*;

fn home_in(folder: &Path, master_key: &MasterKey) -> (SqliteCatalog, ScopeAuthority) {
    let config = SqliteConfig {
        max_open_tenants: NonZeroUsize::MIN,
        readers_per_tenant: NonZeroUsize::MIN,
        writer_cache_kib: 64,
        reader_cache_kib: 64,
        checkpoint_after_pages: 100,
        busy_timeout_ms: 100,
        ..SqliteConfig::new(folder)
    };
    SqliteCatalog::open(config, master_key.clone()).unwrap()
}

#[tokio::test]
async fn a_tenant_that_is_being_moved_is_neither_erased_nor_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let master_key = MasterKey::generate().unwrap();
    let (home, authority) = home_in(dir.path(), &master_key);
    let scope = authority.scope("acme".parse().unwrap());
    let catalog = PlacedCatalog::new(Arc::new(home.clone()), master_key, PostgresLimits::default());
    catalog.create(&scope, 0).await.unwrap();

    let token = MoveToken([1; 16]);
    home.begin_move(&scope, &"east".parse().unwrap(), token).await.unwrap();
    let frozen = |error: &CatalogError| matches!(error, CatalogError::Store(StoreError::Frozen));
    assert!(catalog.erase(&scope).await.is_err_and(|error| frozen(&error)));
    let replaced = catalog.receive(&scope, Arriving::Replacing).await;
    assert!(replaced.is_err_and(|error| frozen(&error)));

    home.end_move(&scope, &Place::Home, token).await.unwrap();
    drop(catalog.receive(&scope, Arriving::Replacing).await.unwrap());
    catalog.erase(&scope).await.unwrap();
    catalog.erase(&scope).await.unwrap();
}

/// Nodes that have one home.
struct Nodes {
    home: SqliteCatalog,
    master_key: MasterKey,
    dir: tempfile::TempDir,
}

impl Nodes {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let master_key = MasterKey::generate().unwrap();
        let (home, _) = home_in(dir.path(), &master_key);
        Self { home, master_key, dir }
    }

    fn clusters(&self, keeping: Keeping) -> Clusters {
        let home = Arc::new(self.home.clone());
        Clusters::new(home, self.master_key.clone(), PostgresLimits::default(), keeping)
    }
}

fn cluster(name: &str) -> ClusterName {
    name.parse().unwrap()
}

fn nodes_and_a_cluster() -> (Nodes, ClusterName, Database<'static>) {
    (Nodes::new(), cluster("east"), Postgres::shared().fresh_database())
}

async fn connections_to(clusters: &Clusters, name: &ClusterName) -> u32 {
    clusters.get(name).await.unwrap().pool_figures().limit
}

#[tokio::test]
async fn credentials_are_read_anew_and_not_before() {
    let (nodes, east, database) = nodes_and_a_cluster();
    let patient = nodes.clusters(Keeping::default());
    let hasty = nodes.clusters(Keeping { credentials: Duration::ZERO, ..Keeping::default() });
    patient.add(east.clone(), database.url(), 3, 0).await.unwrap();
    assert_eq!(connections_to(&patient, &east).await, 3);
    assert_eq!(connections_to(&hasty, &east).await, 3);

    // Another node is told to reach the cluster in another way.
    nodes.clusters(Keeping::default()).add(east.clone(), database.url(), 5, 0).await.unwrap();
    assert_eq!(connections_to(&patient, &east).await, 3, "for a quarter of an hour");
    assert_eq!(connections_to(&hasty, &east).await, 5);

    // Home does not tell how it is reached any more: whoever has reached it goes on.
    let at_home = nodes.dir.path().join("clusters/east.cluster");
    assert!(at_home.is_file());
    fs::write(&at_home, "no cluster").unwrap();
    assert!(nodes.home.clusters().await.is_err());
    assert_eq!(connections_to(&hasty, &east).await, 5);
    assert!(nodes.clusters(Keeping::default()).get(&east).await.is_err(), "nobody else can");
}

#[tokio::test]
async fn a_pool_that_nobody_uses_is_closed_and_opened_again() {
    let (nodes, east, database) = nodes_and_a_cluster();
    let patient = nodes.clusters(Keeping::default());
    let hasty = nodes.clusters(Keeping { idle_pools: Duration::ZERO, ..Keeping::default() });
    for clusters in [&patient, &hasty] {
        clusters.add(east.clone(), database.url(), 3, 0).await.unwrap();
        assert_eq!(clusters.pools().len(), 1);
        clusters.close_idle();
    }
    assert_eq!((patient.pools().len(), hasty.pools().len()), (1, 0));
    assert_eq!(connections_to(&hasty, &east).await, 3);
    assert_eq!(hasty.pools().len(), 1);
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_holds_nobody_up_at_another_one() {
    let (nodes, east, database) = nodes_and_a_cluster();
    let silent = cluster("silent");
    let clusters = Arc::new(nodes.clusters(Keeping::default()));
    clusters.add(east.clone(), database.url(), 3, 0).await.unwrap();
    // It takes connections and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://farshore:x@{}/farshore", listener.local_addr().unwrap());
    let sealed_url = nodes.master_key.seal("cluster-url/silent", url.as_bytes()).unwrap();
    let record =
        ClusterRecord { name: silent.clone(), sealed_url, max_connections: 1, added_at_ms: 0 };
    nodes.home.put_cluster(&record).await.unwrap();
    let waiting = tokio::spawn({
        let clusters = Arc::clone(&clusters);
        async move { clusters.get(&silent).await.is_ok() }
    });
    let accepted = tokio::task::spawn_blocking(move || (listener.accept().unwrap(), listener));
    let _connection = accepted.await.unwrap();
    assert_eq!(connections_to(&clusters, &east).await, 3);
    assert!(!waiting.is_finished(), "it waits for the silent one all the while");
    assert_eq!(clusters.pools().len(), 1, "whoever looks at the figures does not wait either");
    waiting.abort();
}

//! Processes and connections that end in the middle of something.

use std::time::Duration;

use farshore_store::catalog::Catalog as _;
use farshore_store::conformance::{commit_notes, note_batch, sample_tenant_named};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::time::{sleep, timeout};

use super::*;
use crate::migrations::{STEPS, Step};

/// Longest wait for something to happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

const SECOND: Step =
    Step { statements: "CREATE TABLE main.second (x bigint);\n", tables: &["second"] };
const THIRD: Step = Step {
    statements: "CREATE TABLE main.third (x bigint);\nINSERT INTO main.third VALUES (3);\n",
    tables: &["third"],
};
const SLEEPS: Step = Step {
    statements: "CREATE TABLE main.third (x bigint);\nSELECT pg_sleep(3600);\n",
    tables: &["third"],
};
const NEW_STEPS: [Step; 3] = [STEPS[0], SECOND, THIRD];
const SLEEPING_STEPS: [Step; 3] = [STEPS[0], SECOND, SLEEPS];

impl Server {
    /// Ends our connections to the database that are so; returns how many there were.
    fn end_connections(&self, condition: &str) -> usize {
        let ended = self.run(&format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE usename = '{}' AND {condition}",
            self.database.name()
        ));
        ended.parse().unwrap()
    }

    async fn somebody_waits_for_a_lock(&self) {
        let look = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND wait_event_type = 'Lock'",
            self.database.name()
        );
        let seen = timeout(PATIENCE, async {
            while self.run(&look) == "0" {
                sleep(BETWEEN_LOOKS).await;
            }
        });
        seen.await.expect("somebody waits");
    }

    /// Waits for a connection that sleeps, and ends it: what a killed process leaves behind.
    async fn end_the_sleeping_connection(&self) {
        let ended = timeout(PATIENCE, async {
            while self.end_connections("wait_event = 'PgSleep'") == 0 {
                sleep(BETWEEN_LOOKS).await;
            }
        });
        ended.await.expect("somebody sleeps");
    }
}

#[tokio::test]
async fn a_migration_that_was_killed_goes_on_at_the_next_opening() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "demo"), 5).await;
    let head = store.head().await.unwrap();

    let (config, master) = (server.config.clone(), server.master.clone());
    let killed = tokio::spawn(async move {
        let opened = PostgresCatalog::open_with_steps(config, &master, &SLEEPING_STEPS).await;
        let (catalog, authority) = opened.unwrap();
        catalog.open(&scope(&authority, "demo")).await.map(drop)
    });
    server.end_the_sleeping_connection().await;
    killed.await.unwrap().unwrap_err();
    assert_eq!(server.run("SELECT format FROM tenant_demo.standing"), "2");
    assert_eq!(server.run("SELECT to_regclass('tenant_demo.third') IS NULL"), "t");

    let opened =
        PostgresCatalog::open_with_steps(server.config.clone(), &server.master, &NEW_STEPS).await;
    let (catalog, authority) = opened.unwrap();
    let store = catalog.open(&scope(&authority, "demo")).await.unwrap();
    assert_eq!(store.head().await.unwrap(), head);
    commit_notes(&store, 2).await;
    assert_eq!(server.run("SELECT format FROM tenant_demo.standing"), "3");
    assert_eq!(server.run("SELECT x FROM tenant_demo.third"), "3");
    let walled =
        "SELECT relforcerowsecurity FROM pg_class WHERE oid = 'tenant_demo.third'::regclass";
    assert_eq!(server.run(walled), "t");
}

#[tokio::test]
async fn a_node_with_the_version_before_goes_on_beside_a_migration() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
    let newer =
        PostgresCatalog::open_with_steps(server.config.clone(), &server.master, &NEW_STEPS).await;
    let (newer, newer_authority) = newer.unwrap();
    newer.open(&scope(&newer_authority, "demo")).await.unwrap();
    commit_notes(&store, 1).await;
}

#[tokio::test]
async fn several_nodes_migrate_a_tenant_once() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
    let nodes = (0..4).map(|_| {
        let (config, master) = (server.config.clone(), server.master.clone());
        tokio::spawn(async move {
            let opened = PostgresCatalog::open_with_steps(config, &master, &NEW_STEPS).await;
            let (catalog, authority) = opened.unwrap();
            catalog.open(&scope(&authority, "demo")).await.map(drop)
        })
    });
    for node in nodes.collect::<Vec<_>>() {
        node.await.unwrap().unwrap();
    }
    assert_eq!(server.run("SELECT x FROM tenant_demo.third"), "3");
}

#[tokio::test]
async fn a_creation_that_was_killed_leaves_nothing() {
    let server = Server::new();
    let (config, master) = (server.config.clone(), server.master.clone());
    let killed = tokio::spawn(async move {
        let opened = PostgresCatalog::open_with_steps(config, &master, &SLEEPING_STEPS).await;
        let (catalog, authority) = opened.unwrap();
        catalog.create(&scope(&authority, "demo"), 1).await.map(drop)
    });
    server.end_the_sleeping_connection().await;
    killed.await.unwrap().unwrap_err();
    let left = "SELECT (SELECT count(*) FROM farshore.tenants) \
        + (SELECT count(*) FROM pg_namespace WHERE nspname = 'tenant_demo')";
    assert_eq!(server.run(left), "0");
    let (catalog, authority) = server.catalog().await;
    assert_eq!(catalog.tenants().await.unwrap(), []);
    sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
}

#[tokio::test]
async fn an_erasure_that_was_killed_leaves_everything() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "demo"), 5).await;
    let head = store.head().await.unwrap();
    // It has marked the tenant as erased, and waits with the first table for somebody who is still there.
    let holder = server.hold_standing().await;
    let (node, node_authority) = server.catalog().await;
    let killed = tokio::spawn(async move { node.erase(&scope(&node_authority, "demo")).await });
    server.somebody_waits_for_a_lock().await;
    assert_eq!(server.end_connections("wait_event_type = 'Lock'"), 1);
    killed.await.unwrap().unwrap_err();
    holder.end(Ok(())).await.unwrap();

    assert_eq!(store.head().await.unwrap(), head, "whoever has it open goes on");
    commit_notes(&store, 1).await;
    let (node, node_authority) = server.catalog().await;
    assert_eq!(node.tenants().await.unwrap().len(), 1);
    let opened = node.open(&scope(&node_authority, "demo")).await.unwrap();
    assert_eq!(opened.scrub().await.unwrap(), []);

    node.erase(&scope(&node_authority, "demo")).await.unwrap();
    assert_eq!(node.tenants().await.unwrap(), []);
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname IN ('tenant_demo', 'rows_demo')";
    assert_eq!(server.run(left), "0", "the next one goes to the end");
}

#[tokio::test]
async fn a_preparation_that_was_killed_leaves_nothing() {
    let server = Server::new();
    let mut other = PgConnection::connect(&server.database.superuser_url()).await.unwrap();
    let lock = format!("SELECT pg_advisory_lock({})", crate::platform::PREPARATION_LOCK);
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut other).await.unwrap();
    let (config, master) = (server.config.clone(), server.master.clone());
    let killed = tokio::spawn(async move { PostgresCatalog::open(config, &master).await });
    server.somebody_waits_for_a_lock().await;
    assert_eq!(server.end_connections("wait_event_type = 'Lock'"), 1);
    killed.await.unwrap().unwrap_err();
    other.close().await.unwrap();
    assert_eq!(server.run("SELECT to_regnamespace('farshore') IS NULL"), "t");
    let (catalog, authority) = server.catalog().await;
    sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
}

#[tokio::test]
async fn connections_that_ended_are_replaced() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
    // Reads at the same time, so that the pool opens all its connections.
    futures_util::future::join_all((0..8).map(|_| store.head())).await;
    assert!(server.end_connections("true") > 0);
    commit_notes(&store, 1).await;
    assert_eq!(store.head().await.unwrap().seq, 2);
}

#[tokio::test]
async fn a_database_that_is_gone_is_an_error_in_time() {
    let mut server = Server::new();
    server.config.limits.acquire_timeout_ms = 500;
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
    let name = server.database.name();
    let end_all = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{name}'"
    );
    server.run(&format!("ALTER ROLE {name} NOLOGIN; {end_all}"));
    let error = timeout(PATIENCE, store.head()).await.unwrap().unwrap_err();
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
    server.run(&format!("ALTER ROLE {name} LOGIN"));
    commit_notes(&store, 1).await;
}

#[tokio::test]
async fn all_connections_in_use_is_an_error_in_time() {
    let mut server = Server::cramped();
    server.config.limits.acquire_timeout_ms = 200;
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
    let batch = note_batch(&*store, 1).await;
    let holder = server.hold_standing().await;
    // The first waits for the lock, and all others for its connection.
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.commit(batch).await }
    });
    server.somebody_waits_for_a_lock().await;
    let error = store.head().await.unwrap_err().to_string();
    assert!(error.contains("no connection to the database within 200 ms"), "{error}");
    holder.end(Ok(())).await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(store.head().await.unwrap().seq, 2);
}

#[tokio::test]
async fn a_commit_that_nobody_waits_for_any_more_leaves_nothing() {
    let server = Server::cramped();
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
    let head = store.head().await.unwrap();
    // Somebody holds the tenant's lock: the commit has begun its transaction and waits in it.
    let (other, other_authority) = server.catalog().await;
    let other = other.open(&scope(&other_authority, "demo")).await.unwrap();
    let batch = note_batch(&*store, 1).await;
    let holder = server.hold_standing().await;
    let commit = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.commit(batch).await }
    });
    server.somebody_waits_for_a_lock().await;
    commit.abort();
    assert!(commit.await.unwrap_err().is_cancelled());
    holder.end(Ok(())).await.unwrap();
    assert_eq!(other.head().await.unwrap(), head);
    commit_notes(&store, 3).await;
    assert_eq!(other.head().await.unwrap().seq, head.seq + 3);
}

#[tokio::test]
async fn a_commit_waits_for_the_lock_no_longer_than_allowed() {
    let mut server = Server::new();
    server.config.limits.lock_timeout_ms = 100;
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "demo"), 1).await;
    let batch = note_batch(&*store, 1).await;
    let holder = server.hold_standing().await;
    let error = timeout(PATIENCE, store.commit(batch)).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("lock timeout"), "{error}");
    holder.end(Ok(())).await.unwrap();
    commit_notes(&store, 1).await;
}

impl Server {
    /// A transaction that holds the lock under which the tenant `demo` commits.
    async fn hold_standing(&self) -> crate::database::Transaction {
        let (names, roles) = (self.names("demo"), self.roles());
        let connections = crate::database::Database::new(self.config.clone());
        let tenant = crate::tenant::OpenTenant::new(connections, names, roles);
        tenant.write(crate::database::Pace::Hot).await.unwrap().transaction
    }
}

//! The hot path's statements look rows up by index, whatever the statistics say.

use farshore_store::conformance::{commit_notes, sample_tenant_named};
use farshore_store::sync::{PageRequest, ScopeRead};

use super::*;

/// Rows of the table before a commit is watched.
const ROWS: u16 = 5_000;

#[tokio::test]
async fn a_commit_reads_no_whole_table() {
    let server = Server::new();
    let (catalog, authority) = server.catalog().await;
    let store = sample_tenant_named(&catalog, &scope(&authority, "demo"), ROWS).await;
    // Once with statistics from when the table was small, and once with those of now.
    for analyse in ["SELECT 1", "ANALYZE tenant_demo.changes"] {
        server.run(analyse);
        let scans = "SELECT sum(seq_tup_read) FROM pg_stat_user_tables \
            WHERE schemaname = 'tenant_demo' AND relname <> 'standing'";
        let before = settled(&server, scans).await;
        commit_notes(&store, 100).await;
        let scopes = vec![ScopeRead::from_checkpoint(
            "tenant".parse().unwrap(),
            store.head().await.unwrap().seq - 50,
        )];
        let request = PageRequest { scopes, target_bytes: 1 << 20, max_rows: 1_000 };
        assert_eq!(store.page(request).await.unwrap().rows.len(), 50);
        let read = settled(&server, scans).await - before;
        assert!(read < u64::from(ROWS), "{read} rows read one after another; {analyse}");
    }
}

/// What the statistics say once every connection has reported its own, which ends it.
async fn settled(server: &Server, query: &str) -> u64 {
    let ended = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity \
        WHERE pid <> pg_backend_pid() AND usename = current_user";
    server.database.run_as_owner(ended).unwrap();
    server.run(query).parse().unwrap()
}

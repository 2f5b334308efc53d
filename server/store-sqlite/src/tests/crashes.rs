//! What a crash leaves is finished or thrown away by the next start; what was acknowledged is there.

use std::fs;

use farshore_store::catalog::{Catalog as _, CatalogError};
use farshore_store::conformance::{commit_notes, sample_tenant};

use super::{Disk, after_a_crash, copy_files, process, raw_connection, scope};

#[tokio::test]
async fn every_acknowledged_commit_survives() {
    let disk = Disk::new();
    let store = sample_tenant(&disk, 2).await;
    for commits in 1..=5 {
        commit_notes(&store, 3).await;
        let crashed = after_a_crash(&disk);
        let (catalog, authority) = crashed.catalog();
        let survivor = catalog.open(&scope(&authority, "demo")).await.unwrap();
        assert_eq!(survivor.head().await.unwrap(), store.head().await.unwrap());
        assert_eq!(survivor.head().await.unwrap().seq, 2 + 3 * commits);
        assert_eq!(survivor.scrub().await.unwrap(), []);
        commit_notes(&survivor, 1).await;
    }
}

#[tokio::test]
async fn a_torn_end_of_the_log_loses_the_last_commit_whole() {
    let disk = Disk::without_journal();
    let store = sample_tenant(&disk, 2).await;
    let before = store.head().await.unwrap();
    let log_before = fs::metadata(disk.tenants().join("demo.db-wal")).unwrap().len();
    commit_notes(&store, 50).await;
    let log = fs::read(disk.tenants().join("demo.db-wal")).unwrap();
    let (log_before, log_after) = (log_before as usize, log.len());
    for length in (log_before..log_after).step_by(1_777) {
        let crashed = after_a_crash(&disk);
        fs::write(crashed.tenants().join("demo.db-wal"), &log[..length]).unwrap();
        let (catalog, authority) = crashed.catalog();
        let survivor = catalog.open(&scope(&authority, "demo")).await.unwrap();
        assert_eq!(survivor.head().await.unwrap(), before, "{length} of {log_after} bytes");
        assert_eq!(survivor.scrub().await.unwrap(), []);
    }
}

#[test]
fn a_creation_without_its_key_is_thrown_away() {
    let disk = Disk::new();
    let names = process(async {
        let (catalog, authority) = disk.catalog();
        fs::write(disk.tenants().join("demo.db.creating"), b"half a database").unwrap();
        fs::write(disk.tenants().join("demo.db.creating-wal"), b"half a log").unwrap();
        let scope = scope(&authority, "demo");
        let opened = catalog.open(&scope).await;
        assert!(matches!(opened, Err(CatalogError::UnknownTenant { .. })));
        assert_eq!(catalog.tenants().await.unwrap(), []);
        catalog.create(&scope, 0).await.unwrap().begin_epoch(3).await.unwrap();
        catalog.tenants().await.unwrap()
    });
    assert_eq!(names.len(), 1);
    assert_eq!(disk.files(), ["demo.db", "demo.key"]);
}

#[test]
fn a_creation_with_its_key_is_finished() {
    let disk = Disk::new();
    process(sample_tenant(&disk, 3));
    let database = disk.tenants().join("demo.db");
    fs::rename(&database, disk.tenants().join("demo.db.creating")).unwrap();
    process(async {
        let (catalog, authority) = disk.catalog();
        let scope = scope(&authority, "demo");
        let created = catalog.create(&scope, 0).await;
        assert!(matches!(created, Err(CatalogError::TenantExists { .. })));
        let store = catalog.open(&scope).await.unwrap();
        assert_eq!(store.head().await.unwrap().seq, 3);
    });
    assert_eq!(disk.files(), ["demo.db", "demo.key"]);
}

#[test]
fn an_erasure_that_was_begun_is_finished() {
    for left in [&["demo.key", "demo.db"][..], &["demo.db"], &[]] {
        let disk = Disk::new();
        process(sample_tenant(&disk, 3));
        fs::write(disk.tenants().join("demo.erased"), b"").unwrap();
        for name in ["demo.key", "demo.db"].iter().filter(|name| !left.contains(name)) {
            fs::remove_file(disk.tenants().join(name)).unwrap();
        }
        let (catalog, authority) = disk.catalog();
        assert_eq!(disk.files(), ["demo.erased"]);
        let opened = process(async { catalog.open(&scope(&authority, "demo")).await.map(drop) });
        assert!(matches!(opened, Err(CatalogError::Erased { .. })));
    }
}

/// Each step of a copy that takes a tenant's place may be the last one.
#[test]
fn a_copy_that_was_taking_its_place_does_so_whole_or_not_at_all() {
    let copied = Disk::new();
    process(async {
        let store = sample_tenant(&copied, 3).await;
        commit_notes(&store, 4).await;
    });
    let seq_of = |disk: &Disk| {
        process(async {
            let (catalog, authority) = disk.catalog();
            let store = catalog.open(&scope(&authority, "demo")).await.unwrap();
            assert_eq!(store.scrub().await.unwrap(), []);
            store.head().await.unwrap().seq
        })
    };
    assert_eq!(seq_of(&copied), 7);
    // The same tenant, further on, whose log was not moved into its file.
    let before = Disk::new();
    copy_files(&copied.config.data_dir, &before.config.data_dir);
    // A copy that arrives is a file of its own.
    raw_connection(&copied).execute_batch("UPDATE standing SET file = randomblob(16)").unwrap();
    let crashed = process(async {
        let (catalog, authority) = before.catalog();
        let store = catalog.open(&scope(&authority, "demo")).await.unwrap();
        commit_notes(&store, 10).await;
        after_a_crash(&before)
    });
    let tenants = crashed.tenants();
    assert!(crashed.files().contains(&"demo.db-wal".to_owned()), "the log is of the one before");
    let arrived = fs::read(copied.tenants().join("demo.db")).unwrap();

    fs::write(tenants.join("demo.db.arriving"), &arrived[..arrived.len() / 2]).unwrap();
    assert_eq!(seq_of(&after_a_crash(&crashed)), 17, "it has not arrived");
    fs::remove_file(tenants.join("demo.db.arriving")).unwrap();
    fs::write(tenants.join("demo.db.creating"), &arrived).unwrap();
    assert_eq!(seq_of(&after_a_crash(&crashed)), 17, "the one before is still there");
    fs::rename(tenants.join("demo.db"), tenants.join("demo.db.replaced")).unwrap();
    let last = after_a_crash(&crashed);
    assert_eq!(seq_of(&last), 7, "it has taken the place, without the log of the one before");
    assert_eq!(last.files(), ["demo.db", "demo.key"]);
}

#[test]
fn what_a_move_left_behind_is_removed() {
    let disk = Disk::new();
    process(sample_tenant(&disk, 3));
    fs::write(disk.tenants().join("demo.place"), "east\n\n\n").unwrap();
    process(async {
        let (catalog, authority) = disk.catalog();
        let elsewhere = catalog.open(&scope(&authority, "demo")).await.map(drop);
        assert!(matches!(elsewhere, Err(CatalogError::Elsewhere { .. })), "{elsewhere:?}");
        assert_eq!(catalog.tenants().await.unwrap().len(), 1, "it is registered here");
    });
    assert_eq!(disk.files(), ["demo.place"]);
    fs::write(disk.tenants().join("demo.place"), "no such place").unwrap();
    process(async {
        let config = disk.config.clone();
        let opened = crate::SqliteCatalog::open(config, disk.master.clone()).map(drop);
        let error = opened.unwrap_err().to_string();
        assert!(error.contains("it names no place"), "{error}");
    });
}

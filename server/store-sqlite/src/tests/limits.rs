//! A full disk, reads beside a commit, and reads beside each other.

use std::sync::Arc;
use std::sync::mpsc;

use farshore_store::StoreError;
use farshore_store::catalog::Catalog as _;
use farshore_store::conformance::{commit_notes, note_batch, sample_tenant};
use farshore_store::sync::SyncStore as _;

use super::{Disk, process, scope};
use crate::tenant::{OpenTenant, SqliteTenant};

/// The tenant `demo` of a disk, with what is behind the trait.
async fn demo(disk: &Disk) -> SqliteTenant {
    let key = disk.tenants().join("demo.key");
    let tenant = "demo".parse().unwrap();
    let key = crate::data_key::DataKey::load(&key, &disk.master, &tenant).unwrap().unwrap();
    let config = Arc::new(disk.config.clone());
    let open = OpenTenant::open(disk.tenants().join("demo.db"), key, config, None).unwrap();
    SqliteTenant(Arc::new(open))
}

#[tokio::test]
async fn a_full_disk_has_a_name_and_keeps_nothing_of_the_commit() {
    let disk = Disk::new();
    sample_tenant(&disk, 3).await;
    let store = demo(&disk).await;
    let set_pages = |pages: u32| {
        store.write("limit the file", move |_, transaction| {
            transaction.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
            Ok(())
        })
    };
    set_pages(1).await.unwrap();
    let before = store.head().await.unwrap();
    let error = store.commit(note_batch(&store, 2_000).await).await.unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { operation: "commit" }), "{error}");
    assert_eq!(store.head().await.unwrap(), before);
    set_pages(100_000).await.unwrap();
    assert_eq!(
        store.commit(note_batch(&store, 2_000).await).await.unwrap().seq,
        before.seq + 2_000
    );
    assert_eq!(store.scrub().await.unwrap(), []);
}

#[tokio::test]
async fn reads_do_not_wait_for_a_commit() {
    let disk = Disk::new();
    sample_tenant(&disk, 3).await;
    let store = Arc::new(demo(&disk).await);
    let (entered, has_entered) = tokio::sync::oneshot::channel();
    let (finish, may_finish) = mpsc::channel::<()>();
    let writer = Arc::clone(&store);
    let commit = tokio::spawn(async move {
        let long = writer.write("hold the writer", move |_, transaction| {
            transaction.execute("UPDATE standing SET seq = 99", [])?;
            entered.send(()).unwrap();
            may_finish.recv().unwrap();
            Ok(())
        });
        long.await.unwrap();
    });
    has_entered.await.unwrap();
    // More reads than there are readers: they take turns.
    let reads: Vec<_> = (0..20)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.head().await.unwrap().seq })
        })
        .collect();
    for read in reads {
        assert_eq!(read.await.unwrap(), 3, "the commit is not there yet");
    }
    finish.send(()).unwrap();
    commit.await.unwrap();
    assert_eq!(store.head().await.unwrap().seq, 99);
}

/// Opening a connection costs more than a read.
#[cfg(target_os = "linux")]
#[test]
fn one_reader_serves_reads_that_follow_each_other() {
    let disk = Disk::new();
    process(sample_tenant(&disk, 3));
    process(async {
        let store = demo(&disk).await;
        let open_files = || super::open_files(disk.folder.path(), "demo");
        assert_eq!(open_files(), 3, "the writer has the database, its log and the log's index");
        for _ in 0..10 {
            store.head().await.unwrap();
            assert_eq!(open_files(), 5, "a reader has the database and its log");
        }
    });
}

#[tokio::test]
async fn a_commit_that_changes_nothing_writes_nothing() {
    let disk = Disk::new();
    let (catalog, authority) = disk.catalog();
    let store = sample_tenant(&disk, 0).await;
    let batch = note_batch(&*store, 5).await;
    store.commit(batch.clone()).await.unwrap();
    let log = disk.tenants().join("demo.db-wal");
    let written = async || {
        // A read ends the transaction that commits may share.
        store.head().await.unwrap();
        std::fs::metadata(&log).unwrap().len()
    };
    let before = written().await;
    store.commit(batch).await.unwrap();
    assert_eq!(written().await, before);
    commit_notes(&store, 1).await;
    assert!(written().await > before);
    drop(catalog.open(&scope(&authority, "demo")).await.unwrap());
}

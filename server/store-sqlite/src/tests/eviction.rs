//! More tenants than may be open.

use std::num::NonZeroUsize;

use farshore_store::catalog::Catalog as _;
use farshore_store::conformance::{commit_notes, sample_tenant_named};
use tokio::task::JoinSet;

use super::{Disk, scope};

const TENANTS: u16 = 10;

fn small() -> Disk {
    let mut disk = Disk::new();
    disk.config.max_open_tenants = NonZeroUsize::new(2).unwrap();
    disk
}

fn name(number: u16) -> String {
    format!("tenant-{number}")
}

#[tokio::test]
async fn tenants_close_and_open_again() {
    let disk = small();
    let (catalog, authority) = disk.catalog();
    for number in 0..TENANTS {
        sample_tenant_named(&catalog, &scope(&authority, &name(number)), number).await;
    }
    for round in 1..=3 {
        for number in 0..TENANTS {
            let store = catalog.open(&scope(&authority, &name(number))).await.unwrap();
            commit_notes(&store, 1).await;
            assert_eq!(store.head().await.unwrap().seq, u64::from(number + round));
        }
    }
}

#[tokio::test]
async fn handles_outlive_their_eviction_and_stay_one_store() {
    let disk = small();
    let (catalog, authority) = disk.catalog();
    let mut handles = Vec::new();
    for number in 0..TENANTS {
        let scope = scope(&authority, &name(number));
        handles.push(sample_tenant_named(&catalog, &scope, 1).await);
    }
    for (number, handle) in (0..TENANTS).zip(&handles) {
        commit_notes(handle, 1).await;
        let again = catalog.open(&scope(&authority, &name(number))).await.unwrap();
        assert_eq!(again.head().await.unwrap().seq, 2);
        commit_notes(&again, 1).await;
        assert_eq!(handle.head().await.unwrap().seq, 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_open_many_tenants_at_once() {
    let disk = small();
    let (catalog, authority) = disk.catalog();
    for number in 0..TENANTS {
        sample_tenant_named(&catalog, &scope(&authority, &name(number)), 0).await;
    }
    let mut tasks = JoinSet::new();
    for task in 0..4 * TENANTS {
        let catalog = catalog.clone();
        let scope = scope(&authority, &name(task % TENANTS));
        tasks.spawn(async move {
            for _ in 0..5 {
                let store = catalog.open(&scope).await.unwrap();
                commit_notes(&store, 1).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for number in 0..TENANTS {
        let store = catalog.open(&scope(&authority, &name(number))).await.unwrap();
        assert_eq!(store.head().await.unwrap().seq, 20);
        assert_eq!(store.scrub().await.unwrap(), []);
    }
}

/// An evicted tenant that nobody uses holds no file open.
#[cfg(target_os = "linux")]
#[test]
fn evicted_tenants_give_their_descriptors_back() {
    let disk = small();
    let open_files = || super::open_files(disk.folder.path(), "tenant-");
    super::process(async {
        let (catalog, authority) = disk.catalog();
        for number in 0..TENANTS {
            let store = sample_tenant_named(&catalog, &scope(&authority, &name(number)), 1).await;
            store.head().await.unwrap();
        }
        // Two tenants with the database and its log for the writer and one reader each, and the log's index.
        assert_eq!(open_files(), 2 * (3 + 2));
    });
    assert_eq!(open_files(), 0);
}

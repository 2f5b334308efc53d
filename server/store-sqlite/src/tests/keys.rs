//! The master key, the tenants' keys, and erasure.

use std::fs;

use farshore_store::StoreError;
use farshore_store::catalog::{Catalog as _, CatalogError};

use super::{Disk, master_key, scope};
use crate::SqliteCatalog;

#[tokio::test]
async fn another_master_key_is_told_at_the_start_and_changes_nothing() {
    let mut disk = Disk::new();
    let (catalog, authority) = disk.catalog();
    catalog.create(&scope(&authority, "demo"), 0).await.unwrap();
    drop(catalog);
    disk.master = master_key(2);
    let error = SqliteCatalog::open(disk.config.clone(), disk.master.clone()).unwrap_err();
    assert!(matches!(error, CatalogError::WrongMasterKey { .. }), "{error}");
    disk.master = master_key(1);
    let (catalog, authority) = disk.catalog();
    catalog.open(&scope(&authority, "demo")).await.unwrap();
}

#[tokio::test]
async fn a_tenant_of_another_master_key_is_told_by_name() {
    let (mut left, right) = (Disk::new(), Disk::new());
    left.master = master_key(2);
    let (catalog, authority) = left.catalog();
    catalog.create(&scope(&authority, "demo"), 0).await.unwrap();
    let (catalog, authority) = right.catalog();
    for name in ["demo.key", "demo.db"] {
        fs::copy(left.tenants().join(name), right.tenants().join(name)).unwrap();
    }
    let Err(error) = catalog.open(&scope(&authority, "demo")).await else { panic!("it opened") };
    assert!(error.to_string().contains("demo.key"), "{error}");
    assert!(matches!(error, CatalogError::WrongMasterKey { .. }), "{error}");
}

#[tokio::test]
async fn the_key_of_one_tenant_does_not_open_another() {
    let disk = Disk::new();
    let (catalog, authority) = disk.catalog();
    for name in ["left", "right"] {
        catalog.create(&scope(&authority, name), 0).await.unwrap();
    }
    drop(catalog);
    fs::copy(disk.tenants().join("left.key"), disk.tenants().join("right.key")).unwrap();
    let (catalog, authority) = disk.catalog();
    let opened = catalog.open(&scope(&authority, "right")).await;
    assert!(matches!(opened, Err(CatalogError::Store(StoreError::Damaged { .. }))));
    fs::copy(disk.tenants().join("left.db"), disk.tenants().join("right.db")).unwrap();
    let opened = catalog.open(&scope(&authority, "right")).await;
    assert!(opened.is_err(), "the key is sealed for its tenant");
}

#[tokio::test]
async fn erasing_leaves_a_marker_and_nothing_else() {
    let disk = Disk::new();
    let (catalog, authority) = disk.catalog();
    let store = catalog.create(&scope(&authority, "demo"), 0).await.unwrap();
    store.begin_epoch(1).await.unwrap();
    catalog.erase(&scope(&authority, "demo")).await.unwrap();
    assert_eq!(disk.files(), ["demo.erased"]);
    drop((store, catalog));
    let (catalog, authority) = disk.catalog();
    let created = catalog.create(&scope(&authority, "demo"), 0).await;
    assert!(matches!(created, Err(CatalogError::Erased { .. })));
    assert_eq!(disk.files(), ["demo.erased"]);
}

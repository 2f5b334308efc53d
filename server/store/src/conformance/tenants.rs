//! Tenants come, open and go, and never see each other.

use super::Storage;
use super::fixture::{Device, sample_store_of, scope_of};
use super::reader::Reader;
use super::sample::{NOW_MS, insert_note, note, schema};
use crate::StoreError;
use crate::catalog::CatalogError;

/// A created tenant is listed and opens.
pub async fn a_created_tenant_opens(storage: &dyn Storage) {
    let (catalog, authority) = storage.open().await;
    assert_eq!(catalog.tenants().await.unwrap(), []);
    for name in ["bravo", "alpha"] {
        catalog.create(&scope_of(&authority, name), NOW_MS).await.unwrap();
    }
    let names: Vec<_> = catalog.tenants().await.unwrap().into_iter().map(String::from).collect();
    assert_eq!(names, ["alpha", "bravo"]);
    let store = catalog.open(&scope_of(&authority, "alpha")).await.unwrap();
    let head = store.head().await.unwrap();
    assert_eq!((head.seq, head.horizon), (0, 0));
    assert_ne!(head.epoch, 0);
}

/// A tenant that was never created does not open and cannot be erased.
pub async fn an_unknown_tenant_does_not_open(storage: &dyn Storage) {
    let (catalog, authority) = storage.open().await;
    let scope = scope_of(&authority, "nobody");
    assert!(matches!(catalog.open(&scope).await, Err(CatalogError::UnknownTenant { .. })));
    assert!(matches!(catalog.erase(&scope).await, Err(CatalogError::UnknownTenant { .. })));
    assert_eq!(catalog.tenants().await.unwrap(), [], "looking for a tenant makes none");
}

/// Creating a tenant again is refused and harms nothing.
pub async fn a_tenant_is_created_once(storage: &dyn Storage) {
    let (catalog, authority) = storage.open().await;
    let scope = scope_of(&authority, "demo");
    let store = sample_store_of(&*catalog, &scope).await;
    let again = catalog.create(&scope, NOW_MS).await;
    assert!(matches!(again, Err(CatalogError::TenantExists { .. })));
    assert_eq!(store.schema().await.unwrap().as_deref(), Some(&schema()));
}

/// An erased tenant does not open, its handles stop, and its id is not used again.
pub async fn an_erased_tenant_is_gone_for_good(storage: &dyn Storage) {
    let (catalog, authority) = storage.open().await;
    let scope = scope_of(&authority, "demo");
    let store = sample_store_of(&*catalog, &scope).await;
    Device::new(1).commit(&store, [insert_note(1, "here")]).await;
    catalog.erase(&scope).await.unwrap();
    assert!(matches!(store.head().await, Err(StoreError::Erased)), "a handle stops reading");
    assert!(matches!(store.purge(0).await, Err(StoreError::Erased)), "a handle stops writing");
    assert!(matches!(catalog.open(&scope).await, Err(CatalogError::Erased { .. })));
    assert!(matches!(catalog.create(&scope, NOW_MS).await, Err(CatalogError::Erased { .. })));
    assert_eq!(catalog.tenants().await.unwrap(), []);
    catalog.erase(&scope).await.unwrap();
}

/// Two tenants share nothing: neither rows nor schema nor order nor digest key.
pub async fn tenants_never_see_each_other(storage: &dyn Storage) {
    let (catalog, authority) = storage.open().await;
    let left = sample_store_of(&*catalog, &scope_of(&authority, "left")).await;
    let right = sample_store_of(&*catalog, &scope_of(&authority, "right")).await;
    Device::new(1).commit(&left, [insert_note(1, "left")]).await;
    assert_eq!(right.head().await.unwrap().seq, 0);
    assert!(Reader::everything(&right).await.rows.is_empty());
    let progress = right.device_progress(Device::new(1).id).await.unwrap();
    assert_eq!(progress.high_water, 0);
    assert_ne!(left.digest_key().await.unwrap(), right.digest_key().await.unwrap());
    Device::new(1).commit(&right, [insert_note(1, "right")]).await;
    let (left, right) = (Reader::everything(&left).await, Reader::everything(&right).await);
    assert_ne!(left.rows[&note(1)].state, right.rows[&note(1)].state);
}

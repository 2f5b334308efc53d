//! What holds of a tenant while it is being moved.

use std::num::NonZeroUsize;

use farshore_store::placement::MoveToken;
use farshore_store_sqlite::SqliteConfig;

use super::*;

#[tokio::test]
async fn a_tenant_that_is_being_moved_is_neither_erased_nor_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let config = SqliteConfig {
        data_dir: dir.path().to_owned(),
        max_open_tenants: NonZeroUsize::MIN,
        readers_per_tenant: NonZeroUsize::MIN,
        writer_cache_kib: 64,
        reader_cache_kib: 64,
        checkpoint_after_pages: 100,
        busy_timeout_ms: 100,
    };
    let master_key = MasterKey::generate().unwrap();
    let (home, authority) = SqliteCatalog::open(config, master_key.clone()).unwrap();
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

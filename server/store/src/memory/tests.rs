//! The memory store passes the suite and does what the simulator needs.

use std::sync::Arc;

use async_trait::async_trait;

use super::MemoryCatalog;
use crate::catalog::Catalog;
use crate::conformance::Storage;
use crate::scope::ScopeAuthority;

/// A platform in memory, which outlives its handles.
struct Memory(Arc<MemoryCatalog>);

impl Memory {
    fn new() -> Self {
        Self(Arc::new(MemoryCatalog::open(7).0))
    }
}

#[async_trait]
impl Storage for Memory {
    async fn open(&self) -> (Arc<dyn Catalog>, ScopeAuthority) {
        (Arc::<MemoryCatalog>::clone(&self.0), ScopeAuthority::for_new_catalog())
    }
}

crate::conformance_suite!(Memory::new());

#[tokio::test]
async fn a_backup_stays_as_it_was() {
    let (catalog, authority) = MemoryCatalog::open(7);
    let scope = authority.scope("demo".parse().unwrap());
    let store = catalog.create(&scope, 0).await.unwrap();
    let backup = catalog.backup();
    let epoch = store.begin_epoch(1).await.unwrap();
    let restored = backup.open(&scope).await.unwrap();
    assert_ne!(restored.head().await.unwrap().epoch, epoch);
    assert_eq!(restored.digest_key().await.unwrap(), store.digest_key().await.unwrap());
}

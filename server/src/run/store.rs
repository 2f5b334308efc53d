//! The store that the configuration describes.

use std::sync::Arc;

use farshore_store::catalog::{Catalog, CatalogError};
use farshore_store::scope::ScopeAuthority;
use farshore_store::sealing::MasterKey;
use farshore_store_sqlite::{SqliteCatalog, SqliteConfig};

use crate::config::StoreConfig;

/// Opens the embedded store.
///
/// # Errors
/// What the store says.
pub fn open(
    config: &StoreConfig,
    master_key: &MasterKey,
) -> Result<(Arc<dyn Catalog>, ScopeAuthority), CatalogError> {
    let sqlite = SqliteConfig {
        data_dir: config.data_dir.clone(),
        max_open_tenants: config.max_open_tenants,
        readers_per_tenant: config.readers_per_tenant,
        writer_cache_kib: config.writer_cache_kib,
        reader_cache_kib: config.reader_cache_kib,
        checkpoint_after_pages: config.checkpoint_after_pages,
        busy_timeout_ms: config.busy_timeout_ms,
    };
    let (catalog, authority) = SqliteCatalog::open(sqlite, master_key.clone())?;
    Ok((Arc::new(catalog), authority))
}

//! The store that the configuration describes.

use std::path::PathBuf;
use std::sync::Arc;

use farshore_store::catalog::CatalogError;
use farshore_store::scope::ScopeAuthority;
use farshore_store::sealing::MasterKey;
use farshore_store_postgres::{OpenError, PostgresCatalog};
use farshore_store_sqlite::{SqliteCatalog, SqliteConfig};

use crate::config::{StoreConfig, StoreKind};
use crate::placement::{Home, PlacedCatalog};

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// The data directory is not as it must be.
    #[error("{}: {source}", data_dir.display())]
    Sqlite {
        /// The directory.
        data_dir: PathBuf,
        /// Why.
        source: CatalogError,
    },
    /// The database is not as it must be.
    #[error(transparent)]
    Postgres(#[from] OpenError),
}

/// Opens the store.
///
/// # Errors
/// What the store says.
pub async fn open(
    config: &StoreConfig,
    master_key: &MasterKey,
) -> Result<(PlacedCatalog, ScopeAuthority), StoreOpenError> {
    let (home, authority) = match &config.kind {
        StoreKind::Sqlite => open_sqlite(config, master_key)?,
        StoreKind::Postgres(postgres) => {
            let (catalog, authority) = PostgresCatalog::open(postgres.clone(), master_key).await?;
            (Arc::new(catalog) as Arc<dyn Home>, authority)
        }
    };
    Ok((PlacedCatalog::new(home, master_key.clone(), config.postgres), authority))
}

fn open_sqlite(
    config: &StoreConfig,
    master_key: &MasterKey,
) -> Result<(Arc<dyn Home>, ScopeAuthority), StoreOpenError> {
    let sqlite = SqliteConfig {
        data_dir: config.data_dir.clone(),
        max_open_tenants: config.max_open_tenants,
        readers_per_tenant: config.readers_per_tenant,
        writer_cache_kib: config.writer_cache_kib,
        reader_cache_kib: config.reader_cache_kib,
        checkpoint_after_pages: config.checkpoint_after_pages,
        busy_timeout_ms: config.busy_timeout_ms,
        journal: config.journal,
        journal_bytes: config.journal_mib << 20,
    };
    let opened = SqliteCatalog::open(sqlite, master_key.clone());
    let (catalog, authority) = opened.map_err(|source| {
        let data_dir = config.data_dir.clone();
        StoreOpenError::Sqlite { data_dir, source }
    })?;
    Ok((Arc::new(catalog), authority))
}

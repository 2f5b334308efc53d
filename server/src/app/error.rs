//! What can happen on the way to a tenant's store.

use farshore_store::StoreError;
use farshore_store::catalog::CatalogError;
use farshore_sync_core::ids::TenantId;

/// Why a tenant's store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// There is no such tenant.
    #[error("there is no tenant {tenant}")]
    UnknownTenant {
        /// The tenant asked for.
        tenant: TenantId,
    },
    /// The tenant's key was destroyed, and with it its data.
    #[error("the tenant {tenant} was erased")]
    Erased {
        /// The tenant asked for.
        tenant: TenantId,
    },
    /// The disk is full.
    #[error("the server's disk is full")]
    DiskFull,
    /// The tenant takes no writes for a while.
    #[error("the tenant is being moved and takes no writes until that is done; try again later")]
    Moving,
    /// The store failed. Its words are for the log.
    #[error("the store failed: {0}")]
    Failed(CatalogError),
}

impl From<CatalogError> for AccessError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::UnknownTenant { tenant } => Self::UnknownTenant { tenant },
            CatalogError::Erased { tenant } => Self::Erased { tenant },
            CatalogError::Store(StoreError::DiskFull { .. }) => Self::DiskFull,
            CatalogError::Store(StoreError::Frozen) => Self::Moving,
            CatalogError::TenantExists { .. }
            | CatalogError::Elsewhere { .. }
            | CatalogError::WrongMasterKey { .. }
            | CatalogError::Store(_) => Self::Failed(error),
        }
    }
}

impl From<StoreError> for AccessError {
    fn from(error: StoreError) -> Self {
        CatalogError::Store(error).into()
    }
}

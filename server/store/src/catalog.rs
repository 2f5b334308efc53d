//! The tenants of a platform and the way to each one's store.

use async_trait::async_trait;
use farshore_sync_core::ids::TenantId;

use crate::copy::{Arrival, Arriving};
use crate::placement::ClusterName;
use crate::scope::TenantScope;
use crate::{SharedTenantStore, StoreError};

/// Why a tenant's store could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is no such tenant.
    #[error("there is no tenant {tenant}")]
    UnknownTenant {
        /// The tenant asked for.
        tenant: TenantId,
    },
    /// There is one already.
    #[error("the tenant {tenant} exists already")]
    TenantExists {
        /// The tenant to be created.
        tenant: TenantId,
    },
    /// The tenant's key was destroyed: its data cannot be read by anybody.
    #[error("the tenant {tenant} was erased")]
    Erased {
        /// The tenant asked for.
        tenant: TenantId,
    },
    /// The tenant is in another cluster of databases.
    #[error("the tenant {tenant} is in the cluster {cluster}")]
    Elsewhere {
        /// The tenant asked for.
        tenant: TenantId,
        /// Where it is.
        cluster: ClusterName,
    },
    /// The master key does not open what it should.
    #[error(
        "the master key does not fit {what}; start with the key that this data was created with"
    )]
    WrongMasterKey {
        /// What it did not open.
        what: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The tenants of a platform.
#[async_trait]
pub trait Catalog: Send + Sync {
    /// Creates a tenant with an empty store of its own.
    async fn create(
        &self,
        scope: &TenantScope,
        now_ms: u64,
    ) -> Result<SharedTenantStore, CatalogError>;

    /// The store of a tenant.
    async fn open(&self, scope: &TenantScope) -> Result<SharedTenantStore, CatalogError>;

    /// Destroys the tenant: where the store encrypts, its key first and its data after that, so that what a backup
    /// holds is unreadable too. Where it does not, as on Postgres, backups have to be deleted by themselves.
    async fn erase(&self, scope: &TenantScope) -> Result<(), CatalogError>;

    /// Begins to take a copy in, beside whatever is there of the tenant. Of two copies for one tenant the one that
    /// began last counts, and the other one fails with [`StoreError::PushedAside`].
    async fn receive(
        &self,
        scope: &TenantScope,
        arriving: Arriving,
    ) -> Result<Box<dyn Arrival>, CatalogError>;

    /// Drops what is here of a tenant that is elsewhere now, without erasing it: it may come back.
    async fn release(&self, scope: &TenantScope) -> Result<(), CatalogError>;

    /// Every tenant, sorted, erased ones left out.
    async fn tenants(&self) -> Result<Vec<TenantId>, CatalogError>;
}

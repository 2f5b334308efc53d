//! Tenants in several databases: at home, in the one that the server was started with, or in clusters of Postgres.
//!
//! - [`PlacedCatalog`]: the tenants of all of them as one catalog.
//! - `clusters`: the pools of the clusters, with credentials that are read anew now and then.
//! - `moving`: a tenant on its way from one to another; `carrying`: its copy, pass by pass.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use farshore_store::catalog::{Catalog, CatalogError};
use farshore_store::copy::{Arrival, Arriving};
use farshore_store::placement::{ClusterName, Place, Placement, Registry, RegistryError};
use farshore_store::scope::TenantScope;
use farshore_store::sealing::MasterKey;
use farshore_store::{SharedTenantStore, StoreError};
use farshore_store_postgres::{PoolFigures, PostgresCatalog, PostgresLimits};
use farshore_store_sqlite::SqliteCatalog;
use farshore_sync_core::ids::TenantId;
use lru::LruCache;

mod carrying;
mod clusters;
mod moving;

pub use carrying::{Phase, Progress};
pub use clusters::{AddClusterError, ClusterView, MAX_CONNECTIONS_PER_CLUSTER};
pub use moving::{MoveError, Moved};

use clusters::{Clusters, Keeping};

/// Tenants whose cluster is remembered.
const PLACES_REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

/// The database that the server was started with: its own tenants, and where all others are.
pub trait Home: Catalog + Registry {
    /// How its connections are used, where it has a pool of them.
    fn pool_figures(&self) -> Option<PoolFigures>;
}

impl Home for SqliteCatalog {
    fn pool_figures(&self) -> Option<PoolFigures> {
        None
    }
}

impl Home for PostgresCatalog {
    fn pool_figures(&self) -> Option<PoolFigures> {
        Some(Self::pool_figures(self))
    }
}

/// The tenants at home and in all clusters.
pub struct PlacedCatalog {
    home: Arc<dyn Home>,
    clusters: Clusters,
    /// Where tenants were found that are not at home. A cluster that does not have one any more says so.
    places: Mutex<LruCache<TenantId, ClusterName>>,
    progress: carrying::Moves,
}

impl PlacedCatalog {
    /// Home, and the clusters that it knows.
    #[must_use]
    pub fn new(home: Arc<dyn Home>, master_key: MasterKey, limits: PostgresLimits) -> Self {
        Self {
            clusters: Clusters::new(Arc::clone(&home), master_key, limits, Keeping::default()),
            home,
            places: Mutex::new(LruCache::new(PLACES_REMEMBERED)),
            progress: carrying::Moves::default(),
        }
    }

    /// The clusters.
    #[must_use]
    pub const fn clusters(&self) -> &Clusters {
        &self.clusters
    }

    /// Where a tenant is.
    ///
    /// # Errors
    /// Where there is no such tenant, or home fails.
    pub async fn placement(&self, scope: &TenantScope) -> Result<Placement, CatalogError> {
        self.home.placement(scope).await
    }

    /// Every tenant that is not at home, or is being moved.
    ///
    /// # Errors
    /// Where home fails.
    pub async fn placements(&self) -> Result<Vec<(TenantId, Placement)>, StoreError> {
        self.home.placements().await
    }

    /// How the connections to home and to each open cluster are used.
    #[must_use]
    pub fn pools(&self) -> Vec<(Place, PoolFigures)> {
        let home = self.home.pool_figures().map(|figures| (Place::Home, figures));
        home.into_iter().chain(self.clusters.pools()).collect()
    }

    /// Creates a tenant in a cluster.
    ///
    /// # Errors
    /// Where there is no such cluster, or such a tenant already; what was begun and not finished goes on.
    pub async fn create_in(
        &self,
        scope: &TenantScope,
        cluster: &ClusterName,
        now_ms: u64,
    ) -> Result<SharedTenantStore, RegistryError> {
        let catalog = self.clusters.get(cluster).await?;
        match self.home.register(scope, cluster, now_ms).await {
            // Perhaps registered by somebody who did not get further.
            Err(RegistryError::Catalog(CatalogError::TenantExists { tenant })) => {
                let at = self.home.placement(scope).await?.at;
                if at != Place::Cluster(cluster.clone()) {
                    return Err(CatalogError::TenantExists { tenant }.into());
                }
            }
            registered => registered?,
        }
        Ok(catalog.create(scope, now_ms).await?)
    }

    /// Where a tenant is. While it is moved, nobody replaces or erases it: the copy that arrives elsewhere would come in
    /// its place.
    async fn not_moving(&self, scope: &TenantScope) -> Result<Place, CatalogError> {
        match self.home.placement(scope).await? {
            Placement { at, moving_to: None } => Ok(at),
            Placement { moving_to: Some(_), .. } => Err(StoreError::Frozen.into()),
        }
    }

    /// The catalog of a place.
    async fn at(&self, place: &Place) -> Result<Arc<dyn Catalog>, RegistryError> {
        match place {
            Place::Home => Ok(Arc::<dyn Home>::clone(&self.home)),
            Place::Cluster(name) => Ok(Arc::new(self.clusters.get(name).await?)),
        }
    }

    /// The catalog of a cluster that a tenant is registered in.
    async fn cluster(&self, cluster: &ClusterName) -> Result<PostgresCatalog, CatalogError> {
        self.clusters.get(cluster).await.map_err(|error| match error {
            RegistryError::Catalog(error) => error,
            error => StoreError::database("open a cluster", error).into(),
        })
    }

    fn places(&self) -> MutexGuard<'_, LruCache<TenantId, ClusterName>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Catalog for PlacedCatalog {
    async fn create(
        &self,
        scope: &TenantScope,
        now_ms: u64,
    ) -> Result<SharedTenantStore, CatalogError> {
        self.home.create(scope, now_ms).await
    }

    async fn open(&self, scope: &TenantScope) -> Result<SharedTenantStore, CatalogError> {
        let remembered = self.places().get(scope.tenant()).cloned();
        if let Some(cluster) = remembered {
            match self.cluster(&cluster).await?.open(scope).await {
                // It was moved on, by this node or by another one.
                Err(CatalogError::UnknownTenant { tenant }) => self.places().pop(&tenant),
                opened => return opened,
            };
        }
        match self.home.open(scope).await {
            Err(CatalogError::Elsewhere { tenant, cluster }) => {
                match self.cluster(&cluster).await?.open(scope).await {
                    Err(CatalogError::UnknownTenant { .. }) => {
                        let detail = format!("{tenant} is not in {cluster}, where it should be");
                        Err(StoreError::Damaged { operation: "open a tenant", detail }.into())
                    }
                    opened => {
                        self.places().put(tenant, cluster);
                        opened
                    }
                }
            }
            opened => opened,
        }
    }

    async fn erase(&self, scope: &TenantScope) -> Result<(), CatalogError> {
        let at = match self.not_moving(scope).await {
            // Erasing again does no harm.
            Err(CatalogError::Erased { .. }) => Place::Home,
            at => at?,
        };
        if let Place::Cluster(cluster) = at {
            match self.cluster(&cluster).await?.erase(scope).await {
                Ok(()) | Err(CatalogError::UnknownTenant { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.home.erase(scope).await
    }

    async fn receive(
        &self,
        scope: &TenantScope,
        arriving: Arriving,
    ) -> Result<Box<dyn Arrival>, CatalogError> {
        if arriving == Arriving::Replacing {
            self.not_moving(scope).await?;
        }
        match (self.home.receive(scope, arriving).await, arriving) {
            (Err(CatalogError::Elsewhere { tenant, .. }), Arriving::New) => {
                Err(CatalogError::TenantExists { tenant })
            }
            (Err(CatalogError::Elsewhere { cluster, .. }), Arriving::Replacing) => {
                self.cluster(&cluster).await?.receive(scope, arriving).await
            }
            (received, _) => received,
        }
    }

    async fn release(&self, scope: &TenantScope) -> Result<(), CatalogError> {
        self.home.release(scope).await
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, CatalogError> {
        self.home.tenants().await
    }
}

impl fmt::Debug for PlacedCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlacedCatalog").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

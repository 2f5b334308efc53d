//! The clusters of Postgres databases and their pools.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farshore_store::StoreError;
use farshore_store::placement::{ClusterName, ClusterRecord, Place, RegistryError};
use farshore_store::sealing::MasterKey;
use farshore_store_postgres::{
    DatabaseUrl, DatabaseUrlError, OpenError, PoolFigures, PostgresCatalog, PostgresConfig,
    PostgresLimits,
};
use tokio::time::Instant;

use super::Home;

/// Most connections of one node to one cluster.
pub const MAX_CONNECTIONS_PER_CLUSTER: u32 = 10_000;
/// How long what is known of a cluster is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keeping {
    /// How long credentials are used before they are read anew.
    pub credentials: Duration,
    /// How long they are used further where home does not tell them.
    pub credentials_without_home: Duration,
    /// How long a pool is kept that nobody uses.
    pub idle_pools: Duration,
}

impl Default for Keeping {
    fn default() -> Self {
        Self {
            credentials: Duration::from_secs(15 * 60),
            credentials_without_home: Duration::from_secs(60),
            idle_pools: Duration::from_secs(10 * 60),
        }
    }
}

/// Why a cluster was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddClusterError {
    /// The URL is none.
    #[error("the URL of the cluster: {0}")]
    Url(#[from] DatabaseUrlError),
    /// The number of connections is none that is allowed.
    #[error(
        "{connections} connections; a node may have 1 to {MAX_CONNECTIONS_PER_CLUSTER} to a cluster"
    )]
    Connections {
        /// The number asked for.
        connections: u32,
    },
    /// The database cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Home failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A cluster as operators see it.
#[derive(Debug, Clone)]
pub struct ClusterView {
    /// Its name.
    pub name: ClusterName,
    /// Its URL without the password; none where it does not open with this master key.
    pub url: Option<String>,
    /// Most connections of one node to it.
    pub max_connections: u32,
}

/// The clusters that home knows, and the pools of those that are in use.
pub struct Clusters {
    home: Arc<dyn Home>,
    master_key: MasterKey,
    limits: PostgresLimits,
    keeping: Keeping,
    slots: Mutex<HashMap<ClusterName, Arc<Slot>>>,
}

/// The pool of a cluster, where it is open. Whoever opens it holds the lock of this cluster alone: one that does not
/// answer holds nobody up who uses another one.
type Slot = tokio::sync::Mutex<Option<OpenCluster>>;

/// A cluster with its pool.
struct OpenCluster {
    catalog: PostgresCatalog,
    sealed_url: Vec<u8>,
    max_connections: u32,
    /// When its credentials are read anew.
    check_at: Instant,
    used_at: Instant,
}

impl Clusters {
    pub(super) fn new(
        home: Arc<dyn Home>,
        master_key: MasterKey,
        limits: PostgresLimits,
        keeping: Keeping,
    ) -> Self {
        Self { home, master_key, limits, keeping, slots: Mutex::default() }
    }

    /// Adds a cluster, or changes how it is reached, once its database was found to be good.
    ///
    /// # Errors
    /// What is wrong with it; nothing was changed then.
    pub async fn add(
        &self,
        name: ClusterName,
        url: &str,
        max_connections: u32,
        now_ms: u64,
    ) -> Result<(), AddClusterError> {
        if !(1..=MAX_CONNECTIONS_PER_CLUSTER).contains(&max_connections) {
            return Err(AddClusterError::Connections { connections: max_connections });
        }
        let config = self.config(url.parse()?, max_connections);
        let (catalog, _) = PostgresCatalog::open(config, &self.master_key).await?;
        let operation = "add a cluster";
        let sealed_url = self.master_key.seal(&purpose(&name), url.as_bytes());
        let sealed_url = sealed_url.map_err(|error| StoreError::database(operation, error))?;
        let record = ClusterRecord { name, sealed_url, max_connections, added_at_ms: now_ms };
        self.home.put_cluster(&record).await?;
        let slot = self.slot(&record.name);
        *slot.lock().await = Some(self.opened(catalog, record));
        Ok(())
    }

    /// Every cluster.
    ///
    /// # Errors
    /// Where home fails.
    pub async fn list(&self) -> Result<Vec<ClusterView>, StoreError> {
        let records = self.home.clusters().await?;
        let views = records.into_iter().map(|record| ClusterView {
            url: self.url(&record).ok().map(|url| url.to_string()),
            name: record.name,
            max_connections: record.max_connections,
        });
        Ok(views.collect())
    }

    /// Forgets a cluster in which no tenant is.
    ///
    /// # Errors
    /// Where tenants are in it, or there is no such cluster.
    pub async fn remove(&self, name: &ClusterName) -> Result<(), RegistryError> {
        self.home.remove_cluster(name).await?;
        self.slots().remove(name);
        Ok(())
    }

    /// The tenants of a cluster.
    ///
    /// # Errors
    /// Where there is no such cluster, or it does not open.
    pub async fn get(&self, name: &ClusterName) -> Result<PostgresCatalog, RegistryError> {
        let slot = self.slot(name);
        let mut slot = slot.lock().await;
        let now = Instant::now();
        let Some(open) = &mut *slot else {
            return self.open(&mut slot, self.record(name).await?).await;
        };
        open.used_at = now;
        if now < open.check_at {
            return Ok(open.catalog.clone());
        }
        match self.record(name).await {
            Ok(record) if open.is_as_in(&record) => {
                open.check_at = now + self.keeping.credentials;
                Ok(open.catalog.clone())
            }
            // Whoever uses the earlier pool goes on with it to the end of what it does.
            Ok(record) => self.open(&mut slot, record).await,
            Err(RegistryError::Catalog(error)) => {
                tracing::warn!(cluster = %name, %error, "home does not tell how a cluster is reached; going on as before");
                open.check_at = now + self.keeping.credentials_without_home;
                Ok(open.catalog.clone())
            }
            Err(error) => Err(error),
        }
    }

    async fn open(
        &self,
        slot: &mut Option<OpenCluster>,
        record: ClusterRecord,
    ) -> Result<PostgresCatalog, RegistryError> {
        let operation = "open a cluster";
        let url = self.url(&record)?;
        let config = self.config(url, record.max_connections);
        let opened = PostgresCatalog::open(config, &self.master_key).await;
        let (catalog, _) = opened.map_err(|error| StoreError::database(operation, error))?;
        *slot = Some(self.opened(catalog.clone(), record));
        Ok(catalog)
    }

    /// How the connections to each open cluster are used. One that is being opened is left out.
    pub fn pools(&self) -> Vec<(Place, PoolFigures)> {
        let slots = self.slots();
        let figures = slots.iter().filter_map(|(name, slot)| {
            let slot = slot.try_lock().ok()?;
            Some((Place::Cluster(name.clone()), slot.as_ref()?.catalog.pool_figures()))
        });
        figures.collect()
    }

    /// Closes the pools that nobody has used for long.
    pub fn close_idle(&self) {
        let now = Instant::now();
        let is_used = |slot: &Slot| match slot.try_lock() {
            Ok(open) => {
                open.as_ref().is_some_and(|open| now - open.used_at < self.keeping.idle_pools)
            }
            // Somebody opens it.
            Err(_) => true,
        };
        self.slots().retain(|_, slot| is_used(slot));
    }

    fn opened(&self, catalog: PostgresCatalog, record: ClusterRecord) -> OpenCluster {
        let now = Instant::now();
        let ClusterRecord { sealed_url, max_connections, .. } = record;
        let check_at = now + self.keeping.credentials;
        OpenCluster { catalog, sealed_url, max_connections, check_at, used_at: now }
    }

    fn slot(&self, name: &ClusterName) -> Arc<Slot> {
        Arc::clone(self.slots().entry(name.clone()).or_default())
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<ClusterName, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn record(&self, name: &ClusterName) -> Result<ClusterRecord, RegistryError> {
        let records = self.home.clusters().await?;
        let record = records.into_iter().find(|record| record.name == *name);
        record.ok_or_else(|| RegistryError::UnknownCluster { cluster: name.clone() })
    }

    fn url(&self, record: &ClusterRecord) -> Result<DatabaseUrl, StoreError> {
        let operation = "open a cluster";
        let damaged = |problem: &dyn fmt::Display| StoreError::Damaged {
            operation,
            detail: format!("the URL of {}: {problem}", record.name),
        };
        let url = self.master_key.open(&purpose(&record.name), &record.sealed_url);
        let url = url.map_err(|error| damaged(&error))?;
        let url = str::from_utf8(&url).map_err(|error| damaged(&error))?;
        url.parse().map_err(|error: DatabaseUrlError| damaged(&error))
    }

    fn config(&self, url: DatabaseUrl, max_connections: u32) -> PostgresConfig {
        let max_connections = NonZeroU32::new(max_connections).unwrap_or(NonZeroU32::MIN);
        PostgresConfig { url, limits: PostgresLimits { max_connections, ..self.limits } }
    }
}

impl OpenCluster {
    /// Whether it is reached as home says. Each sealing of a URL has bytes of its own.
    fn is_as_in(&self, record: &ClusterRecord) -> bool {
        self.sealed_url == record.sealed_url && self.max_connections == record.max_connections
    }
}

impl fmt::Debug for Clusters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clusters").finish_non_exhaustive()
    }
}

fn purpose(name: &ClusterName) -> String {
    format!("cluster-url/{name}")
}

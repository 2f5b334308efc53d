//! The clusters of Postgres databases and their pools.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use farshore_store::StoreError;
use farshore_store::placement::{ClusterName, ClusterRecord, Place, RegistryError};
use farshore_store::sealing::MasterKey;
use farshore_store_postgres::{
    DatabaseUrl, DatabaseUrlError, OpenError, PoolFigures, PostgresCatalog, PostgresConfig,
    PostgresLimits,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Home;

/// Most connections of one node to one cluster.
pub const MAX_CONNECTIONS_PER_CLUSTER: u32 = 10_000;
/// How long credentials are used before they are read anew.
const CREDENTIALS_KEPT: Duration = Duration::from_secs(15 * 60);
/// How long a pool is kept that nobody uses.
const POOL_KEPT: Duration = Duration::from_secs(10 * 60);

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
    open: Mutex<HashMap<ClusterName, OpenCluster>>,
}

/// A cluster with its pool.
struct OpenCluster {
    catalog: PostgresCatalog,
    sealed_url: Vec<u8>,
    max_connections: u32,
    checked_at: Instant,
    used_at: Instant,
}

impl Clusters {
    pub(super) fn new(home: Arc<dyn Home>, master_key: MasterKey, limits: PostgresLimits) -> Self {
        Self { home, master_key, limits, open: Mutex::default() }
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
        self.open.lock().await.insert(record.name.clone(), OpenCluster::new(catalog, record));
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
        self.open.lock().await.remove(name);
        Ok(())
    }

    /// The tenants of a cluster.
    ///
    /// # Errors
    /// Where there is no such cluster, or it does not open.
    pub async fn get(&self, name: &ClusterName) -> Result<PostgresCatalog, RegistryError> {
        let mut all = self.open.lock().await;
        let now = Instant::now();
        if let Some(open) = all.get_mut(name) {
            open.used_at = now;
            if now - open.checked_at < CREDENTIALS_KEPT {
                return Ok(open.catalog.clone());
            }
        }
        let record = self.record(name).await?;
        if let Some(open) = all.get_mut(name)
            && open.sealed_url == record.sealed_url
            && open.max_connections == record.max_connections
        {
            open.checked_at = now;
            return Ok(open.catalog.clone());
        }
        let operation = "open a cluster";
        let url = self.url(&record)?;
        let config = self.config(url, record.max_connections);
        let opened = PostgresCatalog::open(config, &self.master_key).await;
        let (catalog, _) = opened.map_err(|error| StoreError::database(operation, error))?;
        // Whoever uses the earlier pool goes on with it to the end of what it does.
        all.insert(name.clone(), OpenCluster::new(catalog.clone(), record));
        Ok(catalog)
    }

    /// How the connections to each open cluster are used.
    pub async fn pools(&self) -> Vec<(Place, PoolFigures)> {
        let all = self.open.lock().await;
        let pools = all
            .iter()
            .map(|(name, open)| (Place::Cluster(name.clone()), open.catalog.pool_figures()));
        pools.collect()
    }

    /// Closes the pools that nobody has used for long.
    pub async fn close_idle(&self) {
        let now = Instant::now();
        self.open.lock().await.retain(|_, open| now - open.used_at < POOL_KEPT);
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
    fn new(catalog: PostgresCatalog, record: ClusterRecord) -> Self {
        let now = Instant::now();
        let ClusterRecord { sealed_url, max_connections, .. } = record;
        Self { catalog, sealed_url, max_connections, checked_at: now, used_at: now }
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

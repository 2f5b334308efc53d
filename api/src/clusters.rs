//! Clusters of Postgres databases, and where tenants are.

use farshore_sync_core::ids::TenantId;
use serde::{Deserialize, Serialize};

/// `POST /v1/admin/clusters`
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddCluster {
    /// Its name: 1 to 40 of a-z, 0-9 and -, and not `home`.
    pub name: String,
    /// Its URL, with credentials.
    pub url: String,
    /// Most connections of one node to it.
    pub max_connections: u32,
}

impl std::fmt::Debug for AddCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddCluster").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Its URL without the password; none where the server's master key does not open it.
    pub url: Option<String>,
    /// Most connections of one node to it.
    pub max_connections: u32,
}

/// `GET /v1/admin/clusters`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterList {
    /// All clusters, by name.
    pub clusters: Vec<Cluster>,
}

/// `POST /v1/admin/tenants/{tenant}/move`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveTenant {
    /// `home`, or the name of a cluster.
    pub to: String,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedTenant {
    /// Where the tenant was.
    pub from: String,
    /// Where it is.
    pub to: String,
    /// Living rows that were copied; one that was written meanwhile counts again.
    pub rows: u64,
    /// How long it took no writes, in milliseconds.
    pub frozen_ms: u64,
}

/// `GET /v1/admin/tenants/{tenant}/placement`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantPlacement {
    /// The tenant.
    pub tenant: TenantId,
    /// `home`, or the name of a cluster.
    pub at: String,
    /// Where it is being moved to.
    pub moving_to: Option<String>,
    /// What the node that answers does for that, if it does: `copying`, `verifying` or `switching`.
    pub phase: Option<String>,
    /// Records that have arrived there.
    pub records: u64,
}

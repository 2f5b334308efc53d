//! Where tenants are: at home, in the database that the server was started with, or in another cluster of databases.
//!
//! Home keeps the list of all tenants and of the clusters. A tenant that is elsewhere is registered at home with the
//! name of its cluster, and in that cluster as any tenant is at home.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use farshore_sync_core::ids::TenantId;

use crate::StoreError;
use crate::catalog::CatalogError;
use crate::scope::TenantScope;

/// What home is called where a place is named.
pub const HOME: &str = "home";
/// Longest name of a cluster.
pub const MAX_CLUSTER_NAME_BYTES: usize = 40;

/// The name of a cluster: 1 to 40 of `[a-z0-9-]`, and not `home`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName(String);

/// A text that names no cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cluster's name is 1 to {MAX_CLUSTER_NAME_BYTES} of a-z, 0-9 and -, and not `{HOME}`")]
pub struct NotAClusterName;

impl ClusterName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = NotAClusterName;

    fn from_str(text: &str) -> Result<Self, NotAClusterName> {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = (1..=MAX_CLUSTER_NAME_BYTES).contains(&text.len()) && text.bytes().all(known);
        (fits && text != HOME).then(|| Self(text.to_owned())).ok_or(NotAClusterName)
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a tenant can be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// In the database that the server was started with.
    Home,
    /// In a cluster of databases.
    Cluster(ClusterName),
}

impl FromStr for Place {
    type Err = NotAClusterName;

    fn from_str(text: &str) -> Result<Self, NotAClusterName> {
        if text == HOME { Ok(Self::Home) } else { text.parse().map(Self::Cluster) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Home => f.write_str(HOME),
            Self::Cluster(name) => name.fmt(f),
        }
    }
}

/// What tells one attempt to move a tenant from another. Only the one that began last may end a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveToken(pub [u8; 16]);

/// Where a tenant is, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Where it is.
    pub at: Place,
    /// Where it is being moved to.
    pub moving_to: Option<Place>,
}

/// A cluster of databases as home knows it.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterRecord {
    /// Its name.
    pub name: ClusterName,
    /// Its URL with credentials, sealed with the master key.
    pub sealed_url: Vec<u8>,
    /// Most connections of one node to it.
    pub max_connections: u32,
    /// When it was added, in milliseconds since 1970.
    pub added_at_ms: u64,
}

impl fmt::Debug for ClusterRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterRecord").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why the registry did not change.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is no such cluster.
    #[error("there is no cluster {cluster}; `farshore cluster list` shows them")]
    UnknownCluster {
        /// The cluster asked for.
        cluster: ClusterName,
    },
    /// Tenants are in it, or on their way to it.
    #[error(
        "{tenants} tenants are in the cluster {cluster} or on their way to it; move them first"
    )]
    ClusterInUse {
        /// The cluster.
        cluster: ClusterName,
        /// How many.
        tenants: u64,
    },
    /// Another attempt to move the tenant began after this one.
    #[error("another attempt to move {tenant} began after this one, which has ended")]
    Overtaken {
        /// The tenant.
        tenant: TenantId,
    },
    /// The tenant cannot be had.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        Self::Catalog(error.into())
    }
}

/// Where tenants are, as home knows it.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Every cluster, by name.
    async fn clusters(&self) -> Result<Vec<ClusterRecord>, StoreError>;

    /// Adds a cluster, or replaces what is known of it.
    async fn put_cluster(&self, cluster: &ClusterRecord) -> Result<(), StoreError>;

    /// Forgets a cluster in which no tenant is.
    async fn remove_cluster(&self, cluster: &ClusterName) -> Result<(), RegistryError>;

    /// Where a tenant is.
    async fn placement(&self, scope: &TenantScope) -> Result<Placement, CatalogError>;

    /// Every tenant that is not at home, or is being moved, by name.
    async fn placements(&self) -> Result<Vec<(TenantId, Placement)>, StoreError>;

    /// Registers a new tenant that is in a cluster.
    async fn register(
        &self,
        scope: &TenantScope,
        cluster: &ClusterName,
        now_ms: u64,
    ) -> Result<(), RegistryError>;

    /// Begins to move a tenant, or takes a move over from whoever began it.
    async fn begin_move(
        &self,
        scope: &TenantScope,
        to: &Place,
        token: MoveToken,
    ) -> Result<(), RegistryError>;

    /// Ends a move: the tenant is where `at` says, from now on and for everybody.
    async fn end_move(
        &self,
        scope: &TenantScope,
        at: &Place,
        token: MoveToken,
    ) -> Result<(), RegistryError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_as_they_are_written() {
        for text in ["home", "eu-1", "a", &"b".repeat(40)] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for text in ["", "Home", "eu 1", "eu_1", "../x", &"b".repeat(41)] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
        assert!("home".parse::<ClusterName>().is_err());
    }
}

//! The settings of the store; each limit has its unit in its name.

use std::num::{NonZeroU32, NonZeroUsize};

use crate::url::DatabaseUrl;

/// Connections by default.
const DEFAULT_MAX_CONNECTIONS: NonZeroU32 = NonZeroU32::new(32).expect("32 is not zero");
/// Open tenants by default; each takes a few KiB and no connection.
const DEFAULT_MAX_OPEN_TENANTS: NonZeroUsize =
    NonZeroUsize::new(10_000).expect("10,000 is not zero");

/// Where a database is and what this process may ask of it.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// The database.
    pub url: DatabaseUrl,
    /// What may be used.
    pub limits: PostgresLimits,
}

/// What this process may use of a database.
#[derive(Debug, Clone, Copy)]
pub struct PostgresLimits {
    /// Most connections of this process; a transaction holds one.
    pub max_connections: NonZeroU32,
    /// How long a transaction waits for a connection, in milliseconds.
    pub acquire_timeout_ms: u32,
    /// How long a statement of the hot path may run, in milliseconds. The server cancels it then; when even that
    /// does not arrive, the connection is given up.
    pub statement_timeout_ms: u32,
    /// How long a transaction waits for another one of the same tenant, in milliseconds.
    pub lock_timeout_ms: u32,
    /// How long a statement may run that reads or changes a whole tenant: scrubs, purges, migrations, erasures; in
    /// milliseconds.
    pub maintenance_timeout_ms: u32,
    /// Most tenants of which the schema and the checks at opening are remembered.
    pub max_open_tenants: NonZeroUsize,
}

impl PostgresConfig {
    /// The default limits for a database.
    #[must_use]
    pub fn new(url: DatabaseUrl) -> Self {
        Self { url, limits: PostgresLimits::default() }
    }
}

impl Default for PostgresLimits {
    fn default() -> Self {
        Self {
            max_connections: DEFAULT_MAX_CONNECTIONS,
            acquire_timeout_ms: 10_000,
            statement_timeout_ms: 30_000,
            lock_timeout_ms: 10_000,
            maintenance_timeout_ms: 3_600_000,
            max_open_tenants: DEFAULT_MAX_OPEN_TENANTS,
        }
    }
}

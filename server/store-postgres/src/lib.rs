//! The store for many nodes: one Postgres schema for each tenant.
//!
//! In the database, the schema `farshore` lists the tenants with a key for each, and `tenant_<key>` holds the tables of
//! one of them; where others may look, nothing is called after a tenant. Three walls stand between tenants: every transaction takes on the tenant's own role, which reaches that schema alone;
//! row-level security, forced upon the tables' owner too, shows rows only to a transaction that names the tenant; and
//! every statement names the schema, while the search path leads nowhere.
//!
//! | file | subject |
//! |---|---|
//! | `config` | [`PostgresConfig`]: every limit by name |
//! | `url` | [`DatabaseUrl`]: where the database is, and a password that never shows |
//! | `version` | which servers are too old |
//! | `platform` | the schema `farshore`, prepared at the start |
//! | `catalog` | [`PostgresCatalog`]: creating, opening and erasing tenants |
//! | `arrival` | copies of tenants that arrive beside them |
//! | `registry` | where tenants are, if not here |
//! | `names` | the schema and the role of a tenant, and statements that name them |
//! | `migrations` | the tables, and their walls |
//! | `connections` | the connections, and which of them a transaction gets |
//! | `database` | transactions that are ended or thrown away |
//! | `query` | statements with their values |
//! | `tenant` | an open tenant: its transactions |
//! | `sync` | the hot path |
//! | `views` | a view for each collection, for people |
//! | `sql` | the way of the shared resource queries into a tenant |
//! | `failure` | from Postgres's errors to the store's |
//!
//! Invariants:
//! - Nothing outlives a transaction: no setting, no prepared statement, no lock, no listener. So a pooler in
//!   transaction mode may stand between.
//! - Everything that a commit decides from is read under the lock of the tenant's `standing` row, which is held until
//!   the commit ends. So several nodes may serve one tenant, seqs become visible in their order, and none is skipped.
//! - A tenant is created, migrated by one step, or erased in one transaction: a process that is killed leaves nothing
//!   half done.

mod arrival;
mod catalog;
mod config;
mod connections;
mod database;
mod failure;
mod migrations;
mod names;
mod platform;
mod query;
mod registry;
mod sql;
mod sync;
mod tenant;
#[cfg(test)]
mod tests;
mod url;
mod version;
mod views;

pub use catalog::PostgresCatalog;
pub use config::{PostgresConfig, PostgresLimits};
pub use connections::PoolFigures;
pub use platform::OpenError;
pub use url::{DatabaseUrl, DatabaseUrlError};

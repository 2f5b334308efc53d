//! The embedded store: one encrypted SQLite file for each tenant.
//!
//! In the data directory, `tenants/<id>.db` is a SQLCipher file under a random key of its own and
//! `tenants/<id>.key` is that key, sealed with the server's master key. Without the second the first is noise,
//! so destroying the key file erases the tenant, in backups too.
//!
//! | file | subject |
//! |---|---|
//! | `config` | [`SqliteConfig`]: every limit by name |
//! | `catalog` | [`SqliteCatalog`]: creating, opening and erasing tenants |
//! | `arrival` | copies of tenants that arrive beside them |
//! | `registry` | where tenants are, if not here |
//! | `open_tenants` | which tenants are open, and which of them closes next |
//! | `files` | the files of a tenant, and the order in which they come and go |
//! | `durable` | files that are there whole or not at all |
//! | `data_key` | a tenant's key and its sealed file |
//! | `journal` | the journal that all tenants share |
//! | `journalled` | writes of a tenant that has such a journal |
//! | `held` | transactions of tenants that are held open for further commits, and end when none comes |
//! | `replay` | bringing what the journal has of a tenant into its file |
//! | `connection` | an encrypted connection and its settings |
//! | `migrations` | the tables |
//! | `tenant` | an open tenant: one writer, a few readers |
//! | `scope_numbers` | scopes as small integers |
//! | `place` | where a change lies: scope and seq in one integer |
//! | `sync` | the hot path |
//! | `sql` | the way of the shared resource queries into a tenant |
//! | `failure` | from SQLite's errors to the store's |
//!
//! Invariants:
//! - A tenant exists if and only if its key file does. Nothing is deleted that was not asked to be erased.
//! - One process has at most one writer for a tenant; a commit is durable when it returns.
//! - A read never waits for a commit, and a page is one snapshot.

mod arrival;
mod catalog;
mod config;
mod connection;
mod data_key;
mod durable;
mod failure;
mod files;
mod held;
mod journal;
mod journalled;
mod migrations;
mod open_tenants;
mod place;
mod registry;
mod replay;
mod scope_numbers;
mod sql;
mod sync;
mod tenant;
#[cfg(test)]
mod tests;

pub use catalog::SqliteCatalog;
pub use config::{JournalMode, SqliteConfig};

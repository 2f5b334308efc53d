//! What a tenant's store does, whatever database is behind it.
//!
//! - [`scope`]: the proof that a caller may touch a tenant; no store opens without one.
//! - [`catalog`]: the tenants of a platform and the way to each one's store.
//! - [`sync`]: the hot path: group commits, pages of changes, digests.
//! - [`plan`]: the pure half of a commit: authorise, validate, clamp, merge, number. Every back-end runs it.
//! - [`page`], [`scrub`]: the pure half of reading: a page within its budget, sums counted anew.
//! - [`devices`], [`signing_keys`], [`schemas`]: the resources of a tenant.
//! - [`copy`]: a tenant as a stream of records, for backups and moves.
//! - [`placement`]: in which database each tenant is.
//! - [`sql`]: the resources written once for every SQL back-end.
//! - [`memory`]: the store that forgets, for tests and the simulator.
//! - [`sealing`]: secrets at rest under the server's master key.
//! - `conformance` (a feature): what every back-end must do, as tests.

pub mod catalog;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod copy;
pub mod devices;
pub mod memory;
pub mod page;
pub mod placement;
pub mod plan;
pub mod pushed;
pub mod schemas;
pub mod scope;
pub mod scrub;
pub mod sealing;
pub mod signing_keys;
pub mod sql;
pub mod sync;

/// The rules that server and devices share, as the back-ends reach them.
pub use farshore_sync_core as sync_core;

use std::sync::Arc;

/// Everything that one tenant's store does.
pub trait TenantStore:
    sync::SyncStore
    + devices::DeviceStore
    + signing_keys::SigningKeyStore
    + schemas::SchemaStore
    + copy::CopyOut
{
}

impl<T> TenantStore for T where
    T: sync::SyncStore
        + devices::DeviceStore
        + signing_keys::SigningKeyStore
        + schemas::SchemaStore
        + copy::CopyOut
{
}

/// A tenant's store as it is handed around.
pub type SharedTenantStore = Arc<dyn TenantStore>;

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or failed; nothing of the request was kept.
    #[error("{operation}: {source}")]
    Database {
        /// What was being done.
        operation: &'static str,
        /// What the database said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The disk is full; nothing of the request was kept.
    #[error("{operation}: the disk is full")]
    DiskFull {
        /// What was being done.
        operation: &'static str,
    },
    /// What is stored is not what was written there.
    #[error("{operation}: stored data is damaged: {detail}")]
    Damaged {
        /// What was being done.
        operation: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A newer version of Farshore wrote the data.
    #[error(
        "the data has format {found}, and this version reads up to {newest}; upgrade the server"
    )]
    NewerFormat {
        /// The format of the data.
        found: u32,
        /// The newest format that is understood.
        newest: u32,
    },
    /// The tenant began another epoch, or was moved, while its store was in use: open it again.
    #[error("the tenant was restored or moved meanwhile; open it again")]
    BegunAnew,
    /// The tenant is being moved.
    #[error("the tenant is being moved and takes no writes until that is done; try again later")]
    Frozen,
    /// A copy that was arriving was pushed aside.
    #[error(
        "another copy of the tenant began to arrive after this one: nothing of this one was kept"
    )]
    PushedAside,
    /// The tenant was erased while its store was in use.
    #[error("the tenant was erased")]
    Erased,
    /// The tenant has no schema yet.
    #[error("the tenant has no schema; register one with `farshore schema apply`")]
    NoSchema,
}

impl StoreError {
    /// A failure of the database during an operation.
    pub fn database(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Database { operation, source: source.into() }
    }
}

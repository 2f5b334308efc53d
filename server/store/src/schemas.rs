//! The versions of a tenant's schema.

use std::sync::Arc;

use async_trait::async_trait;
use farshore_sync_core::schema::{Schema, SchemaError};

use crate::StoreError;

/// Why a schema was not registered.
#[derive(Debug, thiserror::Error)]
pub enum ApplySchemaError {
    /// It changes what an earlier version promised.
    #[error(transparent)]
    Refused(#[from] SchemaError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What registering a schema means for the tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// It is the newest version already.
    Unchanged,
    /// It becomes the newest version.
    New,
}

/// Whether a schema may be registered after the newest one.
///
/// # Errors
/// Names what it changes about the newest one.
pub fn check_registration(
    newest: Option<&Schema>,
    schema: &Schema,
) -> Result<Registration, SchemaError> {
    match newest {
        Some(newest) if newest == schema => Ok(Registration::Unchanged),
        Some(newest) => schema.check_successor(newest).map(|()| Registration::New),
        None => Ok(Registration::New),
    }
}

/// The schema of a tenant.
#[async_trait]
pub trait SchemaStore: Send + Sync {
    /// The newest version; `None` before the first.
    async fn schema(&self) -> Result<Option<Arc<Schema>>, StoreError>;

    /// Registers a new version if it only adds to the newest one; the same version again changes nothing.
    async fn apply_schema(&self, schema: &Schema, now_ms: u64) -> Result<(), ApplySchemaError>;
}

//! The schema of a tenant: shown, and replaced by a version that only adds.

use std::sync::Arc;

use farshore_api::schemas::SchemaApplied;
use farshore_store::schemas::ApplySchemaError;
use farshore_store::scope::TenantScope;
use farshore_sync_core::ids::TenantId;
use farshore_sync_core::schema::{Schema, SchemaError};

use super::App;
use super::error::AccessError;
use crate::auth::OperatorPrincipal;

/// Why a schema was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It is not well-formed, or changes what an earlier version promised.
    #[error(transparent)]
    Refused(#[from] SchemaError),
    /// The store failed.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// Why no schema was shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// None was applied yet.
    #[error("the tenant {tenant} has no schema yet")]
    None {
        /// The tenant.
        tenant: TenantId,
    },
    /// The store failed.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// Registers a schema, given as its file. The same version again changes nothing.
///
/// # Errors
/// See [`ApplyError`].
pub async fn apply(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
    file: &str,
) -> Result<SchemaApplied, ApplyError> {
    let scope = app.auth().scope(operator, tenant);
    let schema = Schema::parse(file)?;
    apply_in(app, &scope, &schema).await?;
    let version = schema.version;
    tracing::info!(tenant = %scope.tenant(), operator = operator.subject(), version, "schema applied");
    Ok(SchemaApplied { name: schema.name, version })
}

/// The newest version.
///
/// # Errors
/// See [`ShowError`].
pub async fn show(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
) -> Result<Arc<Schema>, ShowError> {
    let scope = app.auth().scope(operator, tenant);
    let schema = app.store(&scope).await?.schema().await.map_err(AccessError::from)?;
    schema.ok_or_else(|| ShowError::None { tenant: scope.tenant().clone() })
}

pub(super) async fn apply_in(
    app: &App,
    scope: &TenantScope,
    schema: &Schema,
) -> Result<(), ApplyError> {
    let store = app.store(scope).await?;
    store.apply_schema(schema, app.now_ms()).await.map_err(|error| match error {
        ApplySchemaError::Refused(error) => ApplyError::Refused(error),
        ApplySchemaError::Store(error) => ApplyError::Access(error.into()),
    })?;
    app.sync().schema_changed(scope.tenant());
    Ok(())
}

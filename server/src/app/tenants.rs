//! Tenants: created, listed, erased.

use farshore_api::tenants::{CreateTenant, Tenant, TenantList};
use farshore_store::catalog::CatalogError;
use farshore_store::scope::TenantScope;
use farshore_store::signing_keys::SigningAlgorithm;
use farshore_sync_core::ids::TenantId;

use super::App;
use super::error::AccessError;
use super::keys::store_algorithm;
use crate::auth::{KeyError, OperatorPrincipal};

/// Why a tenant was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateTenantError {
    /// There is one already.
    #[error("the tenant {tenant} exists already")]
    Exists {
        /// Its slug.
        tenant: TenantId,
    },
    /// Its first key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store failed.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// Creates a tenant with its first signing key.
///
/// # Errors
/// See [`CreateTenantError`].
pub async fn create(
    app: &App,
    operator: &OperatorPrincipal,
    request: CreateTenant,
) -> Result<Tenant, CreateTenantError> {
    let scope = app.auth().scope(operator, request.tenant);
    create_in(app, &scope, store_algorithm(request.algorithm)).await?;
    tracing::info!(tenant = %scope.tenant(), operator = operator.subject(), "tenant created");
    Ok(view(app, scope.tenant()))
}

/// Every tenant.
///
/// # Errors
/// Where the store fails.
pub async fn list(app: &App, _: &OperatorPrincipal) -> Result<TenantList, AccessError> {
    let tenants = app.catalog().tenants().await?;
    Ok(TenantList { tenants: tenants.iter().map(|tenant| view(app, tenant)).collect() })
}

/// Destroys a tenant: its key first, then its data. Its devices are disconnected.
///
/// # Errors
/// Where there is no such tenant, or the store fails.
pub async fn erase(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
) -> Result<(), AccessError> {
    let scope = app.auth().scope(operator, tenant);
    app.catalog().erase(&scope).await?;
    app.auth().keys_changed(scope.tenant());
    app.sync().authority_changed(scope.tenant());
    tracing::info!(tenant = %scope.tenant(), operator = operator.subject(), "tenant erased");
    Ok(())
}

pub(super) async fn create_in(
    app: &App,
    scope: &TenantScope,
    algorithm: SigningAlgorithm,
) -> Result<(), CreateTenantError> {
    // The key comes first: a tenant without one could sign nothing.
    let key = app.auth().new_key(scope, algorithm).await?;
    let store = app.catalog().create(scope, app.now_ms()).await.map_err(|error| match error {
        CatalogError::TenantExists { tenant } => CreateTenantError::Exists { tenant },
        other => CreateTenantError::Access(other.into()),
    })?;
    store.rotate_signing_key(&key).await.map_err(AccessError::from)?;
    app.auth().keys_changed(scope.tenant());
    Ok(())
}

fn view(app: &App, tenant: &TenantId) -> Tenant {
    Tenant { tenant: tenant.clone(), issuer: app.auth().issuer(tenant) }
}

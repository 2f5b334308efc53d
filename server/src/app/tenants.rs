//! Tenants: created, listed, erased.

use farshore_api::tenants::{CreateTenant, Tenant, TenantList};
use farshore_store::catalog::CatalogError;
use farshore_store::placement::{ClusterName, RegistryError};
use farshore_store::scope::TenantScope;
use farshore_store::signing_keys::SigningAlgorithm;
use farshore_sync_core::ids::TenantId;

use super::App;
use super::error::AccessError;
use super::keys::store_algorithm;
use super::placement::PlacementError;
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
    /// It cannot be in that cluster.
    #[error(transparent)]
    Placement(#[from] PlacementError),
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
    let cluster = request.cluster.map(|name| name.parse()).transpose();
    let cluster = cluster.map_err(PlacementError::from)?;
    create_in(app, &scope, store_algorithm(request.algorithm), cluster.as_ref()).await?;
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
    cluster: Option<&ClusterName>,
) -> Result<(), CreateTenantError> {
    // The key comes first: a tenant without one could sign nothing.
    let key = app.auth().new_key(scope, algorithm).await?;
    let created = match cluster {
        None => app.catalog().create(scope, app.now_ms()).await.map_err(RegistryError::from),
        Some(cluster) => {
            let catalog = app.placement().ok_or(PlacementError::NoClusters)?;
            catalog.create_in(scope, cluster, app.now_ms()).await
        }
    };
    let store = created.map_err(|error| match error {
        RegistryError::Catalog(CatalogError::TenantExists { tenant }) => {
            CreateTenantError::Exists { tenant }
        }
        other => CreateTenantError::Placement(other.into()),
    })?;
    store.rotate_signing_key(&key).await.map_err(AccessError::from)?;
    app.auth().keys_changed(scope.tenant());
    Ok(())
}

fn view(app: &App, tenant: &TenantId) -> Tenant {
    Tenant { tenant: tenant.clone(), issuer: app.auth().issuer(tenant) }
}

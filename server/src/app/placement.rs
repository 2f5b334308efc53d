//! Clusters of databases, and where tenants are.

use std::sync::Arc;

use farshore_api::clusters::{AddCluster, Cluster, ClusterList, MovedTenant, TenantPlacement};
use farshore_store::catalog::CatalogError;
use farshore_store::placement::{ClusterName, NotAClusterName, Place, RegistryError};
use farshore_store::scope::TenantScope;
use farshore_sync_core::ids::TenantId;

use super::App;
use super::error::AccessError;
use crate::auth::OperatorPrincipal;
use crate::placement::{AddClusterError, MoveError, Moved, Phase, PlacedCatalog};

/// Why clusters or places are not as they were asked to be.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// The server was started without a place for clusters.
    #[error("this server keeps its tenants in memory and has no clusters")]
    NoClusters,
    /// The name is none.
    #[error(transparent)]
    Name(#[from] NotAClusterName),
    /// The cluster was not added.
    #[error(transparent)]
    Add(AddClusterError),
    /// There is no such cluster.
    #[error(transparent)]
    UnknownCluster(RegistryError),
    /// Tenants are in the cluster.
    #[error(transparent)]
    ClusterInUse(RegistryError),
    /// Another attempt to move the tenant took over.
    #[error(transparent)]
    Overtaken(RegistryError),
    /// The tenant was not moved.
    #[error(transparent)]
    Move(MoveError),
    /// The work was thrown away with the server.
    #[error("the server stopped in the middle of it; the next start goes on")]
    Stopped,
    /// The store failed.
    #[error(transparent)]
    Access(AccessError),
}

impl From<RegistryError> for PlacementError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Catalog(error) => Self::Access(error.into()),
            error @ RegistryError::UnknownCluster { .. } => Self::UnknownCluster(error),
            error @ RegistryError::ClusterInUse { .. } => Self::ClusterInUse(error),
            error @ RegistryError::Overtaken { .. } => Self::Overtaken(error),
        }
    }
}

impl From<AddClusterError> for PlacementError {
    fn from(error: AddClusterError) -> Self {
        match error {
            AddClusterError::Store(error) => Self::Access(error.into()),
            error => Self::Add(error),
        }
    }
}

impl From<MoveError> for PlacementError {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::Registry(error) => error.into(),
            error => Self::Move(error),
        }
    }
}

impl From<CatalogError> for PlacementError {
    fn from(error: CatalogError) -> Self {
        Self::Access(error.into())
    }
}

impl From<AccessError> for PlacementError {
    fn from(error: AccessError) -> Self {
        Self::Access(error)
    }
}

fn placed(app: &App) -> Result<&Arc<PlacedCatalog>, PlacementError> {
    app.placement().ok_or(PlacementError::NoClusters)
}

/// Adds a cluster, or changes how it is reached, once it was found to be good.
///
/// # Errors
/// See [`PlacementError`].
pub async fn add_cluster(
    app: &App,
    operator: &OperatorPrincipal,
    request: AddCluster,
) -> Result<Cluster, PlacementError> {
    let AddCluster { name, url, max_connections } = request;
    let name: ClusterName = name.parse()?;
    let clusters = placed(app)?.clusters();
    clusters.add(name.clone(), &url, max_connections, app.now_ms()).await?;
    tracing::info!(cluster = %name, operator = operator.subject(), "cluster added");
    let all = list_clusters(app, operator).await?.clusters;
    let added = all.into_iter().find(|cluster| cluster.name == name.as_str());
    added.ok_or_else(|| RegistryError::UnknownCluster { cluster: name }.into())
}

/// Every cluster.
///
/// # Errors
/// See [`PlacementError`].
pub async fn list_clusters(
    app: &App,
    _: &OperatorPrincipal,
) -> Result<ClusterList, PlacementError> {
    let views = placed(app)?.clusters().list().await.map_err(AccessError::from)?;
    let clusters = views.into_iter().map(|view| Cluster {
        name: view.name.to_string(),
        url: view.url,
        max_connections: view.max_connections,
    });
    Ok(ClusterList { clusters: clusters.collect() })
}

/// Forgets a cluster in which no tenant is.
///
/// # Errors
/// See [`PlacementError`].
pub async fn remove_cluster(
    app: &App,
    operator: &OperatorPrincipal,
    name: &str,
) -> Result<(), PlacementError> {
    let name = name.parse()?;
    placed(app)?.clusters().remove(&name).await?;
    tracing::info!(cluster = %name, operator = operator.subject(), "cluster removed");
    Ok(())
}

/// Where a tenant is, and how far this node has come with moving it.
///
/// # Errors
/// See [`PlacementError`].
pub async fn show(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
) -> Result<TenantPlacement, PlacementError> {
    let scope = app.auth().scope(operator, tenant);
    let catalog = placed(app)?;
    let placement = catalog.placement(&scope).await?;
    let progress = catalog.progress(scope.tenant()).map(|progress| progress.now());
    let phase = progress.map(|(phase, _)| match phase {
        Phase::Copying => "copying",
        Phase::Verifying => "verifying",
        Phase::Switching => "switching",
    });
    Ok(TenantPlacement {
        tenant: scope.tenant().clone(),
        at: placement.at.to_string(),
        moving_to: placement.moving_to.map(|place| place.to_string()),
        phase: phase.map(str::to_owned),
        records: progress.map_or(0, |(_, records)| records),
    })
}

/// Moves a tenant to another place. It goes on when the caller does not wait for it any more.
///
/// # Errors
/// See [`PlacementError`].
pub async fn move_tenant(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
    to: &str,
) -> Result<MovedTenant, PlacementError> {
    let to: Place = to.parse()?;
    placed(app)?;
    let scope = app.auth().scope(operator, tenant);
    tracing::info!(tenant = %scope.tenant(), %to, operator = operator.subject(), "moving a tenant");
    let app = app.clone();
    let moving = tokio::spawn(async move { carry(&app, &scope, &to).await });
    let moved = moving.await.map_err(|_| PlacementError::Stopped)??;
    let Moved { from, to, rows, frozen_for } = moved;
    let frozen_ms = u64::try_from(frozen_for.as_millis()).unwrap_or(u64::MAX);
    Ok(MovedTenant { from: from.to_string(), to: to.to_string(), rows, frozen_ms })
}

/// Goes on with the moves that an earlier process did not finish.
pub async fn resume_moves(app: &App) {
    let Some(catalog) = app.placement() else { return };
    let placements = match catalog.placements().await {
        Ok(placements) => placements,
        Err(error) => {
            tracing::error!(%error, "unfinished moves could not be looked for");
            return;
        }
    };
    for (tenant, placement) in placements {
        let Some(to) = placement.moving_to else { continue };
        tracing::warn!(%tenant, from = %placement.at, %to, "going on with a move");
        let scope = app.auth().workflow_scope(tenant);
        if let Err(error) = carry(app, &scope, &to).await {
            tracing::error!(tenant = %scope.tenant(), %error, "a tenant was not moved");
        }
    }
}

async fn carry(app: &App, scope: &TenantScope, to: &Place) -> Result<Moved, PlacementError> {
    let moved = placed(app)?.move_to(scope, to).await;
    if moved.is_ok() {
        app.auth().keys_changed(scope.tenant());
        app.sync().begun_anew(scope.tenant());
    }
    let moved = moved?;
    let Moved { from, to, rows, frozen_for } = &moved;
    tracing::info!(tenant = %scope.tenant(), %from, %to, rows, ?frozen_for, "tenant moved");
    Ok(moved)
}

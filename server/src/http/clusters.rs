//! `/v1/admin/clusters`, and `/v1/admin/tenants/{tenant}/placement` and `/move`

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use farshore_api::clusters::{AddCluster, ClusterList, MoveTenant, MovedTenant, TenantPlacement};
use farshore_sync_core::ids::TenantId;

use super::error::HttpError;
use super::extract::{Json, Path};
use crate::app::{App, placement};
use crate::auth::OperatorPrincipal;

pub async fn list(
    State(app): State<App>,
    operator: OperatorPrincipal,
) -> Result<Answer<ClusterList>, HttpError> {
    Ok(Answer(placement::list_clusters(&app, &operator).await?))
}

pub async fn add(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Json(request): Json<AddCluster>,
) -> Result<impl IntoResponse, HttpError> {
    let added = placement::add_cluster(&app, &operator, request).await?;
    Ok((StatusCode::CREATED, Answer(added)))
}

pub async fn remove(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path(name): Path<String>,
) -> Result<StatusCode, HttpError> {
    placement::remove_cluster(&app, &operator, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn show(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path(tenant): Path<TenantId>,
) -> Result<Answer<TenantPlacement>, HttpError> {
    Ok(Answer(placement::show(&app, &operator, tenant).await?))
}

/// Takes as long as it takes to copy a tenant.
pub async fn carry(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path(tenant): Path<TenantId>,
    Json(request): Json<MoveTenant>,
) -> Result<Answer<MovedTenant>, HttpError> {
    Ok(Answer(placement::move_tenant(&app, &operator, tenant, &request.to).await?))
}

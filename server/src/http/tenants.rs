//! `/v1/admin/tenants`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use farshore_api::tenants::{CreateTenant, TenantList};
use farshore_sync_core::ids::TenantId;

use super::error::HttpError;
use super::extract::{Json, Path};
use crate::app::{App, tenants};
use crate::auth::OperatorPrincipal;

pub async fn list(
    State(app): State<App>,
    operator: OperatorPrincipal,
) -> Result<axum::Json<TenantList>, HttpError> {
    Ok(axum::Json(tenants::list(&app, &operator).await?))
}

pub async fn create(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Json(request): Json<CreateTenant>,
) -> Result<impl IntoResponse, HttpError> {
    let tenant = tenants::create(&app, &operator, request).await?;
    Ok((StatusCode::CREATED, axum::Json(tenant)))
}

pub async fn erase(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path(tenant): Path<TenantId>,
) -> Result<StatusCode, HttpError> {
    tenants::erase(&app, &operator, tenant).await?;
    Ok(StatusCode::NO_CONTENT)
}

//! `/v1/admin/tenants/{tenant}/keys`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use farshore_api::keys::{RotateKey, SigningKeyList};
use farshore_sync_core::ids::TenantId;

use super::error::HttpError;
use super::extract::{Json, Path};
use crate::app::{App, keys};
use crate::auth::OperatorPrincipal;

pub async fn list(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path(tenant): Path<TenantId>,
) -> Result<axum::Json<SigningKeyList>, HttpError> {
    Ok(axum::Json(keys::list(&app, &operator, tenant).await?))
}

pub async fn rotate(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path(tenant): Path<TenantId>,
    Json(request): Json<RotateKey>,
) -> Result<impl IntoResponse, HttpError> {
    let key = keys::rotate(&app, &operator, tenant, request).await?;
    Ok((StatusCode::CREATED, axum::Json(key)))
}

//! `/v1/admin/tenants/{tenant}/tokens`

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use farshore_api::tokens::MintToken;
use farshore_sync_core::ids::TenantId;

use super::error::HttpError;
use super::extract::{Json, Path};
use crate::app::{App, tokens};
use crate::auth::OperatorPrincipal;

pub async fn mint(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path(tenant): Path<TenantId>,
    Json(request): Json<MintToken>,
) -> Result<impl IntoResponse, HttpError> {
    let minted = tokens::mint(&app, &operator, tenant, request).await?;
    Ok((StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], axum::Json(minted)))
}

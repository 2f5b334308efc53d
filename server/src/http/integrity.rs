//! `/v1/admin/tenants/{tenant}/digest` and `/v1/admin/tenants/{tenant}/scrub`

use axum::Json as Answer;
use axum::extract::State;
use farshore_api::integrity::{Digest, DigestRequest, Scrubbed};
use farshore_sync_core::ids::TenantId;

use super::error::HttpError;
use super::extract::{Json, Path};
use crate::app::{App, integrity};
use crate::auth::OperatorPrincipal;

pub async fn digest(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path(tenant): Path<TenantId>,
    Json(request): Json<DigestRequest>,
) -> Result<Answer<Digest>, HttpError> {
    Ok(Answer(integrity::digest(&app, &operator, tenant, &request).await?))
}

pub async fn scrub(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path(tenant): Path<TenantId>,
) -> Result<Answer<Scrubbed>, HttpError> {
    Ok(Answer(integrity::scrub(&app, &operator, tenant).await?))
}

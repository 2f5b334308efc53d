//! `/v1/admin/tenants/{tenant}/archive` and `/v1/admin/tenants/{tenant}/epoch`

use axum::Json as Answer;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use farshore_api::archives::{ARCHIVE_CONTENT_TYPE, NewEpoch, RestoreQuery, Restored};
use farshore_sync_core::ids::TenantId;
use futures_util::stream;

use super::error::HttpError;
use super::extract::{Path, Query};
use crate::app::App;
use crate::app::archives::{self, Restoration};
use crate::auth::OperatorPrincipal;

pub async fn make(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path(tenant): Path<TenantId>,
) -> Result<impl IntoResponse, HttpError> {
    let bytes = archives::backup(&app, &operator, tenant).await?;
    let bytes = stream::unfold(bytes, |mut bytes| async { Some((bytes.recv().await?, bytes)) });
    Ok(([(CONTENT_TYPE, ARCHIVE_CONTENT_TYPE)], Body::from_stream(bytes)))
}

/// Takes as long as the archive keeps coming: its pieces have the deadline that requests have elsewhere.
pub async fn restore(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path(tenant): Path<TenantId>,
    Query(query): Query<RestoreQuery>,
    body: Body,
) -> Result<Answer<Restored>, HttpError> {
    let restoration = match query {
        RestoreQuery { check: true, .. } => Restoration::Check,
        RestoreQuery { replace: true, .. } => Restoration::Replace,
        RestoreQuery { replace: false, check: false } => Restoration::New,
    };
    let bytes = body.into_data_stream();
    Ok(Answer(archives::restore(&app, &operator, tenant, restoration, bytes).await?))
}

pub async fn begin_epoch(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path(tenant): Path<TenantId>,
) -> Result<Answer<NewEpoch>, HttpError> {
    Ok(Answer(archives::begin_epoch(&app, &operator, tenant).await?))
}

//! `/v1/admin/tenants/{tenant}/schema`

use axum::Json as Answer;
use axum::extract::State;
use farshore_api::schemas::SchemaApplied;
use farshore_sync_core::ids::TenantId;
use farshore_sync_core::schema::Schema;

use super::error::HttpError;
use super::extract::{JsonText, Path};
use crate::app::{App, schemas};
use crate::auth::OperatorPrincipal;

pub async fn show(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path(tenant): Path<TenantId>,
) -> Result<Answer<Schema>, HttpError> {
    let schema = schemas::show(&app, &operator, tenant).await?;
    Ok(Answer(Schema::clone(&schema)))
}

pub async fn apply(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path(tenant): Path<TenantId>,
    JsonText(file): JsonText,
) -> Result<Answer<SchemaApplied>, HttpError> {
    Ok(Answer(schemas::apply(&app, &operator, tenant, &file).await?))
}

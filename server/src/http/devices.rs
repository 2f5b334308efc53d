//! `/v1/admin/tenants/{tenant}/devices`

use axum::Json as Answer;
use axum::extract::State;
use farshore_api::devices::{Device, DeviceList, DevicePage, SetGrants};
use farshore_sync_core::ids::{DeviceId, TenantId};

use super::error::HttpError;
use super::extract::{Json, Path, Query};
use crate::app::{App, devices};
use crate::auth::OperatorPrincipal;

pub async fn list(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path(tenant): Path<TenantId>,
    Query(page): Query<DevicePage>,
) -> Result<Answer<DeviceList>, HttpError> {
    Ok(Answer(devices::list(&app, &operator, tenant, page).await?))
}

pub async fn show(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path((tenant, device)): Path<(TenantId, DeviceId)>,
) -> Result<Answer<Device>, HttpError> {
    Ok(Answer(devices::show(&app, &operator, tenant, device).await?))
}

pub async fn set_grants(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path((tenant, device)): Path<(TenantId, DeviceId)>,
    Json(request): Json<SetGrants>,
) -> Result<Answer<Device>, HttpError> {
    Ok(Answer(devices::set_grants(&app, &operator, tenant, device, request.grants).await?))
}

pub async fn suspend(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path((tenant, device)): Path<(TenantId, DeviceId)>,
) -> Result<Answer<Device>, HttpError> {
    Ok(Answer(devices::suspend(&app, &operator, tenant, device).await?))
}

pub async fn resume(
    State(app): State<App>,
    operator: OperatorPrincipal,
    Path((tenant, device)): Path<(TenantId, DeviceId)>,
) -> Result<Answer<Device>, HttpError> {
    Ok(Answer(devices::resume(&app, &operator, tenant, device).await?))
}

//! The devices of a tenant: listed, suspended, resumed, given other rights.

use farshore_api::devices::{Device, DeviceList, DevicePage, MAX_DEVICES_PER_PAGE};
use farshore_store::devices::DeviceRecord;
use farshore_sync_core::ids::{DeviceId, TenantId};
use farshore_sync_core::wire::limits::MAX_SCOPES_PER_DEVICE;
use farshore_sync_core::wire::{Grant, sorted_grants};

use super::App;
use super::error::AccessError;
use crate::auth::OperatorPrincipal;

/// Why nothing was done about a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The tenant has no such device.
    #[error("the tenant {tenant} has no device {device}")]
    Unknown {
        /// The tenant.
        tenant: TenantId,
        /// The device asked for.
        device: DeviceId,
    },
    /// More scopes than a device may hold.
    #[error("{scopes} scopes; a device holds at most {MAX_SCOPES_PER_DEVICE}")]
    TooManyScopes {
        /// How many were given.
        scopes: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// Devices in the order of their ids, a page at a time.
///
/// # Errors
/// Where there is no such tenant, or the store fails.
pub async fn list(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
    page: DevicePage,
) -> Result<DeviceList, AccessError> {
    let limit = page.limit.unwrap_or(MAX_DEVICES_PER_PAGE).clamp(1, MAX_DEVICES_PER_PAGE);
    let store = app.store(&app.auth().scope(operator, tenant)).await?;
    let records = store.devices(page.after, limit).await?;
    let full = u32::try_from(records.len()).is_ok_and(|count| count == limit);
    let next = records.last().filter(|_| full).map(|device| device.id);
    Ok(DeviceList { devices: records.into_iter().map(view).collect(), next })
}

/// One device.
///
/// # Errors
/// Where there is no such tenant or device, or the store fails.
pub async fn show(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
    device: DeviceId,
) -> Result<Device, DeviceError> {
    change(app, operator, tenant, device, |_| Change::None).await
}

/// Takes a device out of service: its connection ends at once, and no token lets it in.
///
/// # Errors
/// Where there is no such tenant or device, or the store fails.
pub async fn suspend(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
    device: DeviceId,
) -> Result<Device, DeviceError> {
    change(app, operator, tenant, device, |record| {
        record.suspended = true;
        Change::Made("device suspended")
    })
    .await
}

/// Puts a device back into service.
///
/// # Errors
/// Where there is no such tenant or device, or the store fails.
pub async fn resume(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
    device: DeviceId,
) -> Result<Device, DeviceError> {
    change(app, operator, tenant, device, |record| {
        record.suspended = false;
        Change::Made("device resumed")
    })
    .await
}

/// Replaces what a device may read and write. A connected device learns it at once: scopes that it lost are purged
/// from it.
///
/// # Errors
/// Where there is no such tenant or device, there are too many scopes, or the store fails.
pub async fn set_grants(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
    device: DeviceId,
    grants: Vec<Grant>,
) -> Result<Device, DeviceError> {
    let grants = checked_grants(grants).map_err(|scopes| DeviceError::TooManyScopes { scopes })?;
    change(app, operator, tenant, device, |record| {
        record.grants = grants;
        Change::Made("device granted")
    })
    .await
}

/// Sorted grants without doubles, or how many there are where a device cannot hold them.
pub(super) fn checked_grants(grants: Vec<Grant>) -> Result<Vec<Grant>, usize> {
    let grants = sorted_grants(grants);
    if grants.len() > MAX_SCOPES_PER_DEVICE { Err(grants.len()) } else { Ok(grants) }
}

pub(super) fn view(record: DeviceRecord) -> Device {
    let DeviceRecord { id, user, name, grants, suspended, created_at_ms } = record;
    Device { id, user, name, grants, suspended, created_at_ms }
}

/// What was done to a record, for the log.
enum Change {
    None,
    Made(&'static str),
}

async fn change(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
    device: DeviceId,
    edit: impl FnOnce(&mut DeviceRecord) -> Change,
) -> Result<Device, DeviceError> {
    let scope = app.auth().scope(operator, tenant);
    let store = app.store(&scope).await?;
    let record = store.device(device).await.map_err(AccessError::from)?;
    let mut record =
        record.ok_or_else(|| DeviceError::Unknown { tenant: scope.tenant().clone(), device })?;
    if let Change::Made(what) = edit(&mut record) {
        store.put_device(&record).await.map_err(AccessError::from)?;
        app.sync().authority_changed(scope.tenant());
        tracing::info!(tenant = %scope.tenant(), %device, operator = operator.subject(), "{what}");
    }
    Ok(view(record))
}

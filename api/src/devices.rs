//! The devices of a tenant.

use farshore_sync_core::ids::{DeviceId, UserId};
use farshore_sync_core::wire::Grant;
use serde::{Deserialize, Serialize};

/// Most devices of one [`DeviceList`].
pub const MAX_DEVICES_PER_PAGE: u32 = 1_000;
/// Longest name of a device, in bytes.
pub const MAX_DEVICE_NAME_BYTES: usize = 200;

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its identity.
    pub id: DeviceId,
    /// The person who uses it.
    pub user: UserId,
    /// What people call it.
    pub name: String,
    /// What it may read and write; a token never gives more.
    pub grants: Vec<Grant>,
    /// Whether it may not sync for now.
    pub suspended: bool,
    /// When it was first known, in milliseconds since 1970.
    pub created_at_ms: u64,
}

/// `GET /v1/admin/tenants/{tenant}/devices?after=..&limit=..`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceList {
    /// Devices in the order of their ids.
    pub devices: Vec<Device>,
    /// What `after` is for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<DeviceId>,
}

/// The query of a [`DeviceList`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevicePage {
    /// The devices after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<DeviceId>,
    /// At most this many; [`MAX_DEVICES_PER_PAGE`] where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `PUT /v1/admin/tenants/{tenant}/devices/{device}/grants`: replaces what the device may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetGrants {
    /// Everything that the device may read and write from now on.
    pub grants: Vec<Grant>,
}

//! The devices of a tenant and what each of them may do.

use async_trait::async_trait;
use farshore_sync_core::ids::{DeviceId, UserId};
use farshore_sync_core::wire::Grant;
use serde::{Deserialize, Serialize};

use crate::StoreError;

/// One device as the tenant knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
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

/// The devices of a tenant.
#[async_trait]
pub trait DeviceStore: Send + Sync {
    /// One device.
    async fn device(&self, id: DeviceId) -> Result<Option<DeviceRecord>, StoreError>;

    /// Creates or replaces a device.
    async fn put_device(&self, device: &DeviceRecord) -> Result<(), StoreError>;

    /// At most `limit` devices in the order of their ids, after one.
    async fn devices(
        &self,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Vec<DeviceRecord>, StoreError>;
}

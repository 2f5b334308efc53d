//! The devices of a tenant in memory.

use std::ops::Bound;

use async_trait::async_trait;
use farshore_sync_core::ids::DeviceId;

use super::MemoryTenant;
use crate::StoreError;
use crate::devices::{DeviceRecord, DeviceStore};

#[async_trait]
impl DeviceStore for MemoryTenant {
    async fn device(&self, id: DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
        self.with(|state| state.devices.get(&id).cloned())
    }

    async fn put_device(&self, device: &DeviceRecord) -> Result<(), StoreError> {
        self.change(|state| {
            state.devices.insert(device.id, device.clone());
        })
    }

    async fn devices(
        &self,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Vec<DeviceRecord>, StoreError> {
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.with(|state| {
            let devices = state.devices.range((first, Bound::Unbounded));
            devices.take(limit as usize).map(|(_, device)| device.clone()).collect()
        })
    }
}

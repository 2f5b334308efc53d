//! The devices of a tenant.

use farshore_sync_core::ids::{DeviceId, UserId};
use farshore_sync_core::wire::{Grant, Rights};

use super::Storage;
use super::fixture::sample_store;
use super::sample::{NOW_MS, site, tenant};
use crate::devices::DeviceRecord;

fn device(number: u8) -> DeviceRecord {
    DeviceRecord {
        id: DeviceId::from_bytes([number; 16]),
        user: UserId::from_bytes([number.wrapping_add(1); 16]),
        name: format!("tablet '{number}' \u{e9}"),
        grants: vec![
            Grant { scope: site("a"), rights: Rights::Write },
            Grant { scope: tenant(), rights: Rights::Read },
        ],
        suspended: false,
        created_at_ms: NOW_MS,
    }
}

/// Every field survives; an unknown device is none.
pub async fn a_device_is_read_as_it_was_written(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    store.put_device(&device(1)).await.unwrap();
    assert_eq!(store.device(device(1).id).await.unwrap(), Some(device(1)));
    assert_eq!(store.device(device(2).id).await.unwrap(), None);
}

/// Writing a device again replaces it.
pub async fn a_device_is_replaced(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    store.put_device(&device(1)).await.unwrap();
    let changed = DeviceRecord { grants: Vec::new(), suspended: true, ..device(1) };
    store.put_device(&changed).await.unwrap();
    assert_eq!(store.device(changed.id).await.unwrap().as_ref(), Some(&changed));
    assert_eq!(store.devices(None, 10).await.unwrap(), [changed]);
}

/// Devices are listed page by page, by id.
pub async fn devices_are_listed_by_id(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    for number in [200, 3, 1, 2] {
        store.put_device(&device(number)).await.unwrap();
    }
    let first = store.devices(None, 2).await.unwrap();
    assert_eq!(first, [device(1), device(2)]);
    let rest = store.devices(Some(first[1].id), 10).await.unwrap();
    assert_eq!(rest, [device(3), device(200)]);
    assert_eq!(store.devices(Some(device(200).id), 10).await.unwrap(), []);
}

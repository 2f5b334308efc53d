//! The devices of a tenant in SQL.

use async_trait::async_trait;
use farshore_sync_core::ids::{DeviceId, UserId};

use super::{Sql, SqlRow, Statement};
use crate::StoreError;
use crate::devices::{DeviceRecord, DeviceStore};

const GET: &str = "SELECT id, user_id, name, grants, suspended, created_at_ms \
    FROM main.devices WHERE id = $1";
const LIST: &str = "SELECT id, user_id, name, grants, suspended, created_at_ms \
    FROM main.devices WHERE id > $1 ORDER BY id LIMIT $2";
const PUT: &str = "INSERT INTO main.devices (id, user_id, name, grants, suspended, created_at_ms) \
    VALUES ($1, $2, $3, $4, $5, $6) \
    ON CONFLICT (id) DO UPDATE SET user_id = excluded.user_id, name = excluded.name, \
    grants = excluded.grants, suspended = excluded.suspended, \
    created_at_ms = excluded.created_at_ms";

#[async_trait]
impl<T: Sql> DeviceStore for T {
    async fn device(&self, id: DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
        let statement = Statement::new(GET, [id.as_bytes().into()]);
        let rows = self.query("read a device", statement).await?;
        rows.into_iter().next().map(read).transpose()
    }

    async fn put_device(&self, device: &DeviceRecord) -> Result<(), StoreError> {
        let operation = "write a device";
        let grants = serde_json::to_string(&device.grants)
            .map_err(|error| StoreError::database(operation, error))?;
        let values = [
            device.id.as_bytes().into(),
            device.user.as_bytes().into(),
            device.name.as_str().into(),
            grants.as_str().into(),
            device.suspended.into(),
            device.created_at_ms.into(),
        ];
        self.execute(operation, vec![Statement::new(PUT, values)]).await?;
        Ok(())
    }

    async fn devices(
        &self,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Vec<DeviceRecord>, StoreError> {
        // No bytes at all sort before every identity.
        let after = after.as_ref().map_or(&[][..], |id| id.as_bytes().as_slice());
        let statement = Statement::new(LIST, [after.into(), u64::from(limit).into()]);
        self.query("list devices", statement).await?.into_iter().map(read).collect()
    }
}

fn read(mut row: SqlRow) -> Result<DeviceRecord, StoreError> {
    let operation = "read a device";
    let grants: String = row.take(operation, 3)?;
    Ok(DeviceRecord {
        id: DeviceId::from_bytes(row.take(operation, 0)?),
        user: UserId::from_bytes(row.take(operation, 1)?),
        name: row.take(operation, 2)?,
        grants: serde_json::from_str(&grants)
            .map_err(|error| StoreError::Damaged { operation, detail: error.to_string() })?,
        suspended: row.take(operation, 4)?,
        created_at_ms: row.take(operation, 5)?,
    })
}

//! The versions of a tenant's schema in memory.

use std::sync::Arc;

use async_trait::async_trait;
use farshore_sync_core::schema::Schema;

use super::MemoryTenant;
use crate::StoreError;
use crate::schemas::{ApplySchemaError, Registration, SchemaStore, check_registration};

#[async_trait]
impl SchemaStore for MemoryTenant {
    async fn schema(&self) -> Result<Option<Arc<Schema>>, StoreError> {
        self.with(|state| state.schema().cloned())
    }

    async fn apply_schema(&self, schema: &Schema, now_ms: u64) -> Result<(), ApplySchemaError> {
        self.change(|state| match check_registration(state.schema().map(Arc::as_ref), schema)? {
            Registration::Unchanged => Ok(()),
            Registration::New => {
                state.schemas.push((Arc::new(schema.clone()), now_ms));
                Ok(())
            }
        })?
    }
}

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
        self.with(|state| state.schema.clone())
    }

    async fn apply_schema(&self, schema: &Schema, _now_ms: u64) -> Result<(), ApplySchemaError> {
        self.with(|state| match check_registration(state.schema.as_deref(), schema)? {
            Registration::Unchanged => Ok(()),
            Registration::New => {
                state.schema = Some(Arc::new(schema.clone()));
                Ok(())
            }
        })?
    }
}

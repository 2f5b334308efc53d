//! The versions of a tenant's schema in SQL.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use farshore_sync_core::schema::Schema;

use super::{Sql, Statement};
use crate::StoreError;
use crate::schemas::{ApplySchemaError, Registration, SchemaStore, check_registration};

/// The version of the newest schema; NULL before the first.
const NEWEST: &str = "SELECT MAX(version) FROM main.schemas";
const GET: &str = "SELECT json FROM main.schemas WHERE version = $1";
/// `follows` is unique, so that of two versions made from the same one only one is registered.
const ADD: &str = "INSERT INTO main.schemas (version, follows, json, applied_at_ms) \
    VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
const OPERATION: &str = "read the schema";

/// The newest schema that was parsed. It is looked up by version, so it is not stale within an epoch.
#[derive(Debug, Default)]
pub struct SchemaCache(Mutex<Option<Arc<Schema>>>);

impl SchemaCache {
    /// The schema, if it is this version.
    #[must_use]
    pub fn get(&self, version: u64) -> Option<Arc<Schema>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|schema| u64::from(schema.version) == version).cloned()
    }

    /// Forgets it: in another epoch the same version may be another schema.
    pub fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Parses the stored JSON of a version and keeps it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where it is no schema.
    pub fn parse(&self, json: &str) -> Result<Arc<Schema>, StoreError> {
        let schema = Schema::parse(json).map_err(|error| StoreError::Damaged {
            operation: OPERATION,
            detail: error.to_string(),
        })?;
        let schema = Arc::new(schema);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(Arc::clone(&schema));
        Ok(schema)
    }
}

#[async_trait]
impl<T: Sql> SchemaStore for T {
    async fn schema(&self) -> Result<Option<Arc<Schema>>, StoreError> {
        let Some(mut newest) = first(self.query(OPERATION, Statement::new(NEWEST, [])).await?)
        else {
            return Ok(None);
        };
        let Some(version): Option<u64> = newest.take(OPERATION, 0)? else { return Ok(None) };
        if let Some(schema) = self.schema_cache().get(version) {
            return Ok(Some(schema));
        }
        let rows = self.query(OPERATION, Statement::new(GET, [version.into()])).await?;
        let mut row = first(rows).ok_or_else(|| StoreError::Damaged {
            operation: OPERATION,
            detail: format!("version {version} is missing"),
        })?;
        let json: String = row.take(OPERATION, 0)?;
        self.schema_cache().parse(&json).map(Some)
    }

    async fn apply_schema(&self, schema: &Schema, now_ms: u64) -> Result<(), ApplySchemaError> {
        // Another version may come between the check and the insert; each round sees a later one.
        loop {
            let newest = self.schema().await?;
            match check_registration(newest.as_deref(), schema)? {
                Registration::Unchanged => return Ok(()),
                Registration::New => {}
            }
            let follows = newest.map_or(0, |newest| u64::from(newest.version));
            let values = [
                u64::from(schema.version).into(),
                follows.into(),
                schema.to_json().as_str().into(),
                now_ms.into(),
            ];
            let add = vec![Statement::new(ADD, values)];
            if self.execute("register a schema", add).await? != [0] {
                self.schema_registered(schema).await;
                return Ok(());
            }
        }
    }
}

fn first<R>(rows: Vec<R>) -> Option<R> {
    rows.into_iter().next()
}

//! A group commit: load, plan, write, in one transaction.

use std::sync::Arc;

use farshore_store::StoreError;
use farshore_store::plan::{Context, plan, prepare};
use farshore_store::sync::{Batch, Committed};
use farshore_store::sync_core::schema::Schema;
use rusqlite::{Connection, Transaction};

use super::{load, standing, write};
use crate::failure::Failure;
use crate::tenant::OpenTenant;

pub(super) fn commit(
    tenant: &OpenTenant,
    transaction: &Transaction<'_>,
    batch: Batch,
) -> Result<Committed, Failure> {
    let now_ms = batch.now_ms;
    let prepared = prepare(batch);
    let standing = standing::read(transaction)?;
    let schema = schema(tenant, transaction)?;
    let (loaded, known) = load::load(tenant, transaction, prepared.needs())?;
    let context =
        Context { schema: &schema, head: standing.head, digest_key: &standing.digest_key, now_ms };
    let plan = plan(prepared, loaded, &context)?;
    write::write(tenant, transaction, &known, &plan)?;
    Ok(plan.committed)
}

/// The version of the newest schema; `None` before the first.
pub(super) fn schema_version(database: &Connection) -> Result<Option<u32>, Failure> {
    let mut newest = database.prepare_cached("SELECT MAX(version) FROM schemas")?;
    Ok(newest.query_row([], |row| row.get(0))?)
}

/// The newest schema, as this transaction sees it.
fn schema(tenant: &OpenTenant, transaction: &Transaction<'_>) -> Result<Arc<Schema>, Failure> {
    let version = schema_version(transaction)?.ok_or(StoreError::NoSchema)?;
    if let Some(schema) = tenant.schemas.get(version.into()) {
        return Ok(schema);
    }
    let mut stored = transaction.prepare_cached("SELECT json FROM schemas WHERE version = ?1")?;
    let json: String = stored.query_row([version], |row| row.get(0))?;
    Ok(tenant.schemas.parse(&json)?)
}

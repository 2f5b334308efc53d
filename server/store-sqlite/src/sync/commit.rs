//! A group commit: load, plan, write, in one transaction.

use std::sync::Arc;

use farshore_store::StoreError;
use farshore_store::plan::{Context, Plan, plan, prepare};
use farshore_store::sync::{Batch, Committed};
use farshore_store::sync_core::schema::Schema;
use rusqlite::Connection;

use super::load::{self, Known};
use super::unwritten::Unwritten;
use super::{standing, write};
use crate::failure::Failure;
use crate::scope_numbers::ScopeNumbers;
use crate::tenant::OpenTenant;

/// A batch that was planned, in the transaction in which it is to be written.
pub(crate) struct Planned {
    plan: Plan,
    known: Known,
}

/// Plans a batch after commits of which something may be unwritten.
pub(crate) fn plan_batch(
    tenant: &OpenTenant,
    transaction: &Connection,
    batch: Batch,
    unwritten: &Unwritten,
) -> Result<Planned, Failure> {
    let now_ms = batch.now_ms;
    let prepared = prepare(batch);
    let standing = standing::read(transaction)?;
    let schema = schema(tenant, transaction)?;
    let (loaded, known) = load::load(tenant, transaction, prepared.needs(), unwritten)?;
    let context =
        Context { schema: &schema, head: standing.head, digest_key: &standing.digest_key, now_ms };
    let plan = plan(prepared, loaded, &context)?;
    Ok(Planned { plan, known })
}

impl Planned {
    /// Writes the plan, except for what is left unwritten.
    pub fn write(
        self,
        tenant: &OpenTenant,
        transaction: &Connection,
        unwritten: &mut Unwritten,
    ) -> Result<Plan, Failure> {
        write::write(&tenant.scopes, transaction, &self.known, &self.plan, unwritten)?;
        Ok(self.plan)
    }

    /// Whether writing it would change anything: what comes again does not.
    pub fn changes_anything(
        &self,
        transaction: &Connection,
        unwritten: &Unwritten,
    ) -> Result<bool, Failure> {
        let Plan { committed, rows, departures, chunks, resequenced, digests, devices, outcomes } =
            &self.plan;
        let is_empty = committed.seq == committed.seq_before
            && rows.is_empty()
            && departures.is_empty()
            && chunks.is_empty()
            && resequenced.is_empty()
            && digests.is_empty()
            && outcomes.is_empty();
        if !is_empty {
            return Ok(true);
        }
        for (device, mark) in devices {
            if unwritten.mark(transaction, *device)?.as_ref() != Some(mark) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The answer, where nothing has to be written for it.
    pub fn into_committed(self) -> Committed {
        self.plan.committed
    }
}

/// Writes a plan again that was decided before, in the state in which it was decided.
pub(crate) fn write_again(transaction: &Connection, plan: &Plan) -> Result<(), Failure> {
    let before = standing::read(transaction)?.head.seq;
    if before != plan.committed.seq_before {
        let seq = plan.committed.seq_before;
        let detail = format!("the journal goes on from seq {seq}, and the tenant is at {before}");
        return Err(Failure::Damaged(detail));
    }
    let mut known = Known::new();
    for row in &plan.rows {
        if let Some((place, _)) = load::row(transaction, row.key)? {
            known.insert(row.key, place);
        }
    }
    let mut unwritten = Unwritten::default();
    write::write(&ScopeNumbers::default(), transaction, &known, plan, &mut unwritten)?;
    unwritten.write(transaction)
}

/// The version of the newest schema; `None` before the first.
pub(super) fn schema_version(database: &Connection) -> Result<Option<u32>, Failure> {
    let mut newest = database.prepare_cached("SELECT MAX(version) FROM schemas")?;
    Ok(newest.query_row([], |row| row.get(0))?)
}

/// The newest schema, as this transaction sees it.
fn schema(tenant: &OpenTenant, transaction: &Connection) -> Result<Arc<Schema>, Failure> {
    let version = schema_version(transaction)?.ok_or(StoreError::NoSchema)?;
    if let Some(schema) = tenant.schemas.get(version.into()) {
        return Ok(schema);
    }
    let mut stored = transaction.prepare_cached("SELECT json FROM schemas WHERE version = ?1")?;
    let json: String = stored.query_row([version], |row| row.get(0))?;
    Ok(tenant.schemas.parse(&json)?)
}

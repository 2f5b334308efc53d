//! A group commit: load, plan, write, in one transaction under the tenant's lock.
//!
//! Round trips: one to begin, lock and see where the tenant stands, two to load (each statement is parsed first), two
//! to write, one to commit. All pushes of a group share them.

use std::collections::BTreeSet;
use std::sync::Arc;

use farshore_store::StoreError;
use farshore_store::plan::{Context, plan, prepare};
use farshore_store::sync::{Batch, Committed};
use farshore_store::sync_core::ids::Scope;
use farshore_store::sync_core::schema::Schema;
use farshore_store::sync_core::wire::Rights;
use sqlx::Row as _;
use tokio::task::spawn_blocking;

use super::load::{self, Load};
use super::write::Known;
use super::{sums, write};
use crate::database::{Pace, Transaction};
use crate::failure::Failure;
use crate::query::Query;
use crate::tenant::{OpenTenant, TenantTransaction};

pub(super) async fn commit(tenant: &OpenTenant, batch: Batch) -> Result<Committed, Failure> {
    let now_ms = batch.now_ms;
    let scopes = writable_scopes(&batch);
    let prepared = prepare(batch);
    let candidates = sums::candidates(prepared.needs().rows.iter(), &scopes);
    let TenantTransaction { mut transaction, standing } = tenant.write(Pace::Hot).await?;
    let committed = async {
        let loaded =
            load::load(&tenant.names, &mut transaction, prepared.needs(), candidates).await?;
        let schema = schema(tenant, &mut transaction, loaded.schema_version).await?;
        let Load { loaded, documents, sums, .. } = loaded;
        let before = loaded.devices.clone();
        // Merging some thousand rows takes milliseconds, which other tasks must not wait for.
        let plan = spawn_blocking(move || {
            let digest_key = &standing.digest_key;
            let context = Context { schema: &schema, head: standing.head, digest_key, now_ms };
            plan(prepared, loaded, &context)
        })
        .await??;
        let sums = sums::changed(&tenant.names, &mut transaction, &plan.digests, &sums).await?;
        let known = Known { documents, devices: before };
        write::write(&tenant.names, &mut transaction, &known, &plan, &sums).await?;
        Ok(plan.committed)
    }
    .await;
    transaction.end(committed).await
}

/// The scopes in which somebody of a batch may write.
fn writable_scopes(batch: &Batch) -> BTreeSet<Scope> {
    let grants = batch.pushes.iter().flat_map(|push| &push.grants);
    let writable = grants.filter(|grant| grant.rights == Rights::Write);
    writable.map(|grant| grant.scope.clone()).collect()
}

/// The newest schema, as this transaction sees it.
async fn schema(
    tenant: &OpenTenant,
    transaction: &mut Transaction,
    version: Option<u64>,
) -> Result<Arc<Schema>, Failure> {
    let version = version.ok_or(StoreError::NoSchema)?;
    if let Some(schema) = tenant.schemas.get(version) {
        return Ok(schema);
    }
    let stored =
        Query::new(tenant.names.qualify("SELECT json FROM main.schemas WHERE version = $1"));
    let rows = transaction.rows(stored.bind(version.cast_signed())).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok(tenant.schemas.parse(row.try_get(0)?)?)
}

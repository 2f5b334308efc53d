//! Finding the rows in which a device differs from the store: buckets first, then rows.

use std::collections::{BTreeMap, BTreeSet};

use farshore_store::sync::{ChangedRow, RowChange, SyncStore};
use farshore_store::{StoreError, TenantStore};
use farshore_sync_core::digest::{Buckets, Sum, row_sum};
use farshore_sync_core::ids::{CollectionId, Scope};
use farshore_sync_core::wire::limits::MAX_FRAME_BYTES;
use farshore_sync_core::wire::{BucketListing, Grant, Page, Repair, ServerFrame, SumsEntry};

use super::page;

/// Collections whose buckets one answer names; the rest differs again at the next checkpoint.
pub const MAX_SUMS_PER_ANSWER: usize = 512;
/// Bytes of rows that one answer carries; the rest differs again at the next checkpoint.
pub const MAX_REPAIR_BYTES: usize = MAX_FRAME_BYTES / 2;

/// The buckets of every collection whose total is another on the device.
pub(super) async fn compare(
    store: &dyn TenantStore,
    grants: &[Grant],
    totals: Vec<(Scope, CollectionId, Sum)>,
) -> Result<ServerFrame, StoreError> {
    let scopes: Vec<Scope> = grants.iter().map(|grant| grant.scope.clone()).collect();
    let mut ours = store.buckets(&scopes).await?;
    let theirs: BTreeMap<(Scope, CollectionId), Sum> =
        totals.into_iter().map(|(scope, collection, total)| ((scope, collection), total)).collect();
    for place in theirs.keys().filter(|(scope, _)| scopes.contains(scope)) {
        ours.entry(place.clone()).or_insert_with(Buckets::default);
    }
    let differing = ours.into_iter().filter(|(place, buckets)| {
        theirs.get(place).copied().unwrap_or_default() != buckets.total()
    });
    let entries = differing.take(MAX_SUMS_PER_ANSWER).map(|((scope, collection), buckets)| {
        SumsEntry { scope, collection, buckets: buckets.to_bytes().into() }
    });
    Ok(ServerFrame::Sums(entries.collect()))
}

/// The rows of the listed buckets that the device does not hold like this, and its rows that are not ours.
pub(super) async fn repair(
    store: &dyn TenantStore,
    grants: &[Grant],
    listings: Vec<BucketListing>,
) -> Result<ServerFrame, StoreError> {
    let key = store.digest_key().await?;
    let mut found = Page::default();
    let mut unknown = Vec::new();
    let mut bytes = 0;
    for listing in listings {
        if !grants.iter().any(|grant| grant.scope == listing.scope) {
            continue;
        }
        let mut theirs: BTreeSet<u64> = BTreeSet::new();
        theirs.extend(
            listing
                .hashes
                .chunks_exact(8)
                .filter_map(|hash| hash.try_into().ok().map(u64::from_le_bytes)),
        );
        let rows =
            SyncStore::bucket_rows(store, &listing.scope, listing.collection, listing.bucket)
                .await?;
        let mut missing = BTreeMap::new();
        for row in rows {
            let short = row_sum(&key, listing.collection, row.row, &row.state).short();
            if !theirs.remove(&short) {
                missing.insert(row.row, row.state);
            }
        }
        unknown.extend(theirs.into_iter().flat_map(u64::to_le_bytes));
        for (row, state) in missing {
            bytes += state.len();
            if bytes > MAX_REPAIR_BYTES {
                break;
            }
            let chunks = store.chunks((listing.collection, row)).await?;
            bytes += chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>();
            let changed = ChangedRow {
                seq: 0,
                scope: listing.scope.clone(),
                collection: listing.collection,
                row,
                change: RowChange::State(state),
                chunks,
            };
            page::append(&mut found, grants, changed);
        }
    }
    tracing::warn!(
        rows = found.rows.len(),
        unknown = unknown.len() / 8,
        "a device differed and is repaired"
    );
    for entry in &found.rows {
        tracing::info!(collection = entry.collection.0, row = %entry.row, "row sent again after a difference");
    }
    Ok(ServerFrame::Repair(Repair {
        rows: found.rows,
        chunks: found.chunks,
        unknown: unknown.into(),
    }))
}

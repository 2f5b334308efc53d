//! Turning the store's rows into the wire's pages.

use farshore_store::sync::{ChangedRow, RowChange};
use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::digest::{self, Sum, Totals};
use farshore_sync_core::wire::{ChunkEntry, Grant, Page, RowEntry, RowPayload, ScopeIndex};

/// Adds a row, with its document changes, to a page for a device with these scopes; others do not see it.
pub(super) fn append(page: &mut Page, grants: &[Grant], changed: ChangedRow) {
    let Some(scope) = scope_index(grants, &changed) else { return };
    if bugs::planted(Bug::DeletionNotSent) && matches!(changed.change, RowChange::Deleted(_)) {
        return;
    }
    let (collection, row) = (changed.collection, changed.row);
    let payload = match changed.change {
        RowChange::State(state) => RowPayload::State(state.into()),
        RowChange::Deleted(stamp) => RowPayload::Deleted(stamp),
        RowChange::Departed => RowPayload::Departed,
    };
    page.rows.push(RowEntry { scope, collection, row, payload });
    let chunks = changed.chunks.into_iter();
    page.chunks.extend(chunks.map(|chunk| ChunkEntry {
        collection,
        row,
        column: chunk.column,
        change: chunk.bytes.into(),
    }));
}

/// The index of a row's scope among the sorted scopes of a device.
pub(super) fn scope_index(grants: &[Grant], changed: &ChangedRow) -> Option<ScopeIndex> {
    let index = grants.binary_search_by(|grant| grant.scope.cmp(&changed.scope)).ok()?;
    ScopeIndex::try_from(index).ok()
}

/// The root of a device's totals.
pub(super) fn root(totals: &Totals) -> Sum {
    digest::root(totals.iter().map(|((scope, collection), total)| (scope, *collection, *total)))
}

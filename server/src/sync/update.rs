//! A commit on its way to the sessions that it concerns: filtered, encoded and compressed once for all that share their scopes.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use farshore_store::sync::{Committed, RowChange};
use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::digest::{Sum, Totals};
use farshore_sync_core::ids::Scope;
use farshore_sync_core::wire::limits::{MAX_ROWS_PER_PAGE, PAGE_TARGET_BYTES};
use farshore_sync_core::wire::{Checkpoint, Grant, Page};

use super::page;

/// Bytes of rows and changes up to which a commit goes out as one page; larger ones are read from the store.
pub const MAX_SHARED_PAGE_BYTES: usize = 2 * PAGE_TARGET_BYTES;

/// A durable commit.
#[derive(Debug)]
pub struct Update {
    committed: Committed,
    /// The scopes that it touches.
    scopes: BTreeSet<Scope>,
    shareable: bool,
    begins_anew: bool,
    /// One message for each set of scopes, made by the first session that has it.
    messages: Mutex<HashMap<Sum, Bytes>>,
}

impl Update {
    /// Wraps a commit. The answers to its pushes have gone their own way.
    #[must_use]
    pub fn new(mut committed: Committed) -> Self {
        let bytes: usize = committed.rows.iter().map(row_bytes).sum();
        let shareable = !committed.documents_came_anew
            && committed.rows.len() <= MAX_ROWS_PER_PAGE
            && bytes <= MAX_SHARED_PAGE_BYTES;
        let of_rows = committed.rows.iter().map(|row| &row.scope);
        let of_totals = committed.totals.iter().map(|((scope, _), _)| scope);
        let scopes = of_rows.chain(of_totals).cloned().collect();
        if !shareable {
            // Who waits to be read holds no rows that nobody reads.
            committed.rows = Vec::new();
        }
        Self { committed, scopes, shareable, begins_anew: false, messages: Mutex::default() }
    }

    /// No commit: the tenant was restored or moved, and every session ends.
    #[must_use]
    pub fn begin_anew() -> Self {
        Self { begins_anew: true, ..Self::elsewhere(0) }
    }

    /// A commit of another node: what it changed is in the store.
    #[must_use]
    pub fn elsewhere(seq: u64) -> Self {
        let committed = Committed {
            seq_before: seq,
            seq,
            results: Vec::new(),
            rows: Vec::new(),
            totals: Vec::new(),
            documents_came_anew: false,
        };
        let (scopes, messages) = (BTreeSet::new(), Mutex::default());
        Self { committed, scopes, shareable: false, begins_anew: false, messages }
    }

    /// Whether it ends every session.
    #[must_use]
    pub const fn begins_anew(&self) -> bool {
        self.begins_anew
    }

    /// The seq before the commit.
    #[must_use]
    pub const fn seq_before(&self) -> u64 {
        self.committed.seq_before
    }

    /// The scopes that it touches; none where that is not known.
    #[must_use]
    pub const fn scopes(&self) -> &BTreeSet<Scope> {
        &self.scopes
    }

    /// The seq after the commit.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.committed.seq
    }

    /// Whether its rows are all that a reader needs, and few enough for one page.
    #[must_use]
    pub const fn is_shareable(&self) -> bool {
        self.shareable
    }

    /// How many rows it changed.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.committed.rows.len()
    }

    /// How many of them a device with these scopes gets.
    #[must_use]
    pub fn rows_for(&self, grants: &[Grant]) -> usize {
        self.committed.rows.iter().filter(|row| page::scope_index(grants, row).is_some()).count()
    }

    /// Brings a session's totals to the state after the commit.
    pub fn add_totals(&self, totals: &mut Totals, grants: &[Grant]) {
        for (place, change) in &self.committed.totals {
            if grants.binary_search_by(|grant| grant.scope.cmp(&place.0)).is_ok() {
                totals.entry(place.clone()).or_default().add(*change);
            }
        }
    }

    /// The page for a device with these scopes.
    #[must_use]
    pub fn page_for(&self, grants: &[Grant], root: Sum) -> Page {
        let mut page = Page::default();
        for row in &self.committed.rows {
            page::append(&mut page, grants, row.clone());
        }
        page.checkpoint = Some(Checkpoint { seq: self.committed.seq, root });
        page
    }

    /// The message for all sessions with the same scopes, made once.
    pub fn message(&self, grants_hash: Sum, make: impl FnOnce() -> Bytes) -> Bytes {
        let grants_hash = match bugs::planted(Bug::MessageCacheWithoutScopes) {
            true => Sum(0),
            false => grants_hash,
        };
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.entry(grants_hash).or_insert_with(make).clone()
    }
}

fn row_bytes(row: &farshore_store::sync::ChangedRow) -> usize {
    let state = match &row.change {
        RowChange::State(state) => state.len(),
        RowChange::Deleted(_) | RowChange::Departed => 0,
    };
    state + row.chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>() + 32
}

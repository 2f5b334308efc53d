//! A commit on its way to the sessions that it concerns: filtered, encoded and compressed once for all that share their scopes.

use std::collections::{BTreeMap, HashMap};
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
    /// The scopes that it touches. A session looks at what is in its own, as there may be as many sessions as rows.
    scopes: BTreeMap<Scope, InScope>,
    shareable: bool,
    begins_anew: bool,
    /// One message for each set of scopes, made by the first session that has it.
    messages: Mutex<HashMap<Sum, Bytes>>,
}

/// What a commit changed in one scope, by its places in the commit.
#[derive(Debug, Default)]
struct InScope {
    rows: Vec<usize>,
    totals: Vec<usize>,
}

impl Update {
    /// Wraps a commit. The answers to its pushes have gone their own way.
    #[must_use]
    pub fn new(mut committed: Committed) -> Self {
        let bytes: usize = committed.rows.iter().map(row_bytes).sum();
        let shareable = !committed.documents_came_anew
            && committed.rows.len() <= MAX_ROWS_PER_PAGE
            && bytes <= MAX_SHARED_PAGE_BYTES;
        let mut scopes = BTreeMap::<Scope, InScope>::new();
        for (at, row) in committed.rows.iter().enumerate() {
            scopes.entry(row.scope.clone()).or_default().rows.push(at);
        }
        for (at, ((scope, _), _)) in committed.totals.iter().enumerate() {
            scopes.entry(scope.clone()).or_default().totals.push(at);
        }
        if !shareable {
            // Who waits to be read holds no rows that nobody reads.
            committed.rows = Vec::new();
            scopes.values_mut().for_each(|of| of.rows = Vec::new());
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
        let (scopes, messages) = (BTreeMap::new(), Mutex::default());
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
    pub fn scopes(&self) -> impl Iterator<Item = &Scope> {
        self.scopes.keys()
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
        self.of(grants).map(|of| of.rows.len()).sum()
    }

    /// Brings a session's totals to the state after the commit.
    pub fn add_totals(&self, totals: &mut Totals, grants: &[Grant]) {
        for at in self.of(grants).flat_map(|of| &of.totals) {
            let (place, change) = &self.committed.totals[*at];
            totals.entry(place.clone()).or_default().add(*change);
        }
    }

    /// The page for a device with these scopes.
    #[must_use]
    pub fn page_for(&self, grants: &[Grant], root: Sum) -> Page {
        let mut page = Page::default();
        let mut rows: Vec<usize> = self.of(grants).flat_map(|of| &of.rows).copied().collect();
        rows.sort_unstable();
        for at in rows {
            page::append(&mut page, grants, self.committed.rows[at].clone());
        }
        page.checkpoint = Some(Checkpoint { seq: self.committed.seq, root });
        page
    }

    /// What is in the scopes of a device.
    fn of(&self, grants: &[Grant]) -> impl Iterator<Item = &InScope> {
        let by_grants = grants.len() < self.scopes.len();
        let granted = by_grants.then(|| grants.iter().filter_map(|of| self.scopes.get(&of.scope)));
        let is_granted = |scope: &Scope| grants.binary_search_by(|of| of.scope.cmp(scope)).is_ok();
        let touched = (!by_grants).then(|| self.scopes.iter().filter(move |of| is_granted(of.0)));
        let touched = touched.into_iter().flatten().map(|(_, of)| of);
        granted.into_iter().flatten().chain(touched)
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

#[cfg(test)]
mod tests {
    use farshore_store::sync::ChangedRow;
    use farshore_sync_core::ids::{CollectionId, RowId};
    use farshore_sync_core::wire::Rights;

    use super::*;

    const COLLECTION: CollectionId = CollectionId(1);

    /// A commit of a row in each of these scopes, one after the other, whose sums change by their seq.
    fn commit(scopes: &[&str]) -> Update {
        let row = |(seq, scope): (u64, &&str)| ChangedRow {
            seq,
            scope: scope.parse().unwrap(),
            collection: COLLECTION,
            row: RowId::from_bytes([seq as u8; 16]),
            change: RowChange::Departed,
            chunks: vec![],
        };
        let rows: Vec<_> = (1..).zip(scopes).map(row).collect();
        let total = |row: &ChangedRow| ((row.scope.clone(), COLLECTION), Sum(row.seq.into()));
        let totals = rows.iter().map(total).collect();
        let seq = rows.len() as u64;
        let (seq_before, results, documents_came_anew) = (0, vec![], false);
        Update::new(Committed { seq_before, seq, results, rows, totals, documents_came_anew })
    }

    fn grants(scopes: &[&str]) -> Vec<Grant> {
        let grant = |scope: &&str| Grant { scope: scope.parse().unwrap(), rights: Rights::Read };
        scopes.iter().map(grant).collect()
    }

    /// What a device with these scopes gets of a commit: the seqs of the rows, and the sum of what its totals change by.
    fn of(update: &Update, scopes: &[&str]) -> (Vec<u8>, u128) {
        let (grants, mut totals) = (grants(scopes), Totals::new());
        let page = update.page_for(&grants, Sum(0));
        assert_eq!(page.rows.len(), update.rows_for(&grants));
        update.add_totals(&mut totals, &grants);
        let seqs = page.rows.iter().map(|row| row.row.as_bytes()[0]).collect();
        (seqs, totals.values().map(|total| total.0).sum())
    }

    #[test]
    fn a_device_gets_what_is_in_its_scopes_in_order() {
        let update = commit(&["c", "a", "b", "a", "c", "d"]);
        assert_eq!(of(&update, &["b"]), (vec![3], 3));
        assert_eq!(of(&update, &["a", "c"]), (vec![1, 2, 4, 5], 12));
        assert_eq!(of(&update, &["a", "b", "c", "d", "e", "f"]), (vec![1, 2, 3, 4, 5, 6], 21));
        assert_eq!(of(&update, &["e", "f"]), (vec![], 0));
        assert_eq!(of(&update, &["e", "f", "g", "h", "i"]), (vec![], 0));
    }
}

//! A reader that follows a tenant page by page, as a device does.

use std::collections::{BTreeMap, BTreeSet};

use farshore_sync_core::digest::{Sum, Totals};
use farshore_sync_core::ids::{ColumnId, Scope};

use super::fixture::all_scopes;
use crate::SharedTenantStore;
use crate::sync::{PageRead, PageRequest, RowChange, RowKey, ScopeRead};

/// What a reader holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// Its scopes, each with the seq that it holds.
    pub positions: Vec<(Scope, u64)>,
    /// The same at the last complete page.
    checkpoint: Vec<u64>,
    /// The live rows.
    pub rows: BTreeMap<RowKey, HeldRow>,
    /// The totals of the last complete page.
    pub totals: Totals,
}

/// One row that a reader holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRow {
    /// The scope in which it came.
    pub scope: Scope,
    /// Its canonical bytes.
    pub state: Vec<u8>,
    /// The document changes that came with it.
    pub chunks: BTreeSet<(ColumnId, Vec<u8>)>,
}

/// How much one page takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub target_bytes: usize,
    pub max_rows: usize,
}

impl Limits {
    /// Everything in one page.
    pub const NONE: Self = Self { target_bytes: usize::MAX, max_rows: usize::MAX };

    /// At most some rows.
    pub const fn rows(max_rows: usize) -> Self {
        Self { max_rows, ..Self::NONE }
    }

    /// At most some bytes, and the row that reaches them.
    pub const fn bytes(target_bytes: usize) -> Self {
        Self { target_bytes, ..Self::NONE }
    }
}

impl Reader {
    /// A reader of some scopes that holds nothing.
    pub fn new(scopes: Vec<Scope>) -> Self {
        let checkpoint = vec![0; scopes.len()];
        let positions = scopes.into_iter().map(|scope| (scope, 0)).collect();
        Self { positions, checkpoint, rows: BTreeMap::new(), totals: Totals::new() }
    }

    /// All of a tenant, read at once.
    pub async fn everything(store: &SharedTenantStore) -> Self {
        let mut reader = Self::new(all_scopes());
        assert!(reader.page(store, Limits::NONE).await.complete, "one page without limits is all");
        reader
    }

    /// Reads pages until one is complete; returns how many those were.
    pub async fn follow(&mut self, store: &SharedTenantStore, limits: Limits) -> usize {
        const MAX_PAGES: usize = 10_000;
        for pages in 1..=MAX_PAGES {
            if self.page(store, limits).await.complete {
                return pages;
            }
        }
        panic!("a reader that never arrives");
    }

    /// Reads one page and applies it.
    pub async fn page(&mut self, store: &SharedTenantStore, limits: Limits) -> PageRead {
        let Limits { target_bytes, max_rows } = limits;
        let reads = self.positions.iter().zip(&self.checkpoint);
        let scopes = reads.map(|((scope, after), changes_after)| ScopeRead {
            scope: scope.clone(),
            after: *after,
            changes_after: *changes_after,
        });
        let request = PageRequest { scopes: scopes.collect(), target_bytes, max_rows };
        let page = store.page(request).await.unwrap();
        self.check(&page);
        self.apply(&page);
        page
    }

    /// What holds for every page.
    fn check(&self, page: &PageRead) {
        assert_eq!(page.positions.len(), self.positions.len(), "one position for each scope");
        let at_head = page.positions.iter().all(|position| *position == page.head.seq);
        if page.complete {
            assert!(at_head, "a complete page reaches the head in every scope");
        } else {
            assert!(!page.rows.is_empty(), "a page moves on");
            assert!(page.totals.is_empty(), "totals belong to a complete page");
        }
        let mut in_order = page.rows.iter().map(|row| {
            let index = self.positions.iter().position(|(scope, _)| *scope == row.scope);
            (index.expect("only requested scopes come"), row.seq)
        });
        assert!(in_order.by_ref().is_sorted(), "scope after scope, by seq within a scope");
        for ((scope, after), reached) in self.positions.iter().zip(&page.positions) {
            let of_scope = page.rows.iter().filter(|row| row.scope == *scope);
            assert!(of_scope.clone().all(|row| row.seq > *after && row.seq <= *reached));
        }
    }

    fn apply(&mut self, page: &PageRead) {
        for changed in &page.rows {
            let key = (changed.collection, changed.row);
            let held_here = self.rows.get(&key).is_some_and(|held| held.scope == changed.scope);
            match &changed.change {
                RowChange::State(state) => {
                    let before = self.rows.remove(&key);
                    let mut chunks = before.map(|held| held.chunks).unwrap_or_default();
                    let came = changed.chunks.iter();
                    chunks.extend(came.map(|chunk| (chunk.column, chunk.bytes.clone())));
                    let (scope, state) = (changed.scope.clone(), state.clone());
                    self.rows.insert(key, HeldRow { scope, state, chunks });
                }
                RowChange::Deleted(_) => {
                    self.rows.remove(&key);
                }
                RowChange::Departed if held_here => {
                    self.rows.remove(&key);
                }
                RowChange::Departed => {}
            }
        }
        for ((_, held), reached) in self.positions.iter_mut().zip(&page.positions) {
            *held = *reached;
        }
        if page.complete {
            self.checkpoint.clone_from(&page.positions);
            self.totals.clone_from(&page.totals);
            // A store may keep what adds up to nothing, or not.
            self.totals.retain(|_, sum| *sum != Sum::default());
        }
    }
}

//! Filling a page within its budget, the same for every back-end.

use farshore_sync_core::digest::Totals;
use farshore_sync_core::hlc::Stamp;
use farshore_sync_core::row::RowState;

use crate::StoreError;
use crate::sync::{ChangedRow, Head, PageRead, PageRequest, RowChange};

/// A page while it is being read: scope after scope in the order of the request.
///
/// For each scope the back-end offers its changes in the order of their seq with [`PageFill::push`] until that
/// answers [`Room::Full`], or says with [`PageFill::exhausted`] that there are no more.
#[derive(Debug)]
pub struct PageFill {
    target_bytes: usize,
    max_rows: usize,
    head: Head,
    bytes: usize,
    rows: Vec<ChangedRow>,
    positions: Vec<u64>,
    exhausted: usize,
}

/// Whether a page takes more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It takes the next row.
    Left,
    /// It ended before the next row, if there is one.
    Full,
}

impl PageFill {
    /// An empty page over a snapshot that stands at `head`.
    #[must_use]
    pub fn new(request: &PageRequest, head: Head) -> Self {
        Self {
            target_bytes: request.target_bytes,
            max_rows: request.max_rows,
            head,
            bytes: 0,
            rows: Vec::new(),
            positions: request.scopes.iter().map(|read| read.after).collect(),
            exhausted: 0,
        }
    }

    /// Whether one more row belongs to the page. The first one always does, so that every page moves on.
    #[must_use]
    pub fn room(&self) -> Room {
        let full = self.rows.len() >= self.max_rows || self.bytes >= self.target_bytes;
        if full && !self.rows.is_empty() { Room::Full } else { Room::Left }
    }

    /// Takes the next row of the scope that is being read.
    pub fn push(&mut self, row: ChangedRow) {
        assert!(self.room() == Room::Left, "a full page takes no row");
        let position = &mut self.positions[self.exhausted];
        assert!(row.seq > *position, "rows come in the order of their seq");
        *position = row.seq;
        self.bytes += payload_bytes(&row);
        self.rows.push(row);
    }

    /// The scope that is being read has nothing more; the next one of the request follows.
    pub fn exhausted(&mut self) {
        self.positions[self.exhausted] = self.head.seq;
        self.exhausted += 1;
    }

    /// Whether every scope was read to its end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.exhausted == self.positions.len()
    }

    /// The page; `totals` are of the same snapshot and count where it is complete.
    #[must_use]
    pub fn finish(self, totals: Totals) -> PageRead {
        let complete = self.is_complete();
        PageRead {
            head: self.head,
            rows: self.rows,
            positions: self.positions,
            complete,
            totals: if complete { totals } else { Totals::new() },
        }
    }
}

/// The stamp under which a stored row was deleted.
///
/// # Errors
/// [`StoreError::Damaged`] where the bytes are no deleted row.
pub fn deletion_stamp(state: &[u8]) -> Result<Stamp, StoreError> {
    let damaged = |detail: String| StoreError::Damaged { operation: "read a tombstone", detail };
    let state = RowState::decode(state).map_err(|error| damaged(error.to_string()))?;
    let life = state.life.filter(|life| life.deleted);
    life.map(|life| life.stamp).ok_or_else(|| damaged("the row is not deleted".to_owned()))
}

fn payload_bytes(row: &ChangedRow) -> usize {
    let state = match &row.change {
        RowChange::State(state) => state.len(),
        RowChange::Deleted(_) | RowChange::Departed => 0,
    };
    state + row.chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>()
}

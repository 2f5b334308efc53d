//! The state of one row: how a mutation applies to it and how two states of it merge.
//!
//! Invariants, held by the property tests of this module:
//! - [`RowState::merge`] is commutative, associative and idempotent.
//! - Equal states have equal bytes ([`RowState::encode`]), which is what is stored, sent and hashed.

use std::collections::BTreeMap;

use crate::hlc::{Hlc, Stamp};
use crate::ids::{ColumnId, DeviceId};
use crate::value::Value;

mod apply;
mod codec;
mod merge;
#[cfg(test)]
pub(crate) mod properties;

pub use apply::ApplyError;
pub use codec::RowDecodeError;

/// One scalar column of a row with the stamp of the write that won.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Which column.
    pub column: ColumnId,
    /// Its value.
    pub value: Value,
    /// Who wrote it, and when.
    pub stamp: Stamp,
}

/// Whether a row lives, as a register that only delete and restore write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// The delete or restore that won.
    pub stamp: Stamp,
    /// Whether it was a delete.
    pub deleted: bool,
}

/// What each device has added to a counter and taken from it.
pub type CounterTotals = BTreeMap<DeviceId, CounterTotal>;

/// One device's part of a counter. Both numbers only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CounterTotal {
    /// The sum of what it added.
    pub added: u64,
    /// The sum of what it took away.
    pub taken: u64,
}

/// For each element of a set, the latest add of each device and whether a remove has seen it.
pub type SetEntries = BTreeMap<Value, BTreeMap<DeviceId, SetEntry>>;

/// The latest add of an element by one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetEntry {
    /// When it was added.
    pub hlc: Hlc,
    /// Whether no remove has seen this add.
    pub alive: bool,
}

/// Which changes a document holds, without holding them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DocumentSummary {
    /// How many changes.
    pub changes: u32,
    /// The wrapping sum of the first 16 bytes of their hashes, so that order and compaction do not matter.
    pub sum: u128,
}

impl DocumentSummary {
    /// Counts one more change in.
    pub fn add(&mut self, hash: &crate::document::ChangeHash) {
        let mut head = [0; 16];
        head.copy_from_slice(&hash.0[..16]);
        self.changes = self.changes.saturating_add(1);
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(head));
    }
}

/// Everything that is known of one row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowState {
    /// The delete or restore that won; `None` for a row that never was deleted.
    pub life: Option<Life>,
    /// The scalar columns that were ever written, sorted.
    pub cells: Vec<Cell>,
    /// The counters that were ever changed.
    pub counters: BTreeMap<ColumnId, CounterTotals>,
    /// The sets that were ever changed.
    pub sets: BTreeMap<ColumnId, SetEntries>,
    /// The documents that were ever changed.
    pub documents: BTreeMap<ColumnId, DocumentSummary>,
}

impl RowState {
    /// Whether the row is deleted.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.life.is_some_and(|life| life.deleted)
    }

    /// The value of a scalar column; `None` where it was never written.
    #[must_use]
    pub fn value(&self, column: ColumnId) -> Option<&Value> {
        self.cell(column).map(|cell| &cell.value)
    }

    /// The cell of a scalar column.
    #[must_use]
    pub fn cell(&self, column: ColumnId) -> Option<&Cell> {
        self.cells.binary_search_by_key(&column, |cell| cell.column).ok().map(|at| &self.cells[at])
    }

    /// The sum of a counter; at the ends of 64 bits it stays there.
    #[must_use]
    pub fn counter(&self, column: ColumnId) -> i64 {
        let totals = self.counters.get(&column).into_iter().flat_map(BTreeMap::values);
        let sum: i128 = totals.map(|total| i128::from(total.added) - i128::from(total.taken)).sum();
        sum.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }

    /// The elements of a set, sorted.
    pub fn set(&self, column: ColumnId) -> impl Iterator<Item = &Value> {
        let entries = self.sets.get(&column).into_iter().flatten();
        entries.filter(|(_, adds)| adds.values().any(|add| add.alive)).map(|(element, _)| element)
    }

    /// The latest stamp of anything in the row; `None` where nothing in it has one.
    #[must_use]
    pub fn latest_hlc(&self) -> Option<Hlc> {
        let cells = self.cells.iter().map(|cell| cell.stamp.hlc);
        let life = self.life.iter().map(|life| life.stamp.hlc);
        let adds = self.sets.values().flatten().flat_map(|(_, adds)| adds.values());
        cells.chain(life).chain(adds.map(|add| add.hlc)).max()
    }

    /// The adds of an element that are visible here: what a remove made here has observed.
    #[must_use]
    pub fn observed_adds(&self, column: ColumnId, element: &Value) -> Vec<Stamp> {
        let adds =
            self.sets.get(&column).and_then(|entries| entries.get(element)).into_iter().flatten();
        adds.filter(|(_, add)| add.alive)
            .map(|(device, add)| Stamp { hlc: add.hlc, device: *device })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::ChangeHash;

    fn at(hlc: u64, device: u8) -> Stamp {
        Stamp { hlc: Hlc(hlc), device: DeviceId::from_bytes([device; 16]) }
    }

    #[test]
    fn a_summary_counts_changes_and_sums_the_heads_of_their_hashes() {
        let hash = |head: u128, tail: u8| {
            let mut hash = [tail; 32];
            hash[..16].copy_from_slice(&head.to_le_bytes());
            ChangeHash(hash)
        };
        let mut summary = DocumentSummary::default();
        summary.add(&hash(5, 1));
        summary.add(&hash(u128::MAX, 2));
        assert_eq!(summary, DocumentSummary { changes: 2, sum: 4 });
    }

    #[test]
    fn the_latest_stamp_is_that_of_a_cell_a_delete_or_an_add() {
        let mut row = RowState::default();
        assert_eq!(row.latest_hlc(), None);
        let cell =
            |column, hlc| Cell { column: ColumnId(column), value: Value::Null, stamp: at(hlc, 1) };
        row.cells = vec![cell(1, 7), cell(2, 4)];
        assert_eq!(row.latest_hlc(), Some(Hlc(7)));
        row.life = Some(Life { stamp: at(8, 1), deleted: true });
        assert_eq!(row.latest_hlc(), Some(Hlc(8)));
        let entry = SetEntry { hlc: Hlc(9), alive: false };
        let adds = BTreeMap::from([(DeviceId::from_bytes([2; 16]), entry)]);
        row.sets.insert(ColumnId(3), BTreeMap::from([(Value::Null, adds)]));
        assert_eq!(row.latest_hlc(), Some(Hlc(9)), "also where a remove has seen the add");
    }
}

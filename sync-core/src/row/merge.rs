//! The merge of two states of one row.

use std::cmp::Ordering;

use super::{Cell, CounterTotal, DocumentSummary, RowState, SetEntry};

impl RowState {
    /// The state that holds what both hold: commutative, associative and idempotent.
    ///
    /// Documents merge by their chunks, not by their summaries; of two summaries the larger one stays until
    /// the chunks have been exchanged.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let mut merged = self.clone();
        merged.life = self.life.max(other.life);
        merged.cells = merge_cells(&self.cells, &other.cells);
        for (column, totals) in &other.counters {
            let mine = merged.counters.entry(*column).or_default();
            for (device, theirs) in totals {
                let total = mine.entry(*device).or_default();
                *total = CounterTotal {
                    added: total.added.max(theirs.added),
                    taken: total.taken.max(theirs.taken),
                };
            }
        }
        for (column, entries) in &other.sets {
            let mine = merged.sets.entry(*column).or_default();
            for (element, adds) in entries {
                let mine = mine.entry(element.clone()).or_default();
                for (device, theirs) in adds {
                    mine.entry(*device)
                        .and_modify(|entry| *entry = later(*entry, *theirs))
                        .or_insert(*theirs);
                }
            }
        }
        for (column, theirs) in &other.documents {
            let mine = merged.documents.entry(*column).or_default();
            *mine = larger(*mine, *theirs);
        }
        merged
    }
}

fn merge_cells(mine: &[Cell], theirs: &[Cell]) -> Vec<Cell> {
    let mut merged = Vec::with_capacity(mine.len().max(theirs.len()));
    let (mut mine, mut theirs) = (mine.iter().peekable(), theirs.iter().peekable());
    loop {
        let order = match (mine.peek(), theirs.peek()) {
            (Some(a), Some(b)) => a.column.cmp(&b.column),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return merged,
        };
        let winner = match order {
            Ordering::Less => mine.next(),
            Ordering::Greater => theirs.next(),
            Ordering::Equal => {
                let (a, b) = (mine.next(), theirs.next());
                // One stamp is one write; bytes decide only where a cloned device broke that.
                a.zip(b).map(|(a, b)| if (a.stamp, &a.value) < (b.stamp, &b.value) { b } else { a })
            }
        };
        merged.extend(winner.cloned());
    }
}

fn later(a: SetEntry, b: SetEntry) -> SetEntry {
    match a.hlc.cmp(&b.hlc) {
        Ordering::Greater => a,
        Ordering::Less => b,
        Ordering::Equal => SetEntry { hlc: a.hlc, alive: a.alive && b.alive },
    }
}

fn larger(a: DocumentSummary, b: DocumentSummary) -> DocumentSummary {
    if (a.changes, a.sum) < (b.changes, b.sum) { b } else { a }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::hlc::{Hlc, Stamp};
    use crate::ids::{ColumnId, DeviceId};
    use crate::row::{Life, SetEntries};
    use crate::value::Value;

    /// Both ways round, as merging is the same either way.
    fn assert_merged(a: &RowState, b: &RowState, expected: &RowState) {
        assert_eq!(&a.merge(b), expected);
        assert_eq!(&b.merge(a), expected);
    }

    fn device(number: u8) -> DeviceId {
        DeviceId::from_bytes([number; 16])
    }

    fn cell(column: u16, text: &str, hlc: u64) -> Cell {
        let stamp = Stamp { hlc: Hlc(hlc), device: device(1) };
        Cell { column: ColumnId(column), value: Value::from(text), stamp }
    }

    fn cells(cells: &[Cell]) -> RowState {
        RowState { cells: cells.to_vec(), ..RowState::default() }
    }

    #[test]
    fn of_two_cells_the_later_one_stays_and_columns_of_either_side_do() {
        let one = cells(&[cell(1, "one", 5), cell(2, "new", 9), cell(4, "same", 3)]);
        let other = cells(&[cell(2, "old", 8), cell(3, "other", 1), cell(4, "same", 3)]);
        let both = [cell(1, "one", 5), cell(2, "new", 9), cell(3, "other", 1), cell(4, "same", 3)];
        assert_merged(&one, &other, &cells(&both));
        // A cloned device wrote twice under one stamp: the larger value stays everywhere.
        let greater = cells(&[cell(1, "b", 5)]);
        assert_merged(&cells(&[cell(1, "a", 5)]), &greater, &greater);
    }

    #[test]
    fn of_two_lives_the_later_one_stays() {
        let row = |hlc, deleted| {
            let stamp = Stamp { hlc: Hlc(hlc), device: device(1) };
            RowState { life: Some(Life { stamp, deleted }), ..RowState::default() }
        };
        assert_merged(&row(5, true), &row(6, false), &row(6, false));
        assert_merged(&row(5, true), &RowState::default(), &row(5, true));
    }

    #[test]
    fn each_side_of_a_counter_is_the_larger_one_for_each_device() {
        let row = |totals: &[(u8, u64, u64)]| {
            let total = |&(number, added, taken)| (device(number), CounterTotal { added, taken });
            let counters = [(ColumnId(1), totals.iter().map(total).collect())];
            RowState { counters: counters.into(), ..RowState::default() }
        };
        let (one, other) = (row(&[(1, 5, 2), (2, 1, 1)]), row(&[(1, 4, 3), (3, 7, 0)]));
        assert_merged(&one, &other, &row(&[(1, 5, 3), (2, 1, 1), (3, 7, 0)]));
    }

    #[test]
    fn a_remove_takes_the_add_that_it_saw_and_no_later_one() {
        let row = |hlc, alive| {
            let adds = BTreeMap::from([(device(1), SetEntry { hlc: Hlc(hlc), alive })]);
            let entries: SetEntries = [(Value::from("x"), adds)].into();
            RowState { sets: [(ColumnId(1), entries)].into(), ..RowState::default() }
        };
        assert_merged(&row(5, true), &row(5, false), &row(5, false));
        assert_merged(&row(6, true), &row(5, false), &row(6, true));
        assert_merged(&RowState::default(), &row(5, false), &row(5, false));
    }

    #[test]
    fn of_two_summaries_of_a_document_the_larger_one_stays() {
        let row = |changes, sum| RowState {
            documents: BTreeMap::from([(ColumnId(1), DocumentSummary { changes, sum })]),
            ..RowState::default()
        };
        assert_merged(&row(1, 9), &row(2, 3), &row(2, 3));
        assert_merged(&row(2, 3), &row(2, 4), &row(2, 4));
        assert_merged(&RowState::default(), &row(1, 9), &row(1, 9));
    }
}

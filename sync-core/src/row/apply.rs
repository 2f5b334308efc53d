//! How a mutation changes a row. Server, device and simulator all call this.

use super::{Cell, Life, RowState, SetEntry};
use crate::bugs::{self, Bug};
use crate::document::ChangeHash;
use crate::hlc::Stamp;
use crate::ids::ColumnId;
use crate::mutation::{Cells, Op};
use crate::reason::ReasonCode;
use crate::value::Value;

/// Why a mutation does not apply to a row as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The mutation needs a row that is not there.
    #[error("the row does not exist")]
    RowMissing,
    /// The row is deleted: a delete beats concurrent edits.
    #[error("the row is deleted; restore it first")]
    RowDeleted,
}

impl From<ApplyError> for ReasonCode {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::RowMissing => Self::RowMissing,
            ApplyError::RowDeleted => Self::RowDeleted,
        }
    }
}

impl RowState {
    /// The row after a mutation under a stamp; `row` is `None` where the row does not exist yet.
    ///
    /// For a document change the caller says by `new_change` whether the document gains it: a change that it
    /// has already does not count twice, nor does it matter to a deleted row. Whether values fit the schema is
    /// checked elsewhere.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn apply(
        row: Option<Self>,
        op: Op,
        stamp: Stamp,
        new_change: Option<&ChangeHash>,
    ) -> Result<Self, ApplyError> {
        let mut state = match (row, &op) {
            (Some(row), Op::Restore | Op::Delete | Op::Offer { .. }) => row,
            (Some(row), _) if row.is_deleted() && bugs::planted(Bug::EditRevivesRow) => {
                Self { life: None, ..row }
            }
            // Whoever offers it to a restored server cannot know that it is there: deleted rows come without changes.
            (Some(row), Op::Document { .. }) if row.is_deleted() && new_change.is_none() => {
                return Ok(row);
            }
            (Some(row), _) if row.is_deleted() => return Err(ApplyError::RowDeleted),
            (Some(row), _) => row,
            (None, Op::Insert { .. } | Op::Offer { .. }) => Self::default(),
            (None, _) => return Err(ApplyError::RowMissing),
        };
        state.change(op, stamp, new_change);
        Ok(state)
    }

    /// What an operation has left to do, where this is the row before the transaction with `stamp`.
    ///
    /// A device sends a transaction again that a lost server took without its answer arriving, and another device may
    /// have offered what came of it by then. An add to a set that the row has had is not made anew: somebody who saw it
    /// may have removed the element.
    #[must_use]
    pub fn not_done_yet(&self, op: Op, stamp: Stamp) -> Op {
        let added = |column: &ColumnId, element: &Value| {
            let add = self.sets.get(column).and_then(|set| set.get(element)?.get(&stamp.device));
            add.is_some_and(|add| add.hlc == stamp.hlc)
        };
        match op {
            Op::SetAdd { column, element } if added(&column, &element) => {
                Op::Update { cells: Cells::default() }
            }
            Op::SetRemove { column, element, mut observed } if added(&column, &element) => {
                // Where the transaction added the element once more, that add is the one that was done.
                observed.retain(|seen| *seen != stamp);
                Op::SetRemove { column, element, observed }
            }
            op => op,
        }
    }

    fn change(&mut self, op: Op, stamp: Stamp, new_change: Option<&ChangeHash>) {
        match op {
            Op::Insert { cells } | Op::Update { cells } => self.write(cells, stamp),
            Op::Delete => self.set_life(Life { stamp, deleted: true }),
            Op::Restore => self.set_life(Life { stamp, deleted: false }),
            Op::Increment { column, delta } => {
                let total =
                    self.counters.entry(column).or_default().entry(stamp.device).or_default();
                let side = if delta < 0 { &mut total.taken } else { &mut total.added };
                let before = if bugs::planted(Bug::CounterPlainSet) { 0 } else { *side };
                *side = before.saturating_add(delta.unsigned_abs());
            }
            Op::SetAdd { column, element } => {
                let adds = self.sets.entry(column).or_default().entry(element).or_default();
                let entry =
                    adds.entry(stamp.device).or_insert(SetEntry { hlc: stamp.hlc, alive: true });
                if stamp.hlc >= entry.hlc {
                    *entry = SetEntry { hlc: stamp.hlc, alive: true };
                }
            }
            Op::SetRemove { column, element, observed } => {
                for seen in observed {
                    let set = self.sets.get_mut(&column);
                    match set.and_then(|set| set.get_mut(&element)?.get_mut(&seen.device)) {
                        // An add whose stamp the server moved back is still the add that was seen.
                        Some(add) if add.hlc <= seen.hlc => add.alive = false,
                        Some(_) => {}
                        // A server that was restored lacks the add, and whoever has seen it will offer it.
                        None if seen.device == stamp.device => {
                            let gone = SetEntry { hlc: seen.hlc.min(stamp.hlc), alive: false };
                            let set = self.sets.entry(column).or_default();
                            set.entry(element.clone()).or_default().insert(seen.device, gone);
                        }
                        None => {}
                    }
                }
            }
            Op::Document { column, .. } => {
                let summary = self.documents.entry(column).or_default();
                if let Some(hash) = new_change {
                    summary.add(hash);
                }
            }
            Op::Offer { state } => *self = self.merge(&state),
        }
    }

    fn write(&mut self, cells: Cells, stamp: Stamp) {
        if self.cells.is_empty() {
            let cells = cells.into_vec().into_iter();
            self.cells = cells.map(|(column, value)| Cell { column, value, stamp }).collect();
            return;
        }
        for (column, value) in cells.into_vec() {
            let cell = Cell { column, value, stamp };
            match self.cells.binary_search_by_key(&column, |cell| cell.column) {
                // The same transaction may write a column twice: the later write stays.
                Ok(at) if self.cells[at].stamp <= stamp => self.cells[at] = cell,
                Ok(_) => {}
                Err(at) => self.cells.insert(at, cell),
            }
        }
    }

    fn set_life(&mut self, life: Life) {
        if self.life.is_none_or(|before| before.stamp <= life.stamp) {
            self.life = Some(life);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlc::Hlc;
    use crate::ids::DeviceId;

    const COLUMN: ColumnId = ColumnId(1);

    fn at(hlc: u64, device: u8) -> Stamp {
        Stamp { hlc: Hlc(hlc), device: DeviceId::from_bytes([device; 16]) }
    }

    fn insert(text: &str) -> Op {
        Op::Insert { cells: Cells::new(vec![(COLUMN, Value::from(text))]) }
    }

    fn apply(row: Option<&RowState>, op: &Op, stamp: Stamp) -> RowState {
        RowState::apply(row.cloned(), op.clone(), stamp, None).unwrap()
    }

    #[test]
    fn the_later_write_wins_and_the_device_breaks_ties() {
        let row = apply(None, &insert("first"), at(5, 1));
        assert_eq!(
            apply(Some(&row), &insert("older"), at(4, 9)).value(COLUMN),
            Some(&Value::from("first"))
        );
        assert_eq!(
            apply(Some(&row), &insert("tie"), at(5, 2)).value(COLUMN),
            Some(&Value::from("tie"))
        );
        assert_eq!(
            apply(Some(&row), &insert("again"), at(5, 1)).value(COLUMN),
            Some(&Value::from("again")),
            "one transaction may write a column twice"
        );
    }

    #[test]
    fn a_delete_beats_edits_and_only_a_restore_brings_the_row_back() {
        let row = apply(None, &insert("here"), at(5, 1));
        let deleted = apply(Some(&row), &Op::Delete, at(6, 1));
        assert!(deleted.is_deleted());
        let edit = RowState::apply(Some(deleted.clone()), insert("late"), at(99, 2), None);
        assert_eq!(edit, Err(ApplyError::RowDeleted));
        assert!(
            apply(Some(&deleted), &Op::Restore, at(3, 2)).is_deleted(),
            "an earlier restore does nothing"
        );
        let restored = apply(Some(&deleted), &Op::Restore, at(7, 2));
        assert!(!restored.is_deleted());
        assert_eq!(restored.value(COLUMN), Some(&Value::from("here")));
    }

    #[test]
    fn a_deleted_row_gains_no_document_change_and_keeps_those_it_has() {
        let type_in = || Op::Document { column: COLUMN, change: Vec::new() };
        let (first, second) = (ChangeHash([1; 32]), ChangeHash([2; 32]));
        let row = apply(None, &insert("here"), at(5, 1));
        let row = RowState::apply(Some(row), type_in(), at(6, 1), Some(&first)).unwrap();
        let summary = row.documents[&COLUMN];
        let more = RowState::apply(Some(row.clone()), type_in(), at(7, 1), Some(&second)).unwrap();
        assert_ne!(more.documents[&COLUMN], summary);
        let deleted = apply(Some(&row), &Op::Delete, at(8, 1));
        let new = RowState::apply(Some(deleted.clone()), type_in(), at(9, 1), Some(&second));
        assert_eq!(new, Err(ApplyError::RowDeleted));
        assert_eq!(apply(Some(&deleted), &type_in(), at(9, 1)), deleted);
        // A living row has a document from its first change on, also where that is known already.
        let living = apply(Some(&apply(None, &insert("here"), at(5, 1))), &type_in(), at(6, 1));
        assert!(living.documents.contains_key(&COLUMN));
    }

    #[test]
    fn nothing_but_an_insert_makes_a_row() {
        for op in [Op::Delete, Op::Restore, Op::Increment { column: COLUMN, delta: 1 }] {
            assert_eq!(RowState::apply(None, op, at(1, 1), None), Err(ApplyError::RowMissing));
        }
    }

    #[test]
    fn increments_of_every_device_count() {
        let row = apply(None, &insert("x"), at(1, 1));
        let row = apply(Some(&row), &Op::Increment { column: COLUMN, delta: 5 }, at(2, 1));
        let row = apply(Some(&row), &Op::Increment { column: COLUMN, delta: -7 }, at(2, 2));
        assert_eq!(row.counter(COLUMN), -2);
        let row = apply(Some(&row), &Op::Increment { column: COLUMN, delta: i64::MIN }, at(3, 2));
        let row = apply(Some(&row), &Op::Increment { column: COLUMN, delta: i64::MIN }, at(4, 2));
        assert_eq!(row.counter(COLUMN), i64::MIN);
    }

    #[test]
    fn an_add_that_was_done_and_removed_is_not_done_again() {
        let element = Value::from("x");
        let add = Op::SetAdd { column: COLUMN, element: element.clone() };
        let row = apply(None, &insert("x"), at(1, 1));
        assert_eq!(row.not_done_yet(add.clone(), at(2, 1)), add);
        let added = apply(Some(&row), &add, at(2, 1));
        let observed = added.observed_adds(COLUMN, &element);
        let remove = Op::SetRemove { column: COLUMN, element: element.clone(), observed };
        let removed = apply(Some(&added), &remove, at(3, 2));
        let again = apply(Some(&removed), &removed.not_done_yet(add.clone(), at(2, 1)), at(2, 1));
        assert_eq!(again, removed);
        for (hlc, device) in [(4, 1), (2, 2)] {
            let stamp = at(hlc, device);
            let later = apply(Some(&removed), &removed.not_done_yet(add.clone(), stamp), stamp);
            assert_eq!(later.set(COLUMN).count(), 1, "another add");
        }
        // One transaction may take its own add back and make it again; sent again, it ends as it did.
        let stamp = at(2, 1);
        let steps = [&add, &remove, &add];
        let once = steps.iter().fold(row.clone(), |row, op| apply(Some(&row), op, stamp));
        let twice = steps.iter().fold(once.clone(), |row, op| {
            apply(Some(&row), &once.not_done_yet((*op).clone(), stamp), stamp)
        });
        assert_eq!((once.set(COLUMN).count(), &twice), (1, &once));
        // Sent for the first time, it does all of it: what it takes back is its own add.
        for op in steps {
            assert_eq!(row.not_done_yet(op.clone(), stamp), *op);
        }
    }

    #[test]
    fn an_own_add_that_comes_after_its_remove_stays_removed() {
        let element = Value::from("x");
        let add = Op::SetAdd { column: COLUMN, element: element.clone() };
        let row = apply(None, &insert("x"), at(1, 1));
        let [own, others] = [at(2, 1), at(2, 2)].map(|stamp| apply(Some(&row), &add, stamp));
        let remove =
            |observed| Op::SetRemove { column: COLUMN, element: element.clone(), observed };
        let removed = apply(Some(&row), &remove(vec![at(2, 1)]), at(5, 1));
        assert_eq!(removed.merge(&own).set(COLUMN).count(), 0);
        assert_eq!(removed.merge(&others).set(COLUMN).count(), 1, "of another device");
        assert_eq!(apply(Some(&removed), &add, at(6, 1)).set(COLUMN).count(), 1, "added anew");
        // By a clock that ran ahead; the remove has been dated back by now.
        let removed = apply(Some(&row), &remove(vec![at(90, 1)]), at(5, 1));
        assert_eq!(apply(Some(&removed), &add, at(6, 1)).set(COLUMN).count(), 1);
        for nothing in [vec![], vec![at(2, 2)]] {
            let removed = apply(Some(&row), &remove(nothing), at(5, 1));
            assert_eq!(removed, row, "nobody else's adds are foretold");
        }
    }

    #[test]
    fn an_add_survives_a_remove_that_has_not_seen_it() {
        let element = Value::from("x");
        let add = Op::SetAdd { column: COLUMN, element: element.clone() };
        let row = apply(Some(&apply(None, &insert("x"), at(1, 1))), &add, at(2, 1));
        let remove = Op::SetRemove {
            column: COLUMN,
            element: element.clone(),
            observed: row.observed_adds(COLUMN, &element),
        };
        let again = apply(Some(&row), &add, at(3, 1));
        assert_eq!(apply(Some(&again), &remove, at(9, 2)).set(COLUMN).count(), 1, "added again");
        let row = apply(Some(&row), &add, at(2, 2));
        let row = apply(Some(&row), &remove, at(9, 1));
        assert_eq!(row.set(COLUMN).collect::<Vec<_>>(), [&element]);
        let remove = Op::SetRemove {
            column: COLUMN,
            element: element.clone(),
            observed: row.observed_adds(COLUMN, &element),
        };
        assert_eq!(apply(Some(&row), &remove, at(10, 1)).set(COLUMN).count(), 0);
    }
}

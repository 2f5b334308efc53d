//! One mutation of a local transaction: recorded for the server, and laid over the row.

use farshore_sync_core::document::{Change, ChangeHash};
use farshore_sync_core::hlc::Hlc;
use farshore_sync_core::ids::{CollectionId, ColumnId, RowId};
use farshore_sync_core::mutation::{
    MAX_TRANSACTION_HEAD_BYTES, Mutation, MutationWriter, Op, Transaction,
};
use farshore_sync_core::row::{ApplyError, RowState};
use farshore_sync_core::value::Value;
use farshore_sync_core::wire::limits::{
    MAX_MUTATIONS_PER_TRANSACTION, MAX_ROW_BYTES, MAX_TRANSACTION_BYTES,
};

use super::WriteError;
use super::check::{check_row, no_scope};
use super::documents::DocumentKey;
use super::layout::CollectionLayout;
use super::numbers::ScopeNumber;
use super::pending::{Numbers, Pending};
use super::rows::{RowKey, Stored};
use super::write::WriteTransaction;

/// What the encoding of a row may have beyond that of the mutation that inserts it.
const ROW_OVERHEAD_BYTES: usize = 64;

/// What a row's encoding may have beyond it for each cell: the number of its column.
const CELL_OVERHEAD_BYTES: usize = 3;

/// The mutations of a transaction, encoded as they come.
#[derive(Debug, Default)]
pub(super) struct Mutations {
    encoded: Vec<u8>,
    count: usize,
    writer: MutationWriter,
    /// The writer as it was before the last mutation.
    before: MutationWriter,
}

impl Mutations {
    /// Appends a mutation, and returns where it begins. Nothing is appended beyond the caps of the protocol.
    fn push(&mut self, mutation: &Mutation) -> Result<usize, WriteError> {
        self.append(|writer, bytes| writer.write(bytes, mutation))
    }

    /// Appends the insert of a row: [`Mutations::push`] without a copy of the values.
    fn push_insert(
        &mut self,
        collection: CollectionId,
        row: RowId,
        cells: &[(ColumnId, &Value)],
    ) -> Result<usize, WriteError> {
        self.append(|writer, bytes| writer.write_insert(bytes, collection, row, cells))
    }

    fn append(
        &mut self,
        write: impl FnOnce(&mut MutationWriter, &mut Vec<u8>),
    ) -> Result<usize, WriteError> {
        if self.count >= MAX_MUTATIONS_PER_TRANSACTION {
            return Err(WriteError::TooLarge {
                what: "mutations of the transaction",
                found: self.count + 1,
                limit: MAX_MUTATIONS_PER_TRANSACTION,
            });
        }
        let start = self.encoded.len();
        self.before.reset_to(&self.writer);
        write(&mut self.writer, &mut self.encoded);
        self.count += 1;
        let found = self.encoded.len() + MAX_TRANSACTION_HEAD_BYTES;
        if found > MAX_TRANSACTION_BYTES {
            self.pop(start);
            let (what, limit) = ("bytes of the transaction", MAX_TRANSACTION_BYTES);
            return Err(WriteError::TooLarge { what, found, limit });
        }
        Ok(start)
    }

    /// Takes the last mutation back.
    fn pop(&mut self, start: usize) {
        self.encoded.truncate(start);
        self.writer.reset_to(&self.before);
        self.count -= 1;
    }

    /// The canonical bytes of the transaction; `None` where nothing was written.
    pub(super) fn encode_transaction(&mut self, number: u64, stamp: Hlc) -> Option<Vec<u8>> {
        (self.count > 0)
            .then(|| Transaction::encode_written(number, stamp, self.count, &self.encoded))
    }
}

impl<'a> WriteTransaction<'a> {
    /// Inserts a row of which nothing is kept, in one statement and without a copy of its values.
    pub(super) fn insert_new(
        &mut self,
        layout: &'a CollectionLayout,
        row: RowId,
        cells: &[(ColumnId, &Value)],
    ) -> Result<(), WriteError> {
        let scope = self.scope_of_new(layout, cells)?;
        let start = self.mutations.push_insert(layout.id, row, cells)?;
        let written = self.mutations.encoded.len() - start;
        let found = written + ROW_OVERHEAD_BYTES + CELL_OVERHEAD_BYTES * cells.len();
        if found > MAX_ROW_BYTES {
            self.mutations.pop(start);
            return Err(WriteError::TooLarge {
                what: "bytes of the row",
                found,
                limit: MAX_ROW_BYTES,
            });
        }
        let pending = &self.inserted_by_this;
        match self.tx.insert_local(layout, row, Some(scope), pending, cells, self.stamp) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.mutations.pop(start);
                Err(WriteError::RowExists { collection: layout.name().to_owned(), row })
            }
            Err(failure) => Err(self.fail(failure)),
        }
    }

    fn scope_of_new(
        &mut self,
        layout: &CollectionLayout,
        cells: &[(ColumnId, &Value)],
    ) -> Result<ScopeNumber, WriteError> {
        let of_row;
        let scope = match &layout.constant_scope {
            Some(constant) => constant,
            None => {
                let value_of = |column| {
                    let at = cells.binary_search_by_key(&column, |(id, _)| *id).ok()?;
                    Some(cells[at].1)
                };
                of_row = layout.scope_of(value_of).ok_or_else(|| no_scope(layout))?;
                &of_row
            }
        };
        let number = self.tx.known.scopes.number_of(self.tx.connection, scope);
        number.map_err(|failure| self.fail(failure))
    }

    /// Applies a mutation to a row as it is stored.
    pub(super) fn change(
        &mut self,
        key: RowKey,
        stored: Option<Stored>,
        op: Op,
    ) -> Result<(), WriteError> {
        match self.tx.unconfirmed_change(key, &op) {
            Ok(new_change) => self.change_as(key, stored, op, new_change),
            Err(failure) => Err(self.fail(failure)),
        }
    }

    /// Applies a change of a document that this transaction has made.
    pub(super) fn change_document(
        &mut self,
        (key, column): DocumentKey,
        stored: Option<Stored>,
        made: Change,
    ) -> Result<(), WriteError> {
        match self.tx.unconfirmed((key, column), made.hash) {
            Ok(new_change) => {
                let op = Op::Document { column, change: made.bytes };
                self.change_as(key, stored, op, new_change)
            }
            Err(failure) => Err(self.fail(failure)),
        }
    }

    /// `new_change` is the hash of a document change that the server's state does not count yet.
    fn change_as(
        &mut self,
        key: RowKey,
        stored: Option<Stored>,
        op: Op,
        new_change: Option<ChangeHash>,
    ) -> Result<(), WriteError> {
        let layout = self.tx.layout;
        let layout = layout.collection(key.0);
        let before = stored.as_ref().and_then(|stored| stored.visible.clone());
        let visible = RowState::apply(before, op.clone(), self.stamp, new_change.as_ref())
            .map_err(|error| self.apply_error(key, error))?;
        if let Some(layout) = layout {
            check_row(layout, &visible)?;
            let in_scope =
                |state: &RowState| layout.scope_of(|column| state.value(column)).is_some();
            let places = match &op {
                Op::Insert { .. } => true,
                // Of a row that was brought back the server may have all values, and this device none.
                Op::Update { .. } => {
                    stored.as_ref().and_then(|stored| stored.visible.as_ref()).is_some_and(in_scope)
                }
                _ => false,
            };
            if places && !in_scope(&visible) {
                return Err(no_scope(layout));
            }
        }
        let mutation = Mutation { collection: key.0, row: key.1, op };
        self.mutations.push(&mutation)?;
        if let (Some(hash), Op::Document { column, change }) = (new_change, &mutation.op) {
            let added = self.tx.add_own_change((key, *column), hash, self.number, change);
            added.map_err(|failure| self.fail(failure))?;
        }
        self.lay(key, stored, &visible).map_err(|failure| self.fail(failure))
    }

    fn lay(
        &mut self,
        key: RowKey,
        stored: Option<Stored>,
        visible: &RowState,
    ) -> Result<(), super::error::Failure> {
        let was_in = stored.as_ref().map(|stored| stored.head.place);
        let (head, before) =
            stored.map_or((None, None), |stored| (Some(stored.head), stored.visible));
        let (scope, sum) = head.as_ref().map_or((None, None), |head| (head.scope, head.sum));
        let pending = head.and_then(|head| head.pending);
        let mut pending = pending.unwrap_or_else(|| Pending {
            numbers: Numbers::default(),
            base: before.map(|state| state.encode()),
        });
        pending.numbers.add(self.number);
        // A row that the server has stays in its scope until the server has moved it.
        let scope = match scope.filter(|_| pending.base.is_some()) {
            Some(scope) => Some(scope),
            None => self.tx.resolved_scope(key, Some(visible))?,
        };
        self.tx.save(key, was_in, scope, sum, Some(&pending), Some(visible))
    }

    /// Refuses a row that is not there or deleted.
    pub(super) fn require_live(
        &self,
        layout: &CollectionLayout,
        row: RowId,
        visible: Option<&RowState>,
    ) -> Result<(), WriteError> {
        match visible {
            None => Err(self.apply_error((layout.id, row), ApplyError::RowMissing)),
            Some(state) if state.is_deleted() => {
                Err(self.apply_error((layout.id, row), ApplyError::RowDeleted))
            }
            Some(_) => Ok(()),
        }
    }

    fn apply_error(&self, key: RowKey, error: ApplyError) -> WriteError {
        let layout = self.tx.layout.collection(key.0);
        let collection =
            layout.map_or_else(|| key.0.to_string(), |layout| layout.name().to_owned());
        match error {
            ApplyError::RowMissing => WriteError::RowMissing { collection, row: key.1 },
            ApplyError::RowDeleted => WriteError::RowDeleted { collection, row: key.1 },
        }
    }
}

#[cfg(test)]
mod tests {
    use farshore_sync_core::mutation::Cells;

    use super::*;

    #[test]
    fn an_insert_has_the_same_bytes_with_and_without_a_copy() {
        let (collection, row) = (CollectionId(300), RowId::from_bytes([7; 16]));
        let cells = vec![(ColumnId(1), Value::from("x")), (ColumnId(400), Value::Timestamp(-5))];
        let (mut copied, mut borrowed) = (Mutations::default(), Mutations::default());
        let borrowed_cells: Vec<_> = cells.iter().map(|(column, value)| (*column, value)).collect();
        let op = Op::Insert { cells: Cells::new(cells.clone()) };
        let mutation = Mutation { collection, row, op };
        for _ in 0..2 {
            borrowed.push_insert(collection, row, &borrowed_cells).unwrap();
            copied.push(&mutation).unwrap();
            assert_eq!(borrowed.encoded, copied.encoded);
        }
    }

    #[test]
    fn what_was_taken_back_leaves_nothing_behind() {
        let cell = |column: u16| (ColumnId(column), Value::Int(column.into()));
        let insert = |row: u8, column: u16| Mutation {
            collection: CollectionId(1),
            row: RowId::from_bytes([row; 16]),
            op: Op::Insert { cells: Cells::new(vec![cell(column), cell(9)]) },
        };
        let (mut kept, mut taken_back) = (Mutations::default(), Mutations::default());
        for mutations in [&mut kept, &mut taken_back] {
            mutations.push(&insert(1, 1)).unwrap();
        }
        let start = taken_back.push(&insert(2, 2)).unwrap();
        taken_back.pop(start);
        for mutations in [&mut kept, &mut taken_back] {
            mutations.push(&insert(3, 1)).unwrap();
        }
        assert_eq!(kept.encode_transaction(1, Hlc(1)), taken_back.encode_transaction(1, Hlc(1)));
    }
}

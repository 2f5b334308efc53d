//! Local transactions: what the app writes becomes mutations of one numbered transaction, and visible at once.

use farshore_sync_core::document::{ChangeHash, DocumentEdit, DocumentPath};
use farshore_sync_core::hlc::Stamp;
use farshore_sync_core::ids::RowId;
use farshore_sync_core::mutation::{Mutation, Op};
use farshore_sync_core::row::RowState;
use farshore_sync_core::schema::ColumnType;
use farshore_sync_core::value::Value;

use super::check;
use super::error::Failure;
use super::layout::{CollectionLayout, Layout};
use super::mutate::Mutations;
use super::pending::{Numbers, Pending};
use super::row::read_row;
use super::rows::{RowKey, Stored};
use super::transaction::Tx;
use super::{Row, WriteError};

/// Most transactions that wait for an answer; further ones are refused until the device was online.
pub const MAX_UNANSWERED_TRANSACTIONS: u64 = 10_000_000;

/// Bytes of entropy of an id.
const ID_ENTROPY_BYTES: usize = 10;

/// Ids for which entropy is fetched at once.
const IDS_AT_ONCE: usize = 64;

/// A local transaction under way. An operation that fails has changed nothing.
pub struct WriteTransaction<'a> {
    pub(super) tx: Tx<'a>,
    now_ms: u64,
    pub(super) number: u64,
    pub(super) stamp: Stamp,
    pub(super) mutations: Mutations,
    /// The pending list of a row that this transaction inserts.
    pub(super) inserted_by_this: Vec<u8>,
    entropy: Vec<u8>,
    /// The database failed in the middle of an operation.
    broken: bool,
}

impl<'a> WriteTransaction<'a> {
    pub(super) fn new(tx: Tx<'a>, now_ms: u64) -> Result<Self, WriteError> {
        let progress = &mut tx.known.progress;
        if progress.unanswered >= MAX_UNANSWERED_TRANSACTIONS {
            return Err(WriteError::TooLarge {
                what: "transactions in the outbox",
                found: usize::try_from(progress.unanswered).unwrap_or(usize::MAX),
                limit: usize::try_from(MAX_UNANSWERED_TRANSACTIONS).unwrap_or(usize::MAX),
            });
        }
        let stamp = Stamp { hlc: progress.clock.tick(now_ms), device: progress.device };
        let number = progress.next_number;
        let mutations = Mutations::default();
        let inserted_by_this = Pending { numbers: Numbers::one(number), base: None }.encode();
        Ok(Self {
            tx,
            now_ms,
            number,
            stamp,
            mutations,
            inserted_by_this,
            entropy: Vec::new(),
            broken: false,
        })
    }

    /// Puts the transaction into the outbox, ready to commit.
    pub(super) fn finish(mut self) -> Result<Tx<'a>, WriteError> {
        if self.broken {
            return Err(WriteError::Broken);
        }
        if let Some(bytes) = self.mutations.encode_transaction(self.number, self.stamp.hlc) {
            self.tx.known.progress.next_number += 1;
            self.tx.post(self.number, &bytes).map_err(|failure| self.tx.fail(failure))?;
        } else {
            // Nothing was written: the stamp was not used.
            self.tx.untick();
        }
        Ok(self.tx)
    }

    /// Takes a quarantined transaction out of the quarantine: another one takes its place.
    pub(super) fn replace_quarantined(&mut self, id: u64) -> Result<(), WriteError> {
        match self.tx.release(id) {
            Ok(true) => Ok(()),
            Ok(false) => Err(WriteError::NotQuarantined { id }),
            Err(failure) => Err(self.fail(failure)),
        }
    }

    /// Writes the mutations of a quarantined transaction again.
    pub(super) fn repeat_quarantined(&mut self, id: u64) -> Result<(), WriteError> {
        let transaction = self.tx.quarantined(id).map_err(|failure| self.fail(failure))?;
        let transaction = transaction.ok_or(WriteError::NotQuarantined { id })?;
        self.replace_quarantined(id)?;
        transaction.mutations.into_iter().try_for_each(|mutation| self.repeat(mutation))
    }

    fn repeat(&mut self, mutation: Mutation) -> Result<(), WriteError> {
        let Mutation { collection, row, op } = mutation;
        let stored = self.load((collection, row))?;
        let document = match &op {
            Op::Document { column, .. } => Some(*column),
            _ => None,
        };
        self.change((collection, row), stored, op)?;
        if let Some(column) = document {
            // The open document does not have the change that was taken out of it: open it anew.
            self.tx.close_document(((collection, row), column));
        }
        Ok(())
    }

    /// Creates a row, with a new UUIDv7 where no id is given. Columns left out have their defaults.
    ///
    /// # Errors
    /// [`WriteError::RowExists`] or [`WriteError::RowDeleted`] where the id is taken, and see [`WriteError`].
    pub fn insert(
        &mut self,
        collection: &str,
        row: Option<RowId>,
        values: &[(&str, Value)],
    ) -> Result<RowId, WriteError> {
        let layout = self.collection(collection)?;
        let cells = check::complete(layout, check::cells(layout, values)?, None);
        let Some(row) = row else {
            let row = self.new_id()?;
            return self.insert_new(layout, row, &cells).map(|()| row);
        };
        match self.load((layout.id, row))? {
            None => self.insert_new(layout, row, &cells)?,
            Some(stored)
                if stored.visible.as_ref().is_some_and(|visible| !visible.is_deleted()) =>
            {
                return Err(WriteError::RowExists { collection: collection.to_owned(), row });
            }
            stored => {
                let cells = check::owned(&cells);
                self.change((layout.id, row), stored, Op::Insert { cells })?;
            }
        }
        Ok(row)
    }

    /// Writes columns of a row that exists.
    ///
    /// # Errors
    /// [`WriteError::RowMissing`], [`WriteError::RowDeleted`], and see [`WriteError`].
    pub fn update(
        &mut self,
        collection: &str,
        row: RowId,
        values: &[(&str, Value)],
    ) -> Result<(), WriteError> {
        let layout = self.collection(collection)?;
        let cells = check::cells(layout, values)?;
        let stored = self.load((layout.id, row))?;
        let cells = check::owned(&check::complete(layout, cells, visible(stored.as_ref())));
        self.change((layout.id, row), stored, Op::Update { cells })
    }

    /// Writes columns of a row, and creates it where it does not exist.
    ///
    /// # Errors
    /// [`WriteError::RowDeleted`], and see [`WriteError`].
    pub fn put(
        &mut self,
        collection: &str,
        row: Option<RowId>,
        values: &[(&str, Value)],
    ) -> Result<RowId, WriteError> {
        let Some(row) = row else { return self.insert(collection, None, values) };
        let layout = self.collection(collection)?;
        let cells = check::cells(layout, values)?;
        let Some(stored) = self.load((layout.id, row))? else {
            let cells = check::complete(layout, cells, None);
            return self.insert_new(layout, row, &cells).map(|()| row);
        };
        let cells = check::owned(&check::complete(layout, cells, stored.visible.as_ref()));
        let op = match stored.visible {
            // An update needs its row on the server: where the row's insert is refused, or the row was deleted
            // long ago, this must not bring half a row into being.
            Some(_) => Op::Update { cells },
            None => Op::Insert { cells },
        };
        self.change((layout.id, row), Some(stored), op).map(|()| row)
    }

    /// Adds to a counter; negative takes away.
    ///
    /// # Errors
    /// [`WriteError::RowMissing`], [`WriteError::RowDeleted`], and see [`WriteError`].
    pub fn increment(
        &mut self,
        collection: &str,
        row: RowId,
        column: &str,
        delta: i64,
    ) -> Result<(), WriteError> {
        let layout = self.collection(collection)?;
        let column = check::named_of(layout, column, ColumnType::Counter)?.id;
        let stored = self.load((layout.id, row))?;
        self.change((layout.id, row), stored, Op::Increment { column, delta })
    }

    /// Adds an element to a set.
    ///
    /// # Errors
    /// [`WriteError::RowMissing`], [`WriteError::RowDeleted`], and see [`WriteError`].
    pub fn set_add(
        &mut self,
        collection: &str,
        row: RowId,
        column: &str,
        element: Value,
    ) -> Result<(), WriteError> {
        let layout = self.collection(collection)?;
        let column = check::named_of(layout, column, ColumnType::Set)?;
        check::check_element(layout, &column.column, &element)?;
        let stored = self.load((layout.id, row))?;
        self.change((layout.id, row), stored, Op::SetAdd { column: column.id, element })
    }

    /// Takes an element out of a set, as far as this device has seen it added.
    ///
    /// # Errors
    /// [`WriteError::RowMissing`], [`WriteError::RowDeleted`], and see [`WriteError`].
    pub fn set_remove(
        &mut self,
        collection: &str,
        row: RowId,
        column: &str,
        element: Value,
    ) -> Result<(), WriteError> {
        let layout = self.collection(collection)?;
        let column = check::named_of(layout, column, ColumnType::Set)?.id;
        let stored = self.load((layout.id, row))?;
        let observed = visible(stored.as_ref())
            .map_or_else(Vec::new, |state| state.observed_adds(column, &element));
        self.change((layout.id, row), stored, Op::SetRemove { column, element, observed })
    }

    /// Deletes a row, over all concurrent edits. A row that is deleted already stays so.
    ///
    /// # Errors
    /// [`WriteError::RowMissing`], and see [`WriteError`].
    pub fn delete(&mut self, collection: &str, row: RowId) -> Result<(), WriteError> {
        let key = (self.collection(collection)?.id, row);
        let stored = self.load(key)?;
        self.change(key, stored, Op::Delete)
    }

    /// Brings a deleted row back. A row that lives stays as it is.
    ///
    /// # Errors
    /// [`WriteError::RowMissing`], and see [`WriteError`].
    pub fn restore(&mut self, collection: &str, row: RowId) -> Result<(), WriteError> {
        let key = (self.collection(collection)?.id, row);
        let stored = self.load(key)?;
        self.change(key, stored, Op::Restore)
    }

    /// Edits the text `field` at the root of a document: from code point `position` on, takes `deleted` out and puts
    /// `inserted` in.
    ///
    /// # Errors
    /// [`WriteError::Document`] where there is no such text or position, and see [`WriteError`].
    #[expect(
        clippy::too_many_arguments,
        reason = "where (collection, row, column, field) and what (position, deleted, inserted)"
    )]
    pub fn edit_text(
        &mut self,
        collection: &str,
        row: RowId,
        column: &str,
        field: &str,
        position: usize,
        deleted: usize,
        inserted: &str,
    ) -> Result<(), WriteError> {
        let splice = DocumentEdit::SpliceText {
            path: DocumentPath::from([field]),
            position,
            delete: deleted,
            insert: inserted.to_owned(),
        };
        self.edit(collection, row, column, None, &[splice]).map(|_| ())
    }

    /// Makes one change of edits, each seeing the ones before it; `None` where they alter nothing.
    ///
    /// # Errors
    /// [`WriteError::Document`] where an edit does not fit, and see [`WriteError`].
    pub fn edit_document(
        &mut self,
        collection: &str,
        row: RowId,
        column: &str,
        edits: &[DocumentEdit],
    ) -> Result<Option<ChangeHash>, WriteError> {
        self.edit(collection, row, column, None, edits)
    }

    /// Like [`WriteTransaction::edit_document`], with paths and positions as they were when `heads` were the newest
    /// changes: for an editor whose view lags behind what has arrived since.
    ///
    /// # Errors
    /// [`WriteError::Document`] where the document lacks one of `heads`, and as there.
    pub fn edit_document_at(
        &mut self,
        collection: &str,
        row: RowId,
        column: &str,
        heads: &[ChangeHash],
        edits: &[DocumentEdit],
    ) -> Result<Option<ChangeHash>, WriteError> {
        self.edit(collection, row, column, Some(heads), edits)
    }

    /// One live row, with what this transaction has written.
    ///
    /// # Errors
    /// [`WriteError::UnknownCollection`], or the database failed.
    pub fn get(&mut self, collection: &str, row: RowId) -> Result<Option<Row>, WriteError> {
        let layout = self.collection(collection)?;
        self.tx.write_documents().map_err(|failure| self.fail(failure))?;
        read_row(self.tx.connection, self.tx.layout, layout, row)
            .map_err(|failure| self.fail(failure))
    }

    fn edit(
        &mut self,
        collection: &str,
        row: RowId,
        column: &str,
        heads: Option<&[ChangeHash]>,
        edits: &[DocumentEdit],
    ) -> Result<Option<ChangeHash>, WriteError> {
        let layout = self.collection(collection)?;
        let column = check::named_of(layout, column, ColumnType::Document)?;
        let document_error = |problem: String| WriteError::Document {
            collection: collection.to_owned(),
            column: column.column.name.clone(),
            problem,
        };
        let key = (layout.id, row);
        let stored = self.load(key)?;
        self.require_live(layout, row, visible(stored.as_ref()))?;
        let document = (key, column.id);
        let opened = match self.tx.open_document(document) {
            Ok(opened) => opened.map_err(|error| document_error(error.to_string()))?,
            Err(failure) => return Err(self.fail(failure)),
        };
        let made = match heads {
            None => opened.edit(edits),
            Some(heads) => opened.edit_at(heads, edits),
        };
        let Some(change) = made.map_err(|error| document_error(error.to_string()))? else {
            return Ok(None);
        };
        let hash = change.hash;
        if let Err(error) = self.change_document(document, stored, change) {
            // The open document has a change that was not written.
            self.tx.close_document(document);
            return Err(error);
        }
        Ok(Some(hash))
    }

    fn collection(&self, name: &str) -> Result<&'a CollectionLayout, WriteError> {
        let layout: &'a Layout = self.tx.layout;
        layout
            .named(name)
            .ok_or_else(|| WriteError::UnknownCollection { collection: name.to_owned() })
    }

    fn new_id(&mut self) -> Result<RowId, WriteError> {
        if self.entropy.is_empty() {
            self.entropy.resize(IDS_AT_ONCE * ID_ENTROPY_BYTES, 0);
            getrandom::fill(&mut self.entropy).map_err(WriteError::Randomness)?;
        }
        let entropy: [u8; ID_ENTROPY_BYTES] = *self
            .entropy
            .last_chunk()
            .expect("it holds the entropy of whole ids, and of one at least");
        self.entropy.truncate(self.entropy.len() - ID_ENTROPY_BYTES);
        Ok(RowId::from_parts(self.now_ms, &entropy))
    }

    fn load(&mut self, key: RowKey) -> Result<Option<Stored>, WriteError> {
        self.tx.load(key).map_err(|failure| self.fail(failure))
    }

    /// The database failed in the middle of an operation: this transaction cannot commit any more.
    pub(super) fn fail(&mut self, failure: Failure) -> WriteError {
        self.broken = true;
        WriteError::Store(self.tx.fail(failure))
    }
}

fn visible(stored: Option<&Stored>) -> Option<&RowState> {
    stored.and_then(|stored| stored.visible.as_ref())
}

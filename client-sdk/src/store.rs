//! The device's encrypted store: typed tables that the app reads with SQL, and what syncing them needs.
//!
//! It is blocking and knows no network: [`farshore_sync_core::replica`] says what to store, and
//! [`Store::handle`] carries each request out as one database transaction.
//!
//! Invariants:
//! - A local transaction, its stamp, its number and its place in the outbox commit together.
//! - A cursor and the rows that it covers commit together; what lies between two checkpoints becomes visible
//!   in one commit, except during the first fill.
//! - What the app sees of a row is the server's state with the pending transactions applied over it.
//! - Nothing is deleted on an error, and a refused transaction waits in the quarantine.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farshore_sync_core::digest::Sum;
use farshore_sync_core::document::{ChangeHash, Document, DocumentPath};
use farshore_sync_core::ids::{CollectionId, DeviceId, RowId, Scope};
use farshore_sync_core::replica::{StoreReply, StoreRequest};
use farshore_sync_core::schema::{ColumnType, Schema};
use rusqlite::Connection;

use documents::OpenDocuments;
use error::Failure;
use layout::{CollectionLayout, Layout};
use readers::{Reader, Readers};
use transaction::{Known, Touched, Tx};

use crate::encrypted_file::{self, OnClose};

mod adopt;
mod changes;
mod check;
mod codec;
mod digests;
mod documents;
mod error;
mod functions;
mod graves;
mod handle;
mod layout;
mod listing;
mod mutate;
mod numbers;
mod open;
mod outbox;
mod outcomes;
mod pages;
mod pending;
mod progress;
mod quarantine;
mod query;
mod readers;
mod rebase;
mod refill;
mod repair;
mod row;
mod row_meta;
mod rows;
mod scan;
mod tables;
#[cfg(test)]
mod tests;
mod transaction;
mod typed;
mod upgrade;
mod write;

pub use changes::{ChangeFeed, Changes, Subscription};
pub use check::MAX_SET_ELEMENT_BYTES;
pub use documents::MAX_DOCUMENT_JSON_BYTES;
pub use error::{OpenError, QueryError, StoreError, WriteError};
pub use graves::GRAVE_RETENTION_MS;
pub use listing::{
    Counts, MAX_QUARANTINE_LISTED, MutationSummary, OutboxEntry, OutboxState, Quarantined,
};
pub use open::{CreateMode, StoreOptions};
pub use query::{MAX_QUERY_BYTES, MAX_QUERY_ROWS, QueryRows, SqlValue};
pub use readers::MAX_READERS;
pub use row::{ColumnValue, Row};
pub use write::{MAX_UNANSWERED_TRANSACTIONS, WriteTransaction};

/// One encrypted store. Clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    device: DeviceId,
    layout: Layout,
    writer: Mutex<Option<Writer>>,
    readers: Readers,
    changes: ChangeFeed,
}

/// The one connection that writes, with what it knows by heart.
struct Writer {
    connection: Connection,
    known: Known,
    open_documents: OpenDocuments,
    /// Whether the connection has read what is not authentic: it gives out nothing but errors from then on.
    useless: bool,
}

impl Store {
    /// Opens a store, or creates it where the options say so, and brings its tables up to the app's schema.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing is deleted or made anew on an error.
    pub fn open(options: StoreOptions) -> Result<Self, OpenError> {
        let opened = open::open(&options)?;
        let writer = Writer {
            connection: opened.connection,
            known: opened.known,
            open_documents: OpenDocuments::default(),
            useless: false,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                path: opened.path,
                device: options.device,
                layout: opened.layout,
                writer: Mutex::new(Some(writer)),
                readers: opened.readers,
                changes: ChangeFeed::new(),
            }),
        })
    }

    /// The device whose store it is.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.shared.device
    }

    /// The app's schema.
    #[must_use]
    pub fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.shared.layout.app)
    }

    /// One local transaction: it sees its own writes, and it is durable when this returns.
    ///
    /// A body that fails leaves nothing behind. A body that writes nothing makes no transaction.
    ///
    /// # Errors
    /// What the body returned, or why it could not be committed.
    pub fn write<T>(
        &self,
        now_ms: u64,
        body: impl FnOnce(&mut WriteTransaction<'_>) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        self.transact(|tx| {
            let mut transaction = WriteTransaction::new(tx, now_ms)?;
            let value = body(&mut transaction)?;
            Ok((value, transaction.finish()?))
        })
    }

    /// Runs a SELECT over the collections, each a view with `id` and its columns.
    /// `uuid('..')` and `uuid_text(id)` turn ids from text and into text.
    ///
    /// # Errors
    /// See [`QueryError`]; anything but reading the views is refused.
    pub fn query(&self, sql: &str, params: &[SqlValue]) -> Result<QueryRows, QueryError> {
        self.shared
            .readers
            .with(|reader| query::run(reader, sql, params, &|error| self.fail(error.into())))
    }

    /// The names of the collections that a SELECT reads.
    ///
    /// # Errors
    /// As [`Store::query`].
    pub fn tables_of(&self, sql: &str) -> Result<BTreeSet<String>, QueryError> {
        self.shared
            .readers
            .with(|reader| query::tables_of(reader, sql, &|error| self.fail(error.into())))
    }

    /// One live row; `None` where there is none or it is deleted.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn row(&self, collection: &str, row: RowId) -> Result<Option<Row>, QueryError> {
        let layout = &self.shared.layout;
        let collection = self.collection(collection)?;
        self.read(|reader| row::read_row(&reader.connection, layout, collection, row))
    }

    /// A text of a document; `None` where there is no such live row.
    ///
    /// # Errors
    /// [`QueryError::Document`] where the document has no text at `path`, and see [`QueryError`].
    pub fn document_text(
        &self,
        collection: &str,
        row: RowId,
        column: &str,
        path: &DocumentPath,
    ) -> Result<Option<String>, QueryError> {
        self.document(collection, row, column, |document| {
            document.text(path).map_err(|e| e.to_string())
        })
    }

    /// A document as JSON; `None` where there is no such live row.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn document_json(
        &self,
        collection: &str,
        row: RowId,
        column: &str,
    ) -> Result<Option<serde_json::Value>, QueryError> {
        self.document(collection, row, column, |document| {
            document.to_json().map_err(|e| e.to_string())
        })
    }

    /// The newest changes of a document; `None` where there is no such live row.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn document_heads(
        &self,
        collection: &str,
        row: RowId,
        column: &str,
    ) -> Result<Option<Vec<ChangeHash>>, QueryError> {
        self.document(collection, row, column, |document| Ok(document.heads()))
    }

    /// Those of some changes that have not arrived in a document; `None` where there is no such live row.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn document_missing(
        &self,
        collection: &str,
        row: RowId,
        column: &str,
        changes: &[ChangeHash],
    ) -> Result<Option<Vec<ChangeHash>>, QueryError> {
        self.document(collection, row, column, |document| Ok(document.missing(changes)))
    }

    /// Carries out one request of the replica, in one database transaction.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing of the request was kept then.
    pub fn handle(&self, request: StoreRequest, now_ms: u64) -> Result<StoreReply, StoreError> {
        self.transact(|mut tx| {
            let reply = tx.carry_out(request, now_ms).map_err(|failure| tx.fail(failure))?;
            Ok((reply, tx))
        })
    }

    /// The oldest transactions that are not known to be in a checkpoint yet.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn outbox(&self, limit: usize) -> Result<Vec<OutboxEntry>, QueryError> {
        self.read(|reader| listing::outbox(&reader.connection, &self.shared.layout, limit))
    }

    /// Where the store stands, in numbers.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn counts(&self) -> Result<Counts, QueryError> {
        self.read(|reader| listing::counts(&reader.connection))
    }

    /// The transactions that the server refused, oldest first, [`MAX_QUARANTINE_LISTED`] at most.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn quarantine(&self) -> Result<Vec<Quarantined>, QueryError> {
        self.read(|reader| listing::quarantine(&reader.connection, &self.shared.layout))
    }

    /// Writes a quarantined transaction again, as a new one on the rows as they are now.
    ///
    /// # Errors
    /// [`WriteError::NotQuarantined`], or why it no longer applies; it stays in the quarantine then.
    pub fn resubmit(&self, id: u64, now_ms: u64) -> Result<(), WriteError> {
        self.write(now_ms, |transaction| transaction.repeat_quarantined(id))
    }

    /// Puts another transaction in the place of a quarantined one.
    ///
    /// # Errors
    /// [`WriteError::NotQuarantined`], or what the body returned; it stays in the quarantine then.
    pub fn resubmit_with<T>(
        &self,
        id: u64,
        now_ms: u64,
        body: impl FnOnce(&mut WriteTransaction<'_>) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        self.write(now_ms, |transaction| {
            transaction.replace_quarantined(id)?;
            body(transaction)
        })
    }

    /// Gives a quarantined transaction up.
    ///
    /// # Errors
    /// [`WriteError::NotQuarantined`].
    pub fn discard(&self, id: u64) -> Result<(), WriteError> {
        self.transact(|mut tx| match tx.release(id) {
            Ok(true) => Ok(((), tx)),
            Ok(false) => Err(WriteError::NotQuarantined { id }),
            Err(failure) => Err(tx.fail(failure).into()),
        })
    }

    /// The digest of what the server has confirmed, for each scope and collection.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn digests(&self) -> Result<Vec<(Scope, CollectionId, Sum)>, QueryError> {
        self.read(|reader| listing::digests(&reader.connection))
    }

    /// What says when collections change.
    #[must_use]
    pub fn changes(&self) -> ChangeFeed {
        self.shared.changes.clone()
    }

    /// Moves the write-ahead log into the database file, so that the file alone is whole.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while a reader holds on to the log, and see [`StoreError`].
    pub fn checkpoint_wal(&self) -> Result<(), StoreError> {
        let mut writer = self.writer();
        let writer = writer.as_mut().ok_or(StoreError::Closed)?;
        let busy: rusqlite::Result<bool> =
            writer.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        match busy {
            Ok(false) => Ok(()),
            Ok(true) => Err(StoreError::Busy { path: self.shared.path.clone() }),
            Err(error) => Err(self.fail(error.into())),
        }
    }

    /// Closes the files; every later call on any clone fails with [`StoreError::Closed`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn close(&self) -> Result<(), StoreError> {
        self.shared.readers.close();
        match self.writer().take() {
            None => Ok(()),
            Some(writer) => writer.connection.close().map_err(|(_, error)| self.fail(error.into())),
        }
    }

    /// One database transaction: what `work` gives back with it is committed, an error rolls back.
    fn transact<T, E: From<StoreError>>(
        &self,
        work: impl FnOnce(Tx<'_>) -> Result<(T, Tx<'_>), E>,
    ) -> Result<T, E> {
        let (value, touched) = {
            let mut writer = self.writer();
            let writer = writer.as_mut().ok_or(StoreError::Closed)?;
            if writer.useless {
                self.replace_connection(writer)?;
            }
            let done = self.transact_with(writer, work);
            if done.is_err() {
                writer.useless = !encrypted_file::is_sound(&writer.connection).unwrap_or(false);
            }
            done?
        };
        self.publish(touched);
        Ok(value)
    }

    fn transact_with<T, E: From<StoreError>>(
        &self,
        writer: &mut Writer,
        work: impl FnOnce(Tx<'_>) -> Result<(T, Tx<'_>), E>,
    ) -> Result<(T, Touched), E> {
        let Writer { connection, known, open_documents, .. } = writer;
        let (layout, path) = (&self.shared.layout, &self.shared.path);
        let tx = Tx::begin(connection, layout, known, open_documents, path);
        let (value, tx) = work(tx.map_err(|failure| self.fail(failure))?)?;
        Ok((value, tx.commit().map_err(|failure| self.fail(failure))?))
    }

    /// Opens the file anew: whether it is damaged or the disk only failed for a moment, the next reads tell.
    fn replace_connection(&self, writer: &mut Writer) -> Result<(), StoreError> {
        // Whatever the old one believes, its end must not write.
        encrypted_file::on_close(&writer.connection, OnClose::LeaveFiles)
            .map_err(|error| self.fail(error.into()))?;
        let connection = self.shared.readers.connect_writer()?;
        let known = Known::load(&connection).map_err(|failure| self.fail(failure))?;
        open::settle(&connection, &self.shared.path).map_err(|failure| self.fail(failure))?;
        let open_documents = OpenDocuments::default();
        *writer = Writer { connection, known, open_documents, useless: false };
        Ok(())
    }

    fn publish(&self, touched: Touched) {
        let layout = &self.shared.layout;
        let known = touched.collections.iter().filter_map(|id| layout.app.collection(*id));
        self.shared.changes.publish(Changes {
            collections: known.map(|collection| collection.name.clone()).collect(),
            outbox: touched.outbox,
            quarantine: touched.quarantine,
            ..Changes::default()
        });
    }

    fn read<T>(&self, read: impl FnOnce(&Reader) -> Result<T, Failure>) -> Result<T, QueryError> {
        self.shared.readers.with(|reader| read(reader).map_err(|failure| self.fail(failure).into()))
    }

    fn document<T>(
        &self,
        collection: &str,
        row: RowId,
        column: &str,
        read: impl FnOnce(&dyn Document) -> Result<T, String>,
    ) -> Result<Option<T>, QueryError> {
        let layout = self.collection(collection)?;
        let at = layout
            .named(column)
            .filter(|at| layout.columns[*at].column.column_type == ColumnType::Document);
        let at = at.ok_or_else(|| QueryError::UnknownDocument {
            collection: collection.to_owned(),
            column: column.to_owned(),
        })?;
        let bad = |problem: String| QueryError::Document {
            collection: collection.to_owned(),
            column: column.to_owned(),
            problem,
        };
        let key = (layout.id, row);
        self.transact(|mut tx| {
            let head = tx.head(key).map_err(|failure| tx.fail(failure))?;
            if head.is_none_or(|head| head.place != rows::Place::Typed) {
                return Ok((None, tx));
            }
            let opened = tx.open_document((key, layout.columns[at].id));
            let value = match opened {
                Ok(opened) => read(opened.map_err(|error| bad(error.to_string()))?).map_err(bad)?,
                Err(failure) => return Err(self.fail(failure).into()),
            };
            Ok((Some(value), tx))
        })
    }

    fn collection(&self, name: &str) -> Result<&CollectionLayout, QueryError> {
        let known = self.shared.layout.named(name);
        known.ok_or_else(|| QueryError::UnknownCollection { collection: name.to_owned() })
    }

    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        // After a panic the next transaction rolls back what was open, and reads anew what is known by heart.
        self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, failure: Failure) -> StoreError {
        StoreError::new(&self.shared.path, failure)
    }
}

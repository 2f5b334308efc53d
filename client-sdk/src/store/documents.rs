//! Documents: their changes in `fs_chunks`, the few that are open, and the JSON that SQL sees of them.
//!
//! A document is the set of its changes, confirmed and pending ones alike. It is opened when somebody edits or
//! reads it, or when its JSON has to be written anew; an idle store opens none.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_lc_rs::digest::{SHA256, digest};
use farshore_sync_core::document::{
    self, Change, ChangeHash, Document, DocumentError, claimed_checksum, inspect, read,
};
use farshore_sync_core::ids::{CollectionId, ColumnId, DeviceId, RowId};
use farshore_sync_core::mutation::Op;
use farshore_sync_core::row::RowState;
use farshore_sync_core::wire::ChunkEntry;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::Failure;
use super::layout::{CollectionLayout, Layout, quoted};
use super::progress::to_sql;
use super::rows::{Place, RowKey};
use super::transaction::Tx;

/// A document whose JSON is longer is NULL in SQL, and read with the store's document methods.
pub const MAX_DOCUMENT_JSON_BYTES: usize = 64 << 10;

/// Bytes of changes in the documents that stay open. Their engine needs some ten times as much memory.
const MAX_OPEN_BYTES: usize = 8 << 20;

/// Documents that stay open.
const MAX_OPEN_DOCUMENTS: usize = 64;

/// One document: the row and the column.
pub(super) type DocumentKey = (RowKey, ColumnId);

/// The documents that stay open between transactions.
#[derive(Default)]
pub(super) struct OpenDocuments {
    open: HashMap<DocumentKey, Opened>,
    bytes: usize,
    uses: u64,
}

struct Opened {
    document: Box<dyn Document>,
    bytes: usize,
    last_use: u64,
}

impl OpenDocuments {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn take(&mut self, key: &DocumentKey) -> Option<Box<dyn Document>> {
        let opened = self.open.remove(key)?;
        self.bytes -= opened.bytes;
        Some(opened.document)
    }

    fn keep(&mut self, key: DocumentKey, document: Box<dyn Document>) {
        self.uses += 1;
        let bytes = document.approximate_bytes();
        self.bytes += bytes;
        self.open.insert(key, Opened { document, bytes, last_use: self.uses });
        while self.bytes > MAX_OPEN_BYTES || self.open.len() > MAX_OPEN_DOCUMENTS {
            let oldest = self.open.iter().min_by_key(|(_, opened)| opened.last_use);
            let Some(oldest) = oldest.map(|(key, _)| *key) else { return };
            self.take(&oldest);
        }
    }
}

/// What one database transaction does to documents.
#[derive(Default)]
pub(super) struct DocumentWork {
    /// Open documents that this transaction has in hand; a rollback drops them.
    in_hand: BTreeMap<DocumentKey, Box<dyn Document>>,
    /// Changes that came and are not in the open document yet.
    incoming: BTreeMap<DocumentKey, Vec<Change>>,
    /// Documents in hand without some of their pending changes; see [`read_document`]. What they lack may come at any
    /// time, so that they are opened anew for each use.
    partial: BTreeSet<DocumentKey>,
    /// Documents whose JSON no longer says what they hold.
    dirty: BTreeSet<DocumentKey>,
}

impl Tx<'_> {
    /// A document, open. It counts as changed: after a rollback it is opened anew.
    ///
    /// The inner error says what is wrong with the document; the store itself is sound then.
    pub(super) fn open_document(
        &mut self,
        key: DocumentKey,
    ) -> Result<Result<&mut dyn Document, DocumentError>, Failure> {
        if self.work.partial.remove(&key) {
            self.work.in_hand.remove(&key);
        }
        let held = self.work.in_hand.remove(&key).or_else(|| self.open_documents.take(&key));
        let mut document = match held {
            Some(document) => document,
            None => {
                self.work.incoming.remove(&key);
                let actor = actor(self.known.progress.device, self.known.progress.actor_generation);
                match read_document(self.connection, self.layout, actor, key)? {
                    Ok(read) if read.whole => read.document,
                    Ok(read) => {
                        self.work.partial.insert(key);
                        read.document
                    }
                    Err(error) => return Ok(Err(error)),
                }
            }
        };
        if let Some(changes) = self.work.incoming.remove(&key)
            && let Err(error) = document.apply(&changes)
        {
            return Ok(Err(error));
        }
        let slot = self.work.in_hand.entry(key).insert_entry(document);
        Ok(Ok(slot.into_mut().as_mut()))
    }

    /// Forgets an open document: the next use opens it from its changes.
    pub(super) fn close_document(&mut self, key: DocumentKey) {
        self.work.in_hand.remove(&key);
        self.work.incoming.remove(&key);
        self.open_documents.take(&key);
    }

    /// Stores a change that this device made in a transaction.
    pub(super) fn add_own_change(
        &mut self,
        key: DocumentKey,
        hash: ChangeHash,
        number: u64,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        self.insert_change(key, hash, Some(number), bytes)?;
        self.work.dirty.insert(key);
        Ok(())
    }

    /// Stores a change that the server sent, or marks one that is stored as confirmed.
    pub(super) fn add_server_change(&mut self, entry: &ChunkEntry) -> Result<(), Failure> {
        let key = ((entry.collection, entry.row), entry.column);
        let mut new = None;
        if !self.confirm_same_bytes(key, &entry.change)? {
            let change =
                read(&entry.change).map_err(|error| Failure::protocol(error.to_string()))?;
            new = (!self.confirm(key, change.hash)?).then_some(change);
        }
        if let Some(change) = new {
            self.insert_change(key, change.hash, None, &change.bytes)?;
            self.work.dirty.insert(key);
            self.work.incoming.entry(key).or_default().push(change);
        } else if self.known.progress.staged > 0 {
            // An earlier page of this checkpoint may have brought the row without it.
            self.work.dirty.insert(key);
        }
        Ok(())
    }

    /// Confirms a change that is stored; whether it is.
    fn confirm(
        &self,
        ((collection, row), column): DocumentKey,
        hash: ChangeHash,
    ) -> Result<bool, Failure> {
        let mut statement = self.connection.prepare_cached(
            "UPDATE fs_chunks SET number = NULL, stale = 0 \
             WHERE collection = ?1 AND id = ?2 AND column_id = ?3 AND hash = ?4",
        )?;
        Ok(statement.execute(params![collection.0, row.as_bytes(), column.0, hash.0])? > 0)
    }

    /// The same for one that is stored in these very bytes: they were read when they came here first, as this device's
    /// own were when it made them.
    fn confirm_same_bytes(
        &self,
        ((collection, row), column): DocumentKey,
        bytes: &[u8],
    ) -> Result<bool, Failure> {
        let Some(first) = claimed_checksum(bytes) else { return Ok(false) };
        let last = [first, &[u8::MAX; size_of::<ChangeHash>()]].concat();
        let mut statement = self.connection.prepare_cached(
            "UPDATE fs_chunks SET number = NULL, stale = 0 \
             WHERE collection = ?1 AND id = ?2 AND column_id = ?3 AND hash BETWEEN ?4 AND ?5 AND bytes = ?6",
        )?;
        let same = params![collection.0, row.as_bytes(), column.0, first, last, bytes];
        Ok(statement.execute(same)? > 0)
    }

    fn insert_change(
        &self,
        ((collection, row), column): DocumentKey,
        hash: ChangeHash,
        number: Option<u64>,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO fs_chunks (collection, id, column_id, hash, number, bytes, place) \
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, coalesce(max(place), 0) + 1 \
             FROM fs_chunks WHERE collection = ?1 AND id = ?2 AND column_id = ?3",
        )?;
        statement.execute(params![
            collection.0,
            row.as_bytes(),
            column.0,
            hash.0,
            number.map(to_sql),
            bytes
        ])?;
        Ok(())
    }

    /// The hash of a document change that the server's state does not count yet.
    pub(super) fn unconfirmed_change(
        &self,
        key: RowKey,
        op: &Op,
    ) -> Result<Option<ChangeHash>, Failure> {
        let Op::Document { column, change } = op else { return Ok(None) };
        let Ok(change) = inspect(change) else { return Ok(None) };
        self.unconfirmed((key, *column), change.hash)
    }

    /// The same for a change that was inspected.
    pub(super) fn unconfirmed(
        &self,
        (key, column): DocumentKey,
        hash: ChangeHash,
    ) -> Result<Option<ChangeHash>, Failure> {
        let mut statement = self.connection.prepare_cached(
            "SELECT number IS NULL FROM fs_chunks \
             WHERE collection = ?1 AND id = ?2 AND column_id = ?3 AND hash = ?4",
        )?;
        let confirmed: Option<bool> = statement
            .query_row(params![key.0.0, key.1.as_bytes(), column.0, hash.0], |row| row.get(0))
            .optional()?;
        Ok((confirmed != Some(true)).then_some(hash))
    }

    /// The changes that a transaction in the outbox makes to the documents of a row, as far as the server's state does
    /// not count them yet.
    pub(super) fn pending_changes(
        &self,
        number: u64,
        key: RowKey,
    ) -> Result<Vec<(ColumnId, ChangeHash)>, Failure> {
        let mut statement = self.connection.prepare_cached(
            "SELECT column_id, hash FROM fs_chunks WHERE number = ?1 AND collection = ?2 AND id = ?3",
        )?;
        let key = params![to_sql(number), key.0.0, key.1.as_bytes()];
        let changes =
            statement.query_map(key, |row| Ok((ColumnId(row.get(0)?), ChangeHash(row.get(1)?))))?;
        Ok(changes.collect::<rusqlite::Result<_>>()?)
    }

    /// The changes of an accepted transaction are the server's now.
    pub(super) fn confirm_changes(&mut self, number: u64) -> Result<(), Failure> {
        let mut statement = self
            .connection
            .prepare_cached("UPDATE fs_chunks SET number = NULL WHERE number = ?1")?;
        statement.execute([to_sql(number)])?;
        Ok(())
    }

    /// Takes the changes of a refused transaction out of their documents.
    pub(super) fn drop_changes(&mut self, number: u64) -> Result<(), Failure> {
        let mut statement = self.connection.prepare_cached(
            "DELETE FROM fs_chunks WHERE number = ?1 RETURNING collection, id, column_id",
        )?;
        let dropped: Vec<DocumentKey> = statement
            .query_map([to_sql(number)], |row| {
                let key = (CollectionId(row.get(0)?), RowId::from_bytes(row.get(1)?));
                Ok((key, ColumnId(row.get(2)?)))
            })?
            .collect::<rusqlite::Result<_>>()?;
        if !dropped.is_empty() {
            // An actor never numbers two changes alike: what this device writes from now on is by another actor.
            self.known.progress.actor_generation += 1;
            self.open_documents.clear();
            self.work.in_hand.clear();
            self.work.incoming.clear();
            self.work.dirty.extend(dropped);
        }
        Ok(())
    }

    /// The server no longer shows a row to this device: its confirmed changes go. Pending ones stay, and those of
    /// which the end of a refill decides.
    pub(super) fn forget_confirmed_changes(&mut self, key: RowKey) -> Result<(), Failure> {
        if self.layout.collection(key.0).is_some_and(|layout| layout.documents().next().is_none()) {
            return Ok(());
        }
        let mut statement = self
            .connection
            .prepare_cached("DELETE FROM fs_chunks WHERE collection = ?1 AND id = ?2 AND number IS NULL AND stale = 0")?;
        if statement.execute(params![key.0.0, key.1.as_bytes()])? > 0
            && let Some(layout) = self.layout.collection(key.0)
        {
            for at in layout.documents() {
                self.close_document((key, layout.columns[at].id));
            }
        }
        Ok(())
    }

    /// A row came back to its table, where its documents show what an empty one shows.
    pub(super) fn refresh_documents(&mut self, key: RowKey, state: &RowState) {
        self.work.dirty.extend(state.documents.keys().map(|column| (key, *column)));
    }

    /// The same for a row of which it is not known which documents have changes.
    pub(super) fn refresh_every_document(&mut self, key: RowKey, layout: &CollectionLayout) {
        self.work.dirty.extend(layout.documents().map(|at| (key, layout.columns[at].id)));
    }

    /// The changes of a document are other ones now.
    pub(super) fn work_dirty(&mut self, key: DocumentKey) {
        self.work.dirty.insert(key);
    }

    /// Writes the JSON of every document that changed. A document that cannot be opened shows NULL: one bad
    /// document stops nothing else.
    pub(super) fn write_documents(&mut self) -> Result<(), Failure> {
        while let Some(key) = self.work.dirty.pop_first() {
            let ((collection, row), column) = key;
            let layout = self.layout;
            let Some(layout) = layout.collection(collection) else { continue };
            let Some(at) = layout.column(column) else { continue };
            let live = self.head((collection, row))?.is_some_and(|head| head.place == Place::Typed);
            if !live || layout.columns[at].place.is_some() {
                continue;
            }
            let opened = self.open_document(key)?.ok();
            let json = opened
                .and_then(|document| {
                    document.to_json_within(MAX_DOCUMENT_JSON_BYTES).ok().flatten()
                })
                .map(|json| json.to_string())
                .filter(|json| json.len() <= MAX_DOCUMENT_JSON_BYTES);
            let sql = format!(
                "UPDATE {} SET {} = ?2 WHERE id = ?1",
                quoted(&layout.table()),
                quoted(&layout.columns[at].column.name)
            );
            self.connection.prepare_cached(&sql)?.execute(params![row.as_bytes(), json])?;
            self.touch(collection);
        }
        Ok(())
    }

    /// After the commit: what was in hand stays open.
    pub(super) fn keep_documents(&mut self) {
        let incoming: Vec<DocumentKey> = self.work.incoming.keys().copied().collect();
        incoming.into_iter().for_each(|key| self.close_document(key));
        let partial = std::mem::take(&mut self.work.partial);
        for (key, document) in std::mem::take(&mut self.work.in_hand) {
            if !partial.contains(&key) {
                self.open_documents.keep(key, document);
            }
        }
    }
}

/// Who edits documents on this device: another one each time that a change of the last one was given up.
pub(super) fn actor(device: DeviceId, generation: u64) -> [u8; 16] {
    let mut seed = device.as_bytes().to_vec();
    seed.extend_from_slice(&generation.to_be_bytes());
    *digest(&SHA256, &seed).as_ref().first_chunk().expect("SHA-256 gives 32 bytes")
}

/// A document that was opened from its stored changes.
pub(super) struct ReadDocument {
    /// It.
    pub document: Box<dyn Document>,
    /// Whether it holds all of them.
    pub whole: bool,
}

/// Opens a document from its stored changes.
///
/// Where a transaction was refused and its change dropped, a change of a later one that was made upon it is passed over:
/// the server will refuse that one too.
pub(super) fn read_document(
    connection: &Connection,
    layout: &Layout,
    actor: [u8; 16],
    ((collection, row), column): DocumentKey,
) -> Result<Result<ReadDocument, DocumentError>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT bytes, number IS NOT NULL FROM fs_chunks \
         WHERE collection = ?1 AND id = ?2 AND column_id = ?3 ORDER BY place",
    )?;
    let chunks: Vec<(Vec<u8>, bool)> = statement
        .query_map(params![collection.0, row.as_bytes(), column.0], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let layout = layout.collection(collection);
    let genesis = layout.and_then(|layout| layout.columns[layout.column(column)?].genesis.as_ref());
    let open = |chunks: &[&[u8]]| document::open(actor, genesis, chunks.iter().copied());
    let all: Vec<&[u8]> = chunks.iter().map(|(bytes, _)| bytes.as_slice()).collect();
    Ok(match open(&all) {
        Ok(document) => Ok(ReadDocument { document, whole: true }),
        Err(DocumentError::MissingDependency { .. }) => founded(genesis, &chunks)
            .and_then(|founded| open(&founded))
            .map(|document| ReadDocument { document, whole: false }),
        Err(error) => Err(error),
    })
}

/// The changes without the pending ones that were made upon something that is not there.
fn founded<'a>(
    genesis: Option<&Change>,
    chunks: &'a [(Vec<u8>, bool)],
) -> Result<Vec<&'a [u8]>, DocumentError> {
    let mut there: BTreeSet<ChangeHash> = genesis.map(|change| change.hash).into_iter().collect();
    for (bytes, _) in chunks.iter().filter(|(_, pending)| !pending) {
        there.insert(inspect(bytes)?.hash);
    }
    let mut founded = Vec::with_capacity(chunks.len());
    // This device stored its own changes in the order in which it made them.
    for (bytes, pending) in chunks {
        let change = inspect(bytes)?;
        if !pending || change.deps.iter().all(|dependency| there.contains(dependency)) {
            there.insert(change.hash);
            founded.push(bytes.as_slice());
        }
    }
    Ok(founded)
}

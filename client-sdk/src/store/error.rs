//! What can go wrong, one enum for each kind of operation.

use std::path::{Path, PathBuf};

use farshore_sync_core::ids::{DeviceId, RowId};
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::schema::SchemaError;
use rusqlite::ErrorCode;

use super::query::{MAX_QUERY_BYTES, MAX_QUERY_ROWS};
use crate::encrypted_file;
use crate::vault::InvalidLabel;

/// Why a store could not be opened. The files are as they were.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The name cannot name a file and a vault entry.
    #[error(transparent)]
    Name(#[from] InvalidLabel),
    /// The encrypted file could not be opened.
    #[error(transparent)]
    File(#[from] encrypted_file::OpenError),
    /// The store belongs to another device.
    #[error("{}: the store belongs to device {found}, not to {expected}", path.display())]
    OtherDevice {
        /// The database.
        path: PathBuf,
        /// Whose store was asked for.
        expected: DeviceId,
        /// Whose store it is.
        found: DeviceId,
    },
    /// The app's schema neither follows the one that the store was written with nor precedes it.
    #[error("{}: schema version {app} does not fit the stored version {stored}: {source}", path.display())]
    SchemaConflict {
        /// The database.
        path: PathBuf,
        /// The version of the app's schema.
        app: u32,
        /// The version of the schema that the store was written with.
        stored: u32,
        /// What differs.
        source: SchemaError,
    },
    /// The stored schema cannot be read: a newer SDK wrote it, or the file is damaged.
    #[error("{}: the stored schema cannot be read: {source}", path.display())]
    StoredSchema {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        source: SchemaError,
    },
    /// The tables could not be read or brought up to the schema.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the store could not carry out what it was asked. Nothing of the operation was kept, with one exception that no
/// database can avoid: where the disk failed while it synced a commit, nobody knows whether the commit is on it. It does
/// not show before the store is opened again, and may be there then, whole.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room left for the database.
    #[error("{}: the disk is full", path.display())]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// The file or its directory cannot be written.
    #[error("{}: the database is read-only", path.display())]
    ReadOnly {
        /// The database.
        path: PathBuf,
    },
    /// Another process held the database for too long.
    #[error("{}: another process holds the database", path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// What is stored is not what was written.
    #[error("{}: the database is damaged: {detail}", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What is wrong, and where.
        detail: String,
    },
    /// The server sent what cannot be stored.
    #[error("the server sent what cannot be stored: {detail}")]
    Protocol {
        /// What is wrong with it.
        detail: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Another connection to the file could not be opened.
    #[error(transparent)]
    Open {
        /// Why.
        source: Box<encrypted_file::OpenError>,
    },
    /// SQLite failed in a way that has no name here.
    #[error("{}: {source}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

/// Why a local write was refused. Nothing of the operation was kept.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The app's schema has no such collection.
    #[error("the schema has no collection {collection:?}")]
    UnknownCollection {
        /// The name that was given.
        collection: String,
    },
    /// The collection has no such column.
    #[error("{collection} has no column {column:?}")]
    UnknownColumn {
        /// The collection.
        collection: String,
        /// The name that was given.
        column: String,
    },
    /// The value or the operation does not fit the column.
    #[error("{collection}.{column}: {problem}")]
    Invalid {
        /// The collection.
        collection: String,
        /// The column.
        column: String,
        /// The code with which the server would refuse it.
        code: ReasonCode,
        /// What does not fit.
        problem: String,
    },
    /// The row does not exist.
    #[error("{collection}: there is no row {row}")]
    RowMissing {
        /// The collection.
        collection: String,
        /// The row.
        row: RowId,
    },
    /// The row is deleted.
    #[error("{collection}: row {row} is deleted; restore it first")]
    RowDeleted {
        /// The collection.
        collection: String,
        /// The row.
        row: RowId,
    },
    /// The row exists already.
    #[error("{collection}: row {row} exists already")]
    RowExists {
        /// The collection.
        collection: String,
        /// The row.
        row: RowId,
    },
    /// Something is larger than a limit of the protocol.
    #[error("{what} would have {found}; the limit is {limit}")]
    TooLarge {
        /// What, with its unit.
        what: &'static str,
        /// How large it would be.
        found: usize,
        /// How large it may be.
        limit: usize,
    },
    /// The document does not take the edit.
    #[error("{collection}.{column}: {problem}")]
    Document {
        /// The collection.
        collection: String,
        /// The column.
        column: String,
        /// Why.
        problem: String,
    },
    /// There is no such quarantined transaction.
    #[error("there is no quarantined transaction {id}")]
    NotQuarantined {
        /// The number that was given.
        id: u64,
    },
    /// The system gave no randomness for a new id.
    #[error("no randomness for a new id: {0}")]
    Randomness(getrandom::Error),
    /// An earlier operation of this transaction failed in the database.
    #[error("an earlier operation of this transaction failed")]
    Broken,
    /// The body gave its own transaction up.
    #[error("{0}")]
    Aborted(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a read was refused.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The SQL does not parse, names what is not there, or fails.
    #[error("{message}")]
    Sql {
        /// What SQLite said.
        message: String,
    },
    /// Only SELECT is allowed, one statement at a time.
    #[error("a query only reads, in one statement: {message}")]
    NotReadOnly {
        /// What it would do.
        message: String,
    },
    /// The query takes another number of parameters.
    #[error("the query takes {expected} parameters, {found} were given")]
    Parameters {
        /// How many it takes.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// More than [`MAX_QUERY_ROWS`] rows.
    #[error("the query gives more than {MAX_QUERY_ROWS} rows; add a LIMIT")]
    TooManyRows,
    /// More than [`MAX_QUERY_BYTES`] of values.
    #[error("the query gives more than {MAX_QUERY_BYTES} bytes; add a LIMIT or name fewer columns")]
    TooManyBytes,
    /// The app's schema has no such collection.
    #[error("the schema has no collection {collection:?}")]
    UnknownCollection {
        /// The name that was given.
        collection: String,
    },
    /// The collection has no such document column.
    #[error("{collection} has no document column {column:?}")]
    UnknownDocument {
        /// The collection.
        collection: String,
        /// The name that was given.
        column: String,
    },
    /// The document does not open, or has nothing at the path.
    #[error("{collection}.{column}: {problem}")]
    Document {
        /// The collection.
        collection: String,
        /// The column.
        column: String,
        /// Why.
        problem: String,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A failure inside the store, before it is known for whom and where.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Device(std::io::Error),
    #[error("damaged: {0}")]
    Damaged(String),
    #[error("protocol: {0}")]
    Protocol(String),
}

impl Failure {
    pub(super) fn damaged(detail: impl Into<String>) -> Self {
        Self::Damaged(detail.into())
    }

    pub(super) fn protocol(detail: impl Into<String>) -> Self {
        Self::Protocol(detail.into())
    }
}

impl StoreError {
    pub(super) fn new(path: &Path, failure: Failure) -> Self {
        let path = path.to_owned();
        match failure {
            Failure::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => Self::Full { path },
                Some(ErrorCode::ReadOnly) => Self::ReadOnly { path },
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path },
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                    Self::Damaged { path, detail: error.to_string() }
                }
                _ => Self::Sqlite { path, source: error },
            },
            Failure::Device(source) => {
                let source = encrypted_file::OpenError::Io { path, source };
                Self::Open { source: Box::new(source) }
            }
            Failure::Damaged(detail) => Self::Damaged { path, detail },
            Failure::Protocol(detail) => Self::Protocol { detail },
        }
    }
}

//! A few read-only connections, opened when they are needed.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::error::{Failure, OpenError, StoreError};
use super::functions;
use super::open;
use super::query::ReadGuard;
use crate::encrypted_file::{self, OpenMode, StoreKey};

/// Read-only connections of one store.
pub const MAX_READERS: usize = 4;

/// Statements that a reader keeps prepared.
const READER_STATEMENTS: usize = 64;

/// The pool.
pub(super) struct Readers {
    path: PathBuf,
    state: Mutex<State>,
    returned: Condvar,
}

struct State {
    /// `None` once the store is closed.
    key: Option<StoreKey>,
    idle: Vec<Reader>,
    lent: usize,
}

/// One read-only connection.
pub(super) struct Reader {
    pub connection: Connection,
    pub guard: Arc<ReadGuard>,
}

/// A connection that goes back to the pool; after a panic it is closed instead.
struct Lent<'a> {
    readers: &'a Readers,
    reader: Option<Reader>,
}

impl Readers {
    pub(super) const fn new(path: PathBuf, key: StoreKey) -> Self {
        let state = State { key: Some(key), idle: Vec::new(), lent: 0 };
        Self { path, state: Mutex::new(state), returned: Condvar::new() }
    }

    /// Reads with one of the connections; waits while all are in use.
    ///
    /// A connection that has read what is not authentic is closed: it would give out nothing but errors from then on,
    /// also where the disk only failed for a moment.
    pub(super) fn with<T, E: From<StoreError>>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut lent = self.lend()?;
        let reader = lent.reader.as_ref().expect("it is there until it goes back");
        let found = read(reader);
        match open::require_sound(&reader.connection) {
            Ok(()) => found,
            Err(unsound) => {
                lent.reader = None;
                found.and_then(|_| Err(StoreError::new(&self.path, unsound).into()))
            }
        }
    }

    /// A new connection that writes, in the place of one that is of no use any more.
    pub(super) fn connect_writer(&self) -> Result<Connection, StoreError> {
        let state = self.state();
        let key = state.key.as_ref().ok_or(StoreError::Closed)?;
        match open::connect_writer(&self.path, key) {
            Ok(connection) => Ok(connection),
            Err(OpenError::File(source)) => Err(StoreError::Open { source: Box::new(source) }),
            Err(OpenError::Store(error)) => Err(error),
            Err(other) => Err(StoreError::new(&self.path, Failure::damaged(other.to_string()))),
        }
    }

    fn lend(&self) -> Result<Lent<'_>, StoreError> {
        let all_lent = |state: &mut State| {
            state.key.is_some() && state.idle.is_empty() && state.lent >= MAX_READERS
        };
        let mut state = self
            .returned
            .wait_while(self.state(), all_lent)
            .unwrap_or_else(PoisonError::into_inner);
        let Some(key) = &state.key else { return Err(StoreError::Closed) };
        let opened = if state.idle.is_empty() { Some(self.open(key)?) } else { None };
        let reader = opened.or_else(|| state.idle.pop());
        state.lent += 1;
        Ok(Lent { readers: self, reader })
    }

    fn open(&self, key: &StoreKey) -> Result<Reader, StoreError> {
        let mut connection = encrypted_file::open(&self.path, key, OpenMode::ReadOnly)
            .map_err(|source| StoreError::Open { source: Box::new(source) })?;
        connection.set_prepared_statement_cache_capacity(READER_STATEMENTS);
        let fail = |error| StoreError::new(&self.path, Failure::Sqlite(error));
        functions::register(&connection).map_err(fail)?;
        let guard = ReadGuard::install(&mut connection).map_err(fail)?;
        Ok(Reader { connection, guard })
    }

    /// Closes what is idle, and what is lent when it comes back.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.key = None;
        state.idle.clear();
        drop(state);
        self.returned.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut state = self.readers.state();
        state.lent -= 1;
        if let Some(reader) = self.reader.take()
            && state.key.is_some()
            && !std::thread::panicking()
        {
            state.idle.push(reader);
        }
        drop(state);
        self.readers.returned.notify_one();
    }
}

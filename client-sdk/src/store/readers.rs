//! A few read-only connections, opened when they are needed.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::error::{Failure, StoreError};
use super::functions;
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
    pub(super) fn with<T, E: From<StoreError>>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, E>,
    ) -> Result<T, E> {
        let lent = self.lend()?;
        read(lent.reader.as_ref().expect("it is there until it goes back"))
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

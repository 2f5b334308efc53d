//! Suspending, resuming and closing: a mobile app must let go of its files before the system freezes it.

use crate::client::Client;
use crate::store::{CreateMode, OpenError, Store, StoreError, StoreOptions};

/// Why a client could not be suspended or resumed.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// The files could not be closed in order. Nothing that was acknowledged is lost.
    #[error(transparent)]
    Close(#[from] StoreError),
    /// The store could not be opened again. The client stays suspended.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Client {
    /// Finishes the write that is under way, disconnects, moves the write-ahead log into the database and closes the
    /// files. Until [`Client::resume`], reads and writes fail with [`StoreError::Closed`] and live queries are
    /// silent. A suspended client stays so.
    ///
    /// # Errors
    /// [`PauseError::Close`]; the client is suspended all the same.
    pub fn suspend(&self) -> Result<(), PauseError> {
        let mut link = self.link();
        link.cut();
        let Some(store) = self.inner.store.take() else { return Ok(()) };
        let checkpointed = store.checkpoint_wal();
        let closed = store.close();
        self.inner.board.touch();
        Ok(checkpointed.and(closed)?)
    }

    /// Opens the files again, and connects again if there was a connection. A client that is not suspended stays as
    /// it is.
    ///
    /// # Errors
    /// [`PauseError::Open`].
    pub fn resume(&self) -> Result<(), PauseError> {
        let was_wanted = {
            let link = self.link();
            if self.inner.store.get().is_ok() {
                return Ok(());
            }
            let options = self.inner.settings.options.clone();
            self.inner
                .store
                .put(Store::open(StoreOptions { create: CreateMode::MustExist, ..options })?);
            link.wanted
        };
        self.listen();
        self.inner.live.wake_all();
        self.inner.board.touch();
        if was_wanted {
            // It could connect before, so it can now: server and tokens are what they were.
            let _ = self.start();
        }
        Ok(())
    }

    /// Suspends for good: every clone is closed.
    ///
    /// # Errors
    /// [`PauseError::Close`]; it is closed all the same.
    pub fn close(self) -> Result<(), PauseError> {
        self.link().wanted = false;
        self.suspend()
    }
}

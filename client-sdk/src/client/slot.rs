//! The place where the open store stands, and where nothing stands while the client is suspended.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::{Counts, Store, StoreError};

/// The open store, if it is open.
pub(crate) struct StoreSlot {
    content: Mutex<Content>,
}

struct Content {
    store: Option<Store>,
    /// What was counted last, for a status while the store is closed.
    counts: Counts,
}

impl StoreSlot {
    pub(crate) fn new(store: Store) -> Self {
        Self { content: Mutex::new(Content { store: Some(store), counts: Counts::default() }) }
    }

    /// The store.
    ///
    /// # Errors
    /// [`StoreError::Closed`] while the client is suspended or after it was closed.
    pub(crate) fn get(&self) -> Result<Store, StoreError> {
        self.lock().store.clone().ok_or(StoreError::Closed)
    }

    /// The counts, and whether the store is closed; then they are those of before.
    pub(crate) fn counts(&self) -> (Counts, bool) {
        // The store is read without the lock, so that a slow read holds nobody up.
        match self.get().map(|store| store.counts()) {
            Ok(Ok(counts)) => {
                self.lock().counts = counts;
                (counts, false)
            }
            // A store that fails to count says so on the next read or write, with its reason.
            Ok(Err(_)) => (self.lock().counts, false),
            Err(_) => (self.lock().counts, true),
        }
    }

    /// Takes the store out; calls that have it already go on with it.
    pub(crate) fn take(&self) -> Option<Store> {
        // The last word on how things stood.
        self.counts();
        self.lock().store.take()
    }

    /// Puts a store in.
    pub(crate) fn put(&self, store: Store) {
        self.lock().store = Some(store);
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

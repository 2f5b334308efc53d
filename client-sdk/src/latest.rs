//! A value of which only the newest counts: one writes it, many look at it or wait for the next one.
//!
//! It holds one value and a version, never a queue, so it is bounded however slow a reader is. Readers may block
//! or await; both see the same versions.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// The newest value.
#[derive(Debug)]
pub(crate) struct Latest<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// The version, for those who await it; [`CLOSED`] at the end.
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State<T> {
    version: u64,
    value: T,
    closed: bool,
}

/// No version gets that far.
const CLOSED: u64 = u64::MAX;

impl<T: Default> Default for Latest<T> {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), version: watch::Sender::new(0) }
    }
}

impl<T: Clone> Latest<T> {
    /// Puts a new value in the place of the old one.
    pub(crate) fn set(&self, value: T) {
        self.change(|current| *current = value);
    }

    /// Wakes everyone who waits, for a reason that lies outside of the value.
    pub(crate) fn touch(&self) {
        self.change(|_| {});
    }

    /// Says that no value will come any more, and wakes everyone who waits.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.version.send_replace(CLOSED);
        self.changed.notify_all();
    }

    /// Whether no value will come any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The value now, and its version.
    pub(crate) fn look(&self) -> (u64, T) {
        let state = self.lock();
        (state.version, state.value.clone())
    }

    /// Blocks until there is another version than this one, until no other one will come, or until the time is over.
    pub(crate) fn wait_beyond(&self, seen: u64, timeout: Duration) {
        let unchanged = |state: &mut State<T>| state.version == seen && !state.closed;
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, unchanged);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until there is another version than this one, or until no other one will come.
    pub(crate) async fn changed_beyond(&self, seen: u64) {
        // The sender is part of this value, so it cannot be gone.
        let _ = self.version.subscribe().wait_for(|version| *version != seen).await;
    }

    fn change(&self, change: impl FnOnce(&mut T)) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        change(&mut state.value);
        state.version += 1;
        self.version.send_replace(state.version);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_late_reader_sees_the_newest_value_only() {
        let latest = Latest::default();
        for n in 1..=3 {
            latest.set(n);
        }
        assert_eq!(latest.look(), (3, 3));
        latest.changed_beyond(0).await;
        latest.wait_beyond(0, Duration::from_secs(60));
        latest.touch();
        assert_eq!(latest.look(), (4, 3));
    }

    #[test]
    fn a_reader_that_blocks_is_woken_by_another_thread() {
        let latest = Arc::new(Latest::<u32>::default());
        let reader = Arc::clone(&latest);
        let waiting = std::thread::spawn(move || {
            reader.wait_beyond(0, Duration::from_secs(60));
            reader.look().1
        });
        latest.set(7);
        assert_eq!(waiting.join().unwrap(), 7);
        latest.wait_beyond(1, Duration::ZERO);
    }

    #[tokio::test]
    async fn nobody_waits_for_what_will_not_come() {
        let latest = Latest::<u32>::default();
        latest.set(7);
        latest.close();
        latest.changed_beyond(1).await;
        latest.wait_beyond(1, Duration::from_secs(60));
        latest.set(8);
        assert_eq!(latest.look(), (1, 7));
        assert!(latest.is_closed());
    }
}

//! Telling readers that collections changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Says which collections changed since a version. It keeps one number for each collection, so that it is bounded
/// whatever the reader does: many commits come as one.
#[derive(Clone)]
pub struct ChangeFeed {
    feed: Arc<Feed>,
}

/// What changed since a version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// The version to ask from next.
    pub version: u64,
    /// The names of the collections that changed.
    pub collections: BTreeSet<String>,
    /// Whether the outbox changed.
    pub outbox: bool,
    /// Whether the quarantine changed.
    pub quarantine: bool,
}

/// Keeps a callback registered until it is dropped.
#[must_use = "dropping the subscription ends it"]
pub struct Subscription {
    feed: Weak<Feed>,
    number: u64,
}

type Callback = Arc<dyn Fn(&Changes) + Send + Sync>;

#[derive(Default)]
struct Feed {
    state: Mutex<State>,
    committed: Condvar,
}

#[derive(Default)]
struct State {
    version: u64,
    /// The version in which each collection changed last.
    collections: BTreeMap<String, u64>,
    outbox: u64,
    quarantine: u64,
    callbacks: BTreeMap<u64, Callback>,
    next_callback: u64,
}

impl ChangeFeed {
    pub(super) fn new() -> Self {
        Self { feed: Arc::default() }
    }

    /// The version of the last commit of this process.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.feed.state().version
    }

    /// What changed after a version; without waiting.
    #[must_use]
    pub fn since(&self, version: u64) -> Changes {
        self.feed.state().since(version)
    }

    /// Waits until there is a commit after a version; `None` after `timeout`.
    #[must_use]
    pub fn wait(&self, version: u64, timeout: Duration) -> Option<Changes> {
        let waiting = |state: &mut State| state.version <= version;
        let waited = self.feed.committed.wait_timeout_while(self.feed.state(), timeout, waiting);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        (!timeout.timed_out()).then(|| state.since(version))
    }

    /// Calls back after each commit with what it changed, on the thread that committed: it must not block.
    pub fn subscribe(&self, callback: impl Fn(&Changes) + Send + Sync + 'static) -> Subscription {
        let mut state = self.feed.state();
        let number = state.next_callback;
        state.next_callback += 1;
        state.callbacks.insert(number, Arc::new(callback));
        Subscription { feed: Arc::downgrade(&self.feed), number }
    }

    /// Takes a commit in and tells everybody.
    pub(super) fn publish(&self, mut changes: Changes) {
        if changes.collections.is_empty() && !changes.outbox && !changes.quarantine {
            return;
        }
        let callbacks: Vec<Callback> = {
            let mut state = self.feed.state();
            changes.version = state.take_in(&changes);
            state.callbacks.values().cloned().collect()
        };
        self.feed.committed.notify_all();
        callbacks.iter().for_each(|callback| callback(&changes));
    }
}

impl Feed {
    fn state(&self) -> MutexGuard<'_, State> {
        // A callback runs outside of the lock, so that nothing in here is ever half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_in(&mut self, changes: &Changes) -> u64 {
        self.version += 1;
        for name in &changes.collections {
            self.collections.insert(name.clone(), self.version);
        }
        if changes.outbox {
            self.outbox = self.version;
        }
        if changes.quarantine {
            self.quarantine = self.version;
        }
        self.version
    }

    fn since(&self, version: u64) -> Changes {
        let changed = self.collections.iter().filter(|(_, at)| **at > version);
        Changes {
            version: self.version,
            collections: changed.map(|(name, _)| name.clone()).collect(),
            outbox: self.outbox > version,
            quarantine: self.quarantine > version,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(feed) = self.feed.upgrade() {
            feed.state().callbacks.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn of(collections: &[&str]) -> Changes {
        Changes { collections: names(collections), ..Changes::default() }
    }

    #[test]
    fn many_commits_come_as_one() {
        let feed = ChangeFeed::new();
        feed.publish(Changes { outbox: true, ..of(&["a"]) });
        let seen = feed.version();
        feed.publish(of(&["b"]));
        feed.publish(Changes { quarantine: true, ..of(&["b", "c"]) });
        let changes = feed.since(seen);
        assert_eq!(changes.collections, names(&["b", "c"]));
        assert_eq!((changes.version, changes.outbox, changes.quarantine), (3, false, true));
        assert_eq!(feed.since(3), Changes { version: 3, ..Changes::default() });
        assert_eq!(feed.wait(3, Duration::ZERO), None);
        assert_eq!(feed.wait(2, Duration::ZERO).map(|changes| changes.version), Some(3));
    }

    #[test]
    fn a_waiting_thread_wakes_and_a_dropped_subscription_is_silent() {
        let feed = ChangeFeed::new();
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&calls);
        let subscription = feed.subscribe(move |changes| {
            counted.fetch_add(changes.version, Ordering::SeqCst);
        });
        let waiter = {
            let feed = feed.clone();
            std::thread::spawn(move || feed.wait(0, Duration::from_secs(60)))
        };
        feed.publish(of(&["a"]));
        assert_eq!(waiter.join().unwrap().unwrap().collections, names(&["a"]));
        drop(subscription);
        feed.publish(of(&["a"]));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}

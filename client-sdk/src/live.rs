//! Live queries: a SELECT that runs again when a commit touches a collection that it reads.
//!
//! Invariants:
//! - Nothing queues up: commits that come while a query runs cost one more run, and a reader that looks late sees
//!   the newest result only.
//! - A result is told only if it differs from the one before.
//! - At most [`MAX_LIVE_RUNS`] live queries read the store at the same time, so that they never starve the app.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, spawn_blocking};

use crate::client::StoreSlot;
use crate::latest::Latest;
use crate::store::{QueryError, QueryRows, SqlValue, StoreError};

/// Live queries of one client at the same time.
pub const MAX_LIVE_QUERIES: usize = 1_024;
/// Live queries of one client that read the store at the same time.
pub const MAX_LIVE_RUNS: usize = 2;

/// What a live query has to say: rows, or why there are none this time.
pub type LiveResult = Result<Arc<QueryRows>, Arc<QueryError>>;

/// Why a query cannot be live.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The query itself is refused.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// There are as many as a client may have.
    #[error("there are {MAX_LIVE_QUERIES} live queries already; drop some")]
    TooMany,
}

/// A live query. Dropping it ends it, and so does dropping the client.
pub struct LiveQuery {
    entry: Arc<Entry>,
    seen: u64,
    next_version: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    runtime: Handle,
    _task: AbortOnDrop,
}

/// Keeps a callback of [`LiveQuery::on_change`] registered until it is dropped.
pub struct LiveSubscription {
    _task: AbortOnDrop,
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl LiveQuery {
    /// The next result: at first the present one, then each that differs from the one before. `None` when the client
    /// is gone.
    pub async fn next(&mut self) -> Option<LiveResult> {
        loop {
            if let Some(result) = self.take() {
                return Some(result);
            }
            if self.entry.results.is_closed() {
                return None;
            }
            self.entry.results.changed_beyond(self.seen).await;
        }
    }

    /// As [`LiveQuery::next`], blocking; `None` when there is nothing new for so long.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<LiveResult> {
        // Each version is a new result, so one wait is enough.
        self.entry.results.wait_beyond(self.seen, timeout);
        self.take()
    }

    /// The newest result, whether it was seen or not.
    #[must_use]
    pub fn latest(&self) -> Option<LiveResult> {
        self.entry.results.look().1
    }

    /// Calls back with each result, on a thread of the SDK that may block, one call at a time. What comes while a
    /// call runs is coalesced.
    #[must_use = "dropping the subscription ends it"]
    pub fn on_change(
        mut self,
        callback: impl Fn(LiveResult) + Send + Sync + 'static,
    ) -> LiveSubscription {
        let callback = Arc::new(callback);
        let runtime = self.runtime.clone();
        let calling = runtime.spawn(async move {
            while let Some(result) = self.next().await {
                let callback = Arc::clone(&callback);
                // A callback that panics has had its say; the next result is told all the same.
                let _ = spawn_blocking(move || callback(result)).await;
            }
        });
        LiveSubscription { _task: AbortOnDrop(calling.abort_handle()) }
    }

    fn take(&mut self) -> Option<LiveResult> {
        let (version, result) = self.entry.results.look();
        let is_new = version != self.seen;
        self.seen = version;
        result.filter(|_| is_new)
    }
}

impl Stream for LiveQuery {
    type Item = LiveResult;

    /// It ends when the client is gone.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<LiveResult>> {
        loop {
            if let Some(result) = self.take() {
                self.next_version = None;
                return Poll::Ready(Some(result));
            }
            if self.entry.results.is_closed() {
                return Poll::Ready(None);
            }
            let (entry, seen) = (Arc::clone(&self.entry), self.seen);
            let next = self.next_version.get_or_insert_with(|| {
                Box::pin(async move { entry.results.changed_beyond(seen).await })
            });
            match next.as_mut().poll(context) {
                Poll::Ready(()) => self.next_version = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// The live queries of one client.
pub(crate) struct LiveQueries {
    store: Arc<StoreSlot>,
    runtime: Handle,
    entries: Mutex<Vec<Weak<Entry>>>,
    runs: Arc<Semaphore>,
}

struct Entry {
    sql: String,
    params: Vec<SqlValue>,
    collections: BTreeSet<String>,
    touched: Notify,
    results: Latest<Option<LiveResult>>,
}

impl LiveQueries {
    pub(crate) fn new(store: Arc<StoreSlot>, runtime: Handle) -> Self {
        Self {
            store,
            runtime,
            entries: Mutex::default(),
            runs: Arc::new(Semaphore::new(MAX_LIVE_RUNS)),
        }
    }

    /// Starts a live query; its first result is there when this returns.
    pub(crate) fn start(&self, sql: &str, params: &[SqlValue]) -> Result<LiveQuery, LiveError> {
        let store = self.store.get().map_err(QueryError::from)?;
        let entry = Arc::new(Entry {
            sql: sql.to_owned(),
            params: params.to_vec(),
            collections: store.tables_of(sql)?,
            touched: Notify::new(),
            results: Latest::default(),
        });
        // Registered before the first run, so that no commit falls between the two.
        self.register(&entry)?;
        entry.results.set(Some(Ok(Arc::new(store.query(sql, params)?))));
        let run = keep_running(Arc::clone(&entry), Arc::clone(&self.store), Arc::clone(&self.runs));
        Ok(LiveQuery {
            entry,
            seen: 0,
            next_version: None,
            runtime: self.runtime.clone(),
            _task: AbortOnDrop(self.runtime.spawn(run).abort_handle()),
        })
    }

    /// A commit touched these collections.
    pub(crate) fn touched(&self, collections: &BTreeSet<String>) {
        self.wake(|entry| !entry.collections.is_disjoint(collections));
    }

    /// The store is back: whatever happened meanwhile, everything is read anew.
    pub(crate) fn wake_all(&self) {
        self.wake(|_| true);
    }

    /// The client is gone: nothing more comes.
    pub(crate) fn close(&self) {
        self.entries().iter().filter_map(Weak::upgrade).for_each(|entry| entry.results.close());
    }

    fn wake(&self, concerned: impl Fn(&Entry) -> bool) {
        for entry in self.entries().iter().filter_map(Weak::upgrade) {
            if concerned(&entry) {
                entry.touched.notify_one();
            }
        }
    }

    fn register(&self, entry: &Arc<Entry>) -> Result<(), LiveError> {
        let mut entries = self.entries();
        entries.retain(|other| other.strong_count() > 0);
        if entries.len() >= MAX_LIVE_QUERIES {
            return Err(LiveError::TooMany);
        }
        entries.push(Arc::downgrade(entry));
        Ok(())
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Weak<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn keep_running(entry: Arc<Entry>, store: Arc<StoreSlot>, runs: Arc<Semaphore>) {
    loop {
        entry.touched.notified().await;
        // The semaphore is never closed.
        let Ok(_run) = runs.acquire().await else { return };
        let (reading, slot) = (Arc::clone(&entry), Arc::clone(&store));
        let read = spawn_blocking(move || slot.get()?.query(&reading.sql, &reading.params)).await;
        match read {
            // While the client is suspended there is nothing to tell; coming back wakes everyone.
            Ok(Err(QueryError::Store(StoreError::Closed))) | Err(_) => {}
            Ok(Err(error)) => entry.results.set(Some(Err(Arc::new(error)))),
            Ok(Ok(rows)) => {
                let before = entry.results.look().1;
                if !matches!(before, Some(Ok(before)) if *before == rows) {
                    entry.results.set(Some(Ok(Arc::new(rows))));
                }
            }
        }
    }
}

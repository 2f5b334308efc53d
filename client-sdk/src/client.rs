//! The public face of the SDK: a client is one replica, with its encrypted store and its connection.
//!
//! | file | subject |
//! |---|---|
//! | `builder` | what an app gives to make a client |
//! | `documents` | reading documents |
//! | `identity`, `owner_file` | whose replica it is |
//! | `slot` | the open store, and its absence while suspended |
//! | `syncing` | connecting, waiting, syncing once |
//! | `pausing` | suspending, resuming, closing |
//! | `runtime` | the threads it runs on |

use std::sync::{Arc, Mutex};

use farshore_sync_core::digest::Sum;
use farshore_sync_core::ids::{CollectionId, DeviceId, RowId, Scope, TenantId};
use farshore_sync_core::replica::RetryPolicy;
use farshore_sync_core::schema::Schema;
use tokio::sync::Notify;

mod builder;
mod documents;
mod identity;
pub(crate) mod owner_file;
mod pausing;
mod runtime;
mod slot;
mod syncing;
#[cfg(test)]
mod tests;

pub use builder::{BuildError, ClientBuilder, DEFAULT_NAME, SchemaSource};
pub use owner_file::{MAX_OWNER_FILE_BYTES, OwnerFileError};
pub use pausing::PauseError;
pub use runtime::{END_TIMEOUT, MAX_BLOCKING_THREADS, WORKER_THREADS};
pub(crate) use slot::StoreSlot;
pub use syncing::{ConnectError, Goal, SyncReport, WaitError};

use crate::environment::Environment;
use crate::live::{LiveError, LiveQueries, LiveQuery};
use crate::status::{Status, StatusSource, StatusWatch};
use crate::store::{
    OutboxEntry, Quarantined, QueryError, QueryRows, Row, SqlValue, Store, StoreOptions,
    WriteError, WriteTransaction,
};
use crate::sync::{Board, Owner, Route, StoreCalls, TokenSource};
use runtime::SdkRuntime;
use syncing::Link;

/// One replica. Cloning it is cheap; every clone is the same replica.
///
/// Its methods block for as long as the database or the driver takes. Call them from threads that may wait: from an
/// async task through `spawn_blocking`. They may be called from any number of threads.
///
/// Drop the last clone before the process ends, outside of async tasks: that waits for what the store is doing, up to
/// [`END_TIMEOUT`]. A process that exits in the middle of a write loses nothing that was acknowledged, but may crash
/// in SQLCipher's exit handler, which frees what other threads still encrypt with.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    store: Arc<StoreSlot>,
    environment: Arc<dyn Environment>,
    board: Arc<Board>,
    live: Arc<LiveQueries>,
    /// Tells the driver of new transactions.
    commits: Arc<Notify>,
    link: Mutex<Link>,
    /// Dropped last: everything else may have tasks on it.
    runtime: SdkRuntime,
}

impl Drop for Inner {
    /// Whoever still waits for a status or a result learns that none will come.
    fn drop(&mut self) {
        self.board.close();
        self.live.close();
    }
}

/// What a client was built with.
struct Settings {
    options: StoreOptions,
    route: Option<Route>,
    retry: RetryPolicy,
    store_calls: StoreCalls,
}

impl Client {
    /// What collects the parts of a client.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    fn new(
        store: Store,
        settings: Settings,
        owner: Owner,
        tokens: Option<TokenSource>,
        environment: Arc<dyn Environment>,
        runtime: SdkRuntime,
    ) -> Self {
        let store = Arc::new(StoreSlot::new(store));
        let live = Arc::new(LiveQueries::new(Arc::clone(&store), runtime.handle().clone()));
        let inner = Inner {
            settings,
            store,
            environment,
            board: Arc::default(),
            live,
            commits: Arc::new(Notify::new()),
            link: Mutex::new(Link::new(owner, tokens)),
            runtime,
        };
        let client = Self { inner: Arc::new(inner) };
        client.listen();
        client
    }

    /// Which device this is.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.inner.settings.options.device
    }

    /// The tenant, once a token or the app has said it.
    #[must_use]
    pub fn tenant(&self) -> Option<TenantId> {
        self.link().owner.tenant.clone()
    }

    /// The app's schema.
    #[must_use]
    pub fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.inner.settings.options.schema)
    }

    /// Runs one transaction: durable when this returns, and in the outbox. An error of the body undoes everything.
    ///
    /// # Errors
    /// What the body returned, or why the transaction could not be committed.
    pub fn write<T>(
        &self,
        body: impl FnOnce(&mut WriteTransaction<'_>) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        self.inner.store.get()?.write(self.inner.environment.wall_ms(), body)
    }

    /// Runs a SELECT.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn query(&self, sql: &str, params: &[SqlValue]) -> Result<QueryRows, QueryError> {
        self.inner.store.get()?.query(sql, params)
    }

    /// One live row; `None` where there is none or it is deleted.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn row(&self, collection: &str, row: RowId) -> Result<Option<Row>, QueryError> {
        self.inner.store.get()?.row(collection, row)
    }

    /// A SELECT whose results keep coming: the present one at once, then one after each commit that changes it.
    ///
    /// # Errors
    /// See [`LiveError`].
    pub fn live(&self, sql: &str, params: &[SqlValue]) -> Result<LiveQuery, LiveError> {
        self.inner.live.start(sql, params)
    }

    /// The oldest transactions that have not come back in a checkpoint yet: "what has not synced".
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn outbox(&self, limit: usize) -> Result<Vec<OutboxEntry>, QueryError> {
        self.inner.store.get()?.outbox(limit)
    }

    /// How many transactions have not come back in a checkpoint yet, without those in the quarantine.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn unsynced(&self) -> Result<u64, QueryError> {
        Ok(self.inner.store.get()?.counts()?.unconfirmed)
    }

    /// The transactions that the server refused, oldest first, each with its reason.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn quarantine(&self) -> Result<Vec<Quarantined>, QueryError> {
        self.inner.store.get()?.quarantine()
    }

    /// Writes a quarantined transaction again, as a new one on the rows as they are now.
    ///
    /// # Errors
    /// See [`Store::resubmit`].
    pub fn resubmit(&self, id: u64) -> Result<(), WriteError> {
        self.inner.store.get()?.resubmit(id, self.inner.environment.wall_ms())
    }

    /// Puts another transaction in the place of a quarantined one.
    ///
    /// # Errors
    /// See [`Store::resubmit_with`].
    pub fn resubmit_with<T>(
        &self,
        id: u64,
        body: impl FnOnce(&mut WriteTransaction<'_>) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        self.inner.store.get()?.resubmit_with(id, self.inner.environment.wall_ms(), body)
    }

    /// Gives a quarantined transaction up.
    ///
    /// # Errors
    /// See [`Store::discard`].
    pub fn discard(&self, id: u64) -> Result<(), WriteError> {
        self.inner.store.get()?.discard(id)
    }

    /// The digest of what the server has confirmed, for each scope and collection.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn digests(&self) -> Result<Vec<(Scope, CollectionId, Sum)>, QueryError> {
        self.inner.store.get()?.digests()
    }

    /// Where the replica stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status_source().now().1
    }

    /// Tells of each change of the status.
    #[must_use]
    pub fn watch_status(&self) -> StatusWatch {
        StatusWatch::new(self.status_source())
    }

    fn status_source(&self) -> StatusSource {
        StatusSource {
            board: Arc::clone(&self.inner.board),
            store: Arc::clone(&self.inner.store),
            environment: Arc::clone(&self.inner.environment),
            runtime: self.inner.runtime.handle().clone(),
        }
    }
}

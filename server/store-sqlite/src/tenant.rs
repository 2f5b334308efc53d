//! An open tenant: one writer, a few readers beside it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use farshore_log_check::LogState;
use farshore_store::StoreError;
use farshore_store::placement::MoveToken;
use farshore_store::sql::SchemaCache;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio::task;

use crate::config::SqliteConfig;
use crate::connection::{self, OnClose, Role};
use crate::data_key::DataKey;
use crate::failure::{Failure, file_error};
use crate::journalled::{self, OwnJournal};
use crate::migrations;
use crate::replay::{self, DatabaseFile, Missing};
use crate::scope_numbers::ScopeNumbers;
use crate::sync::unwritten::Unwritten;

/// The store of a tenant as it is handed out. All of them share one [`OpenTenant`].
#[derive(Debug)]
pub(crate) struct SqliteTenant(pub Arc<OpenTenant>);

/// Why an open tenant is open no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It was erased.
    Erased,
    /// A copy took its place, or it was moved.
    BegunAnew,
    /// It was a copy, and another one began to arrive after it.
    PushedAside,
}

/// The connections of one tenant and what is remembered of it.
#[derive(Debug)]
pub(crate) struct OpenTenant {
    path: PathBuf,
    key: DataKey,
    config: Arc<SqliteConfig>,
    /// Its way into the journal that all tenants share; `None` where each of its writes syncs its own file.
    pub(crate) journal: Option<OwnJournal>,
    /// `None` once it was ended.
    writer: Mutex<Option<Connection>>,
    /// Whether the writer has read what is not authentic: it gives out nothing but errors from then on.
    writer_is_useless: AtomicBool,
    /// What moves its log again where something failed.
    file: DatabaseFile,
    /// Whether something failed, so that nobody knows what of its log is on the disk.
    pub(crate) is_log_in_doubt: AtomicBool,
    /// Whether it lacks a commit that is durable in the journal: nobody reads before that is brought in.
    pub(crate) is_behind: AtomicBool,
    /// Commits that are durable in the journal and whose transaction is still open here.
    pub(crate) held_commits: AtomicU32,
    /// What they left unwritten. It is locked for a moment and by whoever has the writer.
    unwritten: Mutex<Unwritten>,
    /// Whether somebody sees to it that their transaction ends.
    pub(crate) is_looked_at: AtomicBool,
    idle_readers: Mutex<Vec<Connection>>,
    reader_permits: Arc<Semaphore>,
    /// Why there are no connections any more.
    ended: OnceLock<Ending>,
    /// Who moves the tenant. It need not outlive the process: a move that did not end begins again with this.
    frozen_by: Mutex<Option<MoveToken>>,
    pub scopes: ScopeNumbers,
    pub schemas: SchemaCache,
}

impl OpenTenant {
    /// Opens the file of a tenant and brings its tables up to date. Blocks.
    pub fn open(
        path: PathBuf,
        key: DataKey,
        config: Arc<SqliteConfig>,
        journal: Option<OwnJournal>,
    ) -> Result<Self, StoreError> {
        let writer = open_writer(&path, &key, &config, journal.as_ref());
        let writer = writer.map_err(|failure| failure.during("open a tenant's database"))?;
        Ok(Self {
            path,
            key,
            journal,
            writer: Mutex::new(Some(writer)),
            writer_is_useless: AtomicBool::new(false),
            file: DatabaseFile::default(),
            is_log_in_doubt: AtomicBool::new(false),
            is_behind: AtomicBool::new(false),
            held_commits: AtomicU32::new(0),
            unwritten: Mutex::default(),
            is_looked_at: AtomicBool::new(false),
            idle_readers: Mutex::default(),
            reader_permits: Arc::new(Semaphore::new(config.readers_per_tenant.get())),
            ended: OnceLock::new(),
            frozen_by: Mutex::default(),
            config,
            scopes: ScopeNumbers::default(),
            schemas: SchemaCache::default(),
        })
    }

    /// One durable transaction. Blocks until all earlier ones of the tenant ended.
    pub(crate) fn write_now<T>(
        &self,
        work: impl FnOnce(&Self, &Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.with_writer(|writer| match &self.journal {
            Some(journal) => self.write_beside_journal(journal, writer, work),
            None => self.transact(writer, work),
        })
    }

    /// Lends the connection that commits, outside of a transaction and up to date. Blocks until it is free.
    pub(crate) fn with_writer<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.with_writer_as_it_is(|writer| {
            self.end_held(writer)?;
            self.recover(writer)?;
            work(writer)
        })
    }

    /// Lends the connection that commits, which may have a transaction open. Blocks until it is free.
    pub(crate) fn with_writer_as_it_is<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.lend(|writer| {
            if lock(&self.frozen_by).is_some() {
                return Err(StoreError::Frozen.into());
            }
            work(writer)
        })
    }

    /// Lends the connection that commits, which is opened anew where it is of no use, also while no writes are taken.
    fn lend<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut writer = lock(&self.writer);
        let writer = writer.as_mut().ok_or_else(|| self.why_ended())?;
        if self.writer_is_useless.load(Ordering::Acquire) {
            // Whether the file is damaged or the disk only failed for a moment, the next reads tell.
            connection::on_close(writer, OnClose::LeaveFiles)?;
            self.undo_held(writer);
            *writer = open_writer(&self.path, &self.key, &self.config, self.journal.as_ref())?;
            self.writer_is_useless.store(false, Ordering::Release);
        }
        let done = work(writer);
        if done.is_err() {
            self.is_sound(writer);
        }
        done
    }

    /// Whether the writer is of use after something failed. It is opened anew before the next use if it is not.
    pub(crate) fn is_sound(&self, writer: &Connection) -> bool {
        let is_sound = connection::require_sound(writer).is_ok();
        if !is_sound {
            self.writer_is_useless.store(true, Ordering::Release);
        }
        is_sound
    }

    fn transact<T>(
        &self,
        writer: &mut Connection,
        work: impl FnOnce(&Self, &Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(self, &transaction)?;
        connection::require_sound(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// Brings what the shared journal has of the tenant into its file. Where that cannot be done now, the journal keeps
    /// it. Blocks.
    pub(crate) fn settle(&self) {
        let writer = lock(&self.writer);
        if let (Some(journal), Some(writer)) = (&self.journal, &*writer)
            && !self.is_writer_useless()
            && matches!(self.end_held(writer), Ok(true))
            && !self.is_log_in_doubt.load(Ordering::Acquire)
            && journal.settle(writer).is_err()
        {
            self.is_log_in_doubt.store(true, Ordering::Release);
        }
    }

    /// Brings the file up to date after something failed.
    pub(crate) fn recover(&self, writer: &mut Connection) -> Result<(), Failure> {
        if self.is_log_in_doubt.load(Ordering::Acquire) {
            replay::recover(writer, &self.path, &self.file, self.journal.as_ref())?;
            self.is_log_in_doubt.store(false, Ordering::Release);
            self.is_behind.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Brings in what the file lacks before somebody reads. Blocks.
    fn catch_up(&self) -> Result<(), Failure> {
        self.lend(|writer| {
            self.end_held(writer)?;
            self.recover(writer)
        })
    }

    /// Whether the writer gives out nothing but errors.
    pub(crate) fn is_writer_useless(&self) -> bool {
        self.writer_is_useless.load(Ordering::Acquire)
    }

    /// How many commits are in the transaction that is held open; 0 where none is.
    pub(crate) fn held_commits(&self) -> u32 {
        self.held_commits.load(Ordering::Acquire)
    }

    /// What the commits in the transaction that is held open left unwritten.
    pub(crate) fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        lock(&self.unwritten)
    }

    /// Ends the transaction that was held open, if one is. Where it cannot be ended, the journal has what was in it.
    pub(crate) fn end_held_now(&self) {
        if let Some(writer) = &*lock(&self.writer) {
            drop(self.end_held(writer));
        }
    }

    /// One snapshot. Blocks, and for a commit only where others are held open.
    fn read_now<T>(
        &self,
        work: impl FnOnce(&Self, &Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.ended.get().is_some() {
            return Err(self.why_ended().into());
        }
        let lacks_some = self.held_commits() > 0;
        if lacks_some || self.is_behind.load(Ordering::Acquire) {
            self.catch_up()?;
        }
        let idle = lock(&self.idle_readers).pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => connection::open(&self.path, &self.key, Role::Reader, &self.config)?,
        };
        let snapshot = reader.transaction()?;
        let done = work(self, &snapshot)?;
        connection::require_sound(&snapshot)?;
        snapshot.finish()?;
        if self.ended.get().is_none() {
            lock(&self.idle_readers).push(reader);
        }
        Ok(done)
    }

    /// Takes no more writes once those are over that have begun. Blocks.
    pub fn freeze(&self, by: MoveToken) {
        let writer = lock(&self.writer);
        if let Some(writer) = &*writer {
            drop(self.end_held(writer));
        }
        *lock(&self.frozen_by) = Some(by);
    }

    pub fn thaw(&self, by: MoveToken) {
        lock(&self.frozen_by).take_if(|frozen_by| *frozen_by == by);
    }

    /// Closes every connection for good, after the commit that is running, and says why from then on. Blocks.
    pub fn end(&self, ending: Ending) {
        // Whoever ended it first has said why.
        let _ = self.ended.set(ending);
        drop(self.take_connections());
    }

    fn why_ended(&self) -> StoreError {
        match self.ended.get() {
            Some(Ending::BegunAnew) => StoreError::BegunAnew,
            Some(Ending::PushedAside) => StoreError::PushedAside,
            Some(Ending::Erased) | None => StoreError::Erased,
        }
    }

    /// Closes every connection and leaves one file that holds everything, without a log. Blocks.
    pub fn close_whole(&self) -> Result<(), Failure> {
        // What failed before is mended before the log goes.
        self.with_writer(|_| Ok(()))?;
        self.wait_for_readers();
        let mut connections = self.take_connections();
        connections.readers.clear();
        let writer = connections.writer.take().ok_or_else(|| self.why_ended())?;
        connection::close_whole(writer)
    }

    /// Waits until nobody reads, while no further read begins. Blocks.
    pub fn wait_for_readers(&self) {
        let all = u32::try_from(self.config.readers_per_tenant.get()).unwrap_or(u32::MAX);
        let permits = Handle::current().block_on(self.reader_permits.acquire_many(all));
        drop(permits.expect("nothing closes the semaphore"));
    }

    /// Pages after which its log is moved into its file.
    pub fn checkpoint_after_pages(&self) -> u32 {
        self.config.checkpoint_after_pages
    }

    /// The key of its file.
    pub const fn key(&self) -> &DataKey {
        &self.key
    }

    /// Closes a tenant that nobody uses any more, which moves its log into its file. Blocks.
    pub fn close(self) {
        drop(self.take_connections());
    }

    fn take_connections(&self) -> Connections {
        let readers = std::mem::take(&mut *lock(&self.idle_readers));
        let mut open = lock(&self.writer);
        let (writer, unwritten) = (open.take(), std::mem::take(&mut *self.unwritten()));
        drop(open);
        let is_useless = self.is_writer_useless();
        let is_in_doubt = self.is_log_in_doubt.load(Ordering::Acquire);
        Connections {
            readers,
            writer,
            unwritten,
            path: self.path.clone(),
            file: self.file.clone(),
            journal: self.journal.clone(),
            is_useless,
            is_in_doubt,
        }
    }
}

/// The connections of a tenant that closes.
struct Connections {
    readers: Vec<Connection>,
    writer: Option<Connection>,
    unwritten: Unwritten,
    path: PathBuf,
    file: DatabaseFile,
    journal: Option<OwnJournal>,
    is_useless: bool,
    is_in_doubt: bool,
}

impl Drop for Connections {
    /// Closes them in order: the writer comes last and takes the log along. Blocks.
    ///
    /// Where something failed that cannot be mended now, the log stays, and the journal keeps what the file may not have:
    /// pages of a log that is not on the disk must not be moved into the file, as what is there of the log is older.
    fn drop(&mut self) {
        self.readers.clear();
        let Some(mut writer) = self.writer.take() else { return };
        if self.is_useless || self.tidy(&mut writer).is_err() {
            let _ = connection::on_close(&writer, OnClose::LeaveFiles);
        }
    }
}

impl Connections {
    fn tidy(&mut self, writer: &mut Connection) -> Result<(), Failure> {
        if !writer.is_autocommit() {
            journalled::end(writer, std::mem::take(&mut self.unwritten))?;
        }
        if self.is_in_doubt {
            replay::recover(writer, &self.path, &self.file, self.journal.as_ref())?;
        }
        if let Some(journal) = &self.journal {
            journal.settle(writer)?;
        }
        Ok(())
    }
}

impl SqliteTenant {
    /// Runs `work` in one durable transaction on a thread that may block.
    pub async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&OpenTenant, &Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let tenant = Arc::clone(&self.0);
        let done = blocking(operation, move || tenant.write_now(work)).await?;
        done.map_err(|failure| failure.during(operation))
    }

    /// Runs `work` on one snapshot on a thread that may block.
    pub async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&OpenTenant, &Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.0.reader_permits).acquire_owned().await;
        let permit = permit.expect("nothing closes the semaphore");
        let tenant = Arc::clone(&self.0);
        let done = blocking(operation, move || {
            let done = tenant.read_now(work);
            drop(permit);
            done
        });
        done.await?.map_err(|failure| failure.during(operation))
    }
}

/// The connection that commits, on tables that are up to date, with everything that the shared journal has of it.
fn open_writer(
    path: &Path,
    key: &DataKey,
    config: &SqliteConfig,
    journal: Option<&OwnJournal>,
) -> Result<Connection, Failure> {
    let had_log = connection::has_log(path);
    let log = connection::log_state(path)?;
    // The journal has what was in the end of a log that was not synced, whichever part of it is there.
    let may_end_early = journal.is_some_and(OwnJournal::has_unsettled);
    if !may_end_early || !matches!(log, LogState::FrameDamaged(_)) {
        connection::of_log(path, log)?;
    }
    let mut writer = connection::open(path, key, Role::Writer, config)?;
    let ready = make_ready(&mut writer, path, log, journal);
    if ready.is_ok() || !had_log {
        connection::on_close(&writer, OnClose::TidyLog)?;
    }
    ready.map(|()| writer)
}

fn make_ready(
    writer: &mut Connection,
    path: &Path,
    log: LogState,
    journal: Option<&OwnJournal>,
) -> Result<(), Failure> {
    let missing = match journal {
        Some(journal) => replay::missing(writer, journal)?,
        None => Missing::default(),
    };
    if missing.is_empty() {
        connection::of_log(path, log)?;
    }
    make_durable(writer, path)?;
    migrations::migrate(writer)?;
    connection::require_sound(writer)?;
    match journal {
        Some(journal) => replay::bring_in(writer, journal, &missing),
        None => Ok(()),
    }
}

/// A sync that failed may have left in memory what is not on the disk: the log is written again before any of its pages
/// are moved into the file.
fn make_durable(writer: &mut Connection, path: &Path) -> Result<(), Failure> {
    let operation = "write the log again";
    let alone = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
    farshore_log_check::make_durable(path).map_err(file_error(operation, path))?;
    Ok(alone.rollback()?)
}

/// Runs blocking work on this thread, whose other tasks another one takes over, if there is more than one.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => task::block_in_place(work),
        _ => work(),
    }
}

/// Runs blocking work; its panic goes on in the caller.
pub(crate) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    task::spawn_blocking(work).await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(cancelled) => StoreError::database(operation, cancelled),
    })
}

impl Drop for OpenTenant {
    /// Whoever drops the last handle may be a task, which must not wait while the connections close.
    fn drop(&mut self) {
        let connections = self.take_connections();
        if connections.writer.is_some()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(connections));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic inside of a transaction rolled it back; the connection is as good as before.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

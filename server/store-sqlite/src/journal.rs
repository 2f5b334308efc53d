//! The journal that all tenants of a data directory share: small commits of many tenants become durable with one sync.
//!
//! A commit is written to the journal while its transaction in the tenant's own file is still open, so that nobody
//! sees it before it is durable; that transaction then ends without a sync, and is shared by several commits where they
//! come close upon each other ([`crate::journalled`]). The journal is an encrypted database of its
//! own, `journal.db`, and what is in it of a tenant is sealed under a key made of the tenant's, so that erasing that one
//! erases it here too.
//!
//! Invariants:
//! - A record leaves the journal only after the tenant's file holds it durably ([`crate::journalled`]).
//! - Records of one file have the numbers of its writes, and a write that has no record has a note that it was made,
//!   unless nothing of the file was in the journal: so a file that lacks a write is told ([`crate::replay`]).
//!
//! Whoever comes first leads: it waits a moment for the others that are about to come, writes what all of them bring in
//! one transaction, and hands the lead on.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use farshore_store::StoreError;
use farshore_store::sealing::MasterKey;
use farshore_store::sync_core::ids::TenantId;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use crate::config::SqliteConfig;
use crate::connection::{self, OnClose, Role};
use crate::data_key::DataKey;
use crate::failure::{Failure, file_error};
use crate::held::HeldTransactions;
use crate::tenant::OpenTenant;

pub(crate) const FILE_NAME: &str = "journal.db";
/// How long the leader waits for others that are about to come.
const GROUP_WINDOW: Duration = Duration::from_millis(4);
/// So many must be about to come that waiting for them is worth it.
const WORTH_WAITING_FOR: usize = 4;
/// Most records that become durable with one sync.
const MAX_RECORDS_PER_GROUP: usize = 1_024;
/// Most records that are removed along with a group.
const MAX_REMOVALS_PER_GROUP: usize = 2_048;
/// With a group go so many times its bytes, in records of before: to remove a long one, each of its pages is read. All
/// that a sweep lets go would hold the commits of every tenant up for half a second.
const REMOVED_BYTES_PER_BYTE: u64 = 2;
/// Bytes of records that go along with a small group, about. One record goes in any case.
const LEAST_REMOVED_BYTES: u64 = 16 << 10;
/// Longest commit that goes through the journal, in bytes that devices pushed. A longer one is written once, to the
/// tenant's own file: it gains little from sharing a sync.
pub(crate) const MAX_JOURNALLED_BYTES: usize = 64 << 10;
const OPERATION: &str = "write to the journal";
const TABLES: &str = "CREATE TABLE records (
    -- No number comes twice, so that removing a record again does no harm.
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    -- Which file of the tenant.
    file BLOB NOT NULL,
    -- The how manieth write to that file it is.
    write INTEGER NOT NULL,
    -- What was written, sealed; NULL where the file itself holds it durably.
    sealed BLOB
) STRICT;";

/// The name of a tenant's file, which a copy that takes its place does not have.
pub(crate) type FileName = [u8; 16];

/// What a tenant brings to the journal.
#[derive(Debug)]
pub(crate) struct Entry {
    pub tenant: TenantId,
    pub file: FileName,
    /// The how manieth write to the file this is.
    pub write: u64,
    /// What was written, sealed; `None` where the file holds it durably.
    pub sealed: Option<Vec<u8>>,
}

/// What the journal holds of a tenant that its file may not hold durably.
#[derive(Debug, Default)]
struct Unsettled {
    open: Weak<OpenTenant>,
    records: Vec<RecordPlace>,
}

/// Where a record is, and what it is of.
#[derive(Debug, Clone, Copy)]
struct RecordPlace {
    number: i64,
    file: FileName,
    write: u64,
    /// Its length.
    bytes: u64,
}

impl RecordPlace {
    const fn settled(&self) -> Settled {
        Settled { number: self.number, bytes: self.bytes }
    }
}

/// A record that is to be removed.
#[derive(Debug, Clone, Copy)]
struct Settled {
    number: i64,
    bytes: u64,
}

pub(crate) struct Journal {
    path: PathBuf,
    key: DataKey,
    config: Arc<SqliteConfig>,
    /// `None` while it has to be opened anew, because something failed.
    database: Mutex<Option<Connection>>,
    queue: Mutex<Queue>,
    arrived: Condvar,
    unsettled: Mutex<HashMap<TenantId, Unsettled>>,
    /// The highest number that a record ever had that is durable.
    last_number: AtomicI64,
    bytes_since_sweep: AtomicU64,
    is_sweeping: AtomicBool,
    /// The transactions of tenants that are open, for commits that are durable here.
    pub(crate) held: Arc<HeldTransactions>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// Records whose tenants' files hold them durably.
    settled: VecDeque<Settled>,
    is_led: bool,
    /// Commits that have begun and will come, unless they fail.
    announced: usize,
}

impl Entry {
    fn bytes(&self) -> u64 {
        self.sealed.as_ref().map_or(0, Vec::len) as u64
    }
}

impl Queue {
    /// The records that go along with a group of so many bytes.
    fn take_settled(&mut self, bytes: u64) -> Vec<Settled> {
        let most_bytes = LEAST_REMOVED_BYTES.max(REMOVED_BYTES_PER_BYTE * bytes);
        let mut taken = 0;
        let fits = |record: &&Settled| {
            let goes = taken < most_bytes;
            taken += record.bytes;
            goes
        };
        let records = self.settled.iter().take(MAX_REMOVALS_PER_GROUP).take_while(fits).count();
        self.settled.drain(..records).collect()
    }
}

struct Waiting {
    entry: Entry,
    turn: SyncSender<Turn>,
}

/// What happens to whoever waits.
enum Turn {
    Lead,
    Done(Result<(), StoreError>),
}

/// A commit that is about to come.
pub(crate) struct Announced<'a>(&'a Journal);

impl Journal {
    /// Opens the journal of a data directory, or makes it. Blocks.
    pub fn open(config: Arc<SqliteConfig>, master: &MasterKey) -> Result<Self, StoreError> {
        let operation = "open the journal";
        let path = config.data_dir.join(FILE_NAME);
        let key = DataKey::of_journal(master);
        let database = open_database(&path, &key, &config);
        let database = database.map_err(|failure| failure.during(operation))?;
        let unsettled = unsettled(&database).map_err(|failure| failure.during(operation))?;
        let numbers = unsettled.values().flat_map(|of| &of.records).map(|of| of.number);
        let last_number = AtomicI64::new(numbers.max().unwrap_or(0));
        Ok(Self {
            path,
            key,
            config,
            last_number,
            database: Mutex::new(Some(database)),
            queue: Mutex::default(),
            arrived: Condvar::new(),
            unsettled: Mutex::new(unsettled),
            bytes_since_sweep: AtomicU64::new(0),
            is_sweeping: AtomicBool::new(false),
            held: Arc::default(),
        })
    }

    /// Says that an entry is about to come.
    pub fn announce(&self) -> Announced<'_> {
        lock(&self.queue).announced += 1;
        Announced(self)
    }

    /// Writes an entry; it is durable on return. Blocks.
    pub fn append(&self, coming: Announced<'_>, entry: Entry) -> Result<(), StoreError> {
        // One place for the lead and one for the answer, so that nobody waits for whoever is told.
        let (turn, turns) = sync_channel(2);
        let mut queue = lock(&self.queue);
        queue.waiting.push(Waiting { entry, turn });
        let leads = !std::mem::replace(&mut queue.is_led, true);
        drop(queue);
        drop(coming);
        if leads {
            self.lead();
        }
        loop {
            match turns.recv() {
                Ok(Turn::Lead) => self.lead(),
                Ok(Turn::Done(done)) => return done,
                Err(_) => return Err(StoreError::database(OPERATION, "whoever wrote it panicked")),
            }
        }
    }

    /// Writes one group and hands the lead on.
    fn lead(&self) {
        let _handing_on = HandingOn(self);
        let queue = lock(&self.queue);
        let many = |queue: &mut Queue| {
            queue.announced >= WORTH_WAITING_FOR && queue.waiting.len() < MAX_RECORDS_PER_GROUP
        };
        let waited = self.arrived.wait_timeout_while(queue, GROUP_WINDOW, many);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let count = queue.waiting.len().min(MAX_RECORDS_PER_GROUP);
        let group: Vec<Waiting> = queue.waiting.drain(..count).collect();
        let bytes = group.iter().map(|waiting| waiting.entry.bytes()).sum();
        let removed = queue.take_settled(bytes);
        drop(queue);
        let write = |removed| {
            self.write(&group, removed).map_err(|failure: Failure| failure.during(OPERATION))
        };
        let mut written = write(&removed);
        if !removed.is_empty() && matches!(written, Err(StoreError::Damaged { .. })) {
            // The damage may lie in what nobody needs any more: that stays then until the next start, which tries again.
            written = write(&[]);
        } else if written.is_err() {
            lock(&self.queue).settled.extend(removed);
        }
        match written {
            Ok(numbers) => {
                self.count_in(&group, &numbers);
                group.iter().for_each(|waiting| waiting.tell(Ok(())));
            }
            Err(error) => {
                group.iter().for_each(|waiting| waiting.tell(Err(alike(&error))));
            }
        }
    }

    fn write(&self, group: &[Waiting], removed: &[Settled]) -> Result<Vec<i64>, Failure> {
        self.with_database(|database| {
            let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
            remove(&transaction, removed)?;
            let mut insert = transaction.prepare_cached(
                "INSERT INTO records (tenant, file, write, sealed) VALUES (?1, ?2, ?3, ?4)",
            )?;
            let mut numbers = Vec::with_capacity(group.len());
            for Waiting { entry, .. } in group {
                let Entry { tenant, file, write, sealed } = entry;
                let write = write.cast_signed();
                numbers.push(insert.insert(params![tenant.as_str(), file, write, sealed])?);
            }
            drop(insert);
            connection::require_sound(&transaction)?;
            transaction.commit()?;
            connection::on_close(database, OnClose::TidyLog)?;
            if let Some(last) = numbers.last() {
                self.last_number.store(*last, Ordering::Release);
            }
            Ok(numbers)
        })
    }

    /// A connection that read what is not authentic is of no use: the next one opens the database anew. After any other
    /// failure it goes on, and writes over what failed.
    fn with_database<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut database = lock(&self.database);
        let open = match database.take() {
            Some(open) => database.insert(open),
            None => {
                let mut open = open_database(&self.path, &self.key, &self.config)?;
                // What failed may have come to the disk after all, and nobody was told so.
                forget_after(&mut open, self.last_number.load(Ordering::Acquire))?;
                database.insert(open)
            }
        };
        let done = work(open);
        if done.is_err() && connection::require_sound(open).is_err() {
            connection::on_close(open, OnClose::LeaveFiles)?;
            *database = None;
        }
        done
    }

    fn count_in(&self, group: &[Waiting], numbers: &[i64]) {
        let mut unsettled = lock(&self.unsettled);
        let mut bytes = 0;
        for (Waiting { entry, .. }, number) in group.iter().zip(numbers) {
            let Entry { tenant, file, write, .. } = entry;
            let place =
                RecordPlace { number: *number, file: *file, write: *write, bytes: entry.bytes() };
            bytes += place.bytes;
            match unsettled.get_mut(tenant) {
                Some(of_tenant) => of_tenant.records.push(place),
                None => {
                    let of_tenant = Unsettled { open: Weak::new(), records: vec![place] };
                    unsettled.insert(tenant.clone(), of_tenant);
                }
            }
        }
        self.bytes_since_sweep.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether there is anything of a tenant that its file may not hold durably.
    pub fn has_unsettled(&self, tenant: &TenantId) -> bool {
        lock(&self.unsettled).contains_key(tenant)
    }

    /// What there is of a tenant's file from after a write, in the order in which it was written. What the file has
    /// already is not read, and so may be damaged.
    pub fn entries_after(
        &self,
        tenant: &TenantId,
        file: FileName,
        write: u64,
    ) -> Result<Vec<Entry>, Failure> {
        let records = lock(&self.unsettled).get(tenant).map(|of| of.records.clone());
        let is_wanted = |of: &RecordPlace| of.file == file && of.write > write;
        let records = records.unwrap_or_default().into_iter().filter(is_wanted);
        self.with_database(|database| {
            let mut query =
                database.prepare_cached("SELECT sealed FROM records WHERE number = ?1")?;
            let read = |RecordPlace { number, file, write, .. }| {
                // One that has gone meanwhile is in the file.
                let sealed = query.query_row([number], |row| row.get(0)).optional().transpose()?;
                Some(sealed.map(|sealed| Entry { tenant: tenant.clone(), file, write, sealed }))
            };
            let entries = records.filter_map(read).collect::<rusqlite::Result<Vec<_>>>()?;
            drop(query);
            connection::require_sound(database)?;
            Ok(entries)
        })
    }

    /// A file holds everything up to a write durably. The records of it go with the next groups.
    pub fn settled(&self, tenant: &TenantId, file: FileName, through: u64) {
        self.release(tenant, |record| record.file == file && record.write <= through);
    }

    /// Forgets what there is of files that a tenant no longer has, or of all of them.
    pub fn forget(&self, tenant: &TenantId, except: Option<FileName>) {
        self.release(tenant, |record| Some(record.file) != except);
    }

    fn release(&self, tenant: &TenantId, goes: impl Fn(&RecordPlace) -> bool) {
        let mut unsettled = lock(&self.unsettled);
        let Some(of_tenant) = unsettled.get_mut(tenant) else { return };
        let (gone, kept) = of_tenant.records.iter().partition::<Vec<_>, _>(|of| goes(of));
        of_tenant.records = kept;
        if of_tenant.records.is_empty() {
            unsettled.remove(tenant);
        }
        drop(unsettled);
        lock(&self.queue).settled.extend(gone.iter().map(RecordPlace::settled));
    }

    /// Says which tenant is to be asked to hold what the journal has of it.
    pub fn watch(&self, tenant: &TenantId, open: &Arc<OpenTenant>) {
        let mut unsettled = lock(&self.unsettled);
        if let Some(of_tenant) = unsettled.get_mut(tenant)
            && of_tenant.open.strong_count() == 0
        {
            of_tenant.open = Arc::downgrade(open);
        }
    }

    /// The tenants of which there is something.
    pub fn tenants(&self) -> Vec<TenantId> {
        lock(&self.unsettled).keys().cloned().collect()
    }
}

/// Lets every open tenant bring what the journal has of it into its file, so that the journal can forget it. There is one
/// at a time; once it is dropped, whether it ran or not, there may be another.
pub(crate) struct Sweep(Arc<Journal>);

impl Sweep {
    /// The sweep that is due, if one is: whoever gets it has to run it.
    pub fn of(journal: &Arc<Journal>) -> Option<Self> {
        let is_due = journal.bytes_since_sweep.load(Ordering::Relaxed)
            >= journal.config.journal_bytes
            && !journal.is_sweeping.swap(true, Ordering::AcqRel);
        is_due.then(|| Self(Arc::clone(journal)))
    }

    /// A tenant that cannot settle now is asked again by the next sweep. Blocks.
    pub fn run(self) {
        self.0.bytes_since_sweep.store(0, Ordering::Relaxed);
        let open: Vec<_> = lock(&self.0.unsettled).values().map(|of| of.open.clone()).collect();
        for tenant in open.iter().filter_map(Weak::upgrade) {
            tenant.settle();
        }
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.0.is_sweeping.store(false, Ordering::Release);
    }
}

impl Waiting {
    fn tell(&self, done: Result<(), StoreError>) {
        // Whoever panicked meanwhile needs no answer.
        let _ = self.turn.try_send(Turn::Done(done));
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        lock(&self.0.queue).announced -= 1;
        self.0.arrived.notify_one();
    }
}

/// Hands the lead on to whoever waits longest, whatever became of the group.
struct HandingOn<'a>(&'a Journal);

impl Drop for HandingOn<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        match queue.waiting.first() {
            // There is room: nobody leads twice while its entry waits.
            Some(next) => drop(next.turn.try_send(Turn::Lead)),
            None => queue.is_led = false,
        }
    }
}

impl Drop for Journal {
    /// Forgets what was settled. What that leaves is forgotten after the next start.
    fn drop(&mut self) {
        let mut settled = std::mem::take(&mut lock(&self.queue).settled);
        if settled.is_empty() {
            return;
        }
        let _ = self.with_database(|database| {
            let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
            remove(&transaction, settled.make_contiguous())?;
            connection::require_sound(&transaction)?;
            transaction.commit()?;
            connection::on_close(database, OnClose::TidyLog)
        });
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("path", &self.path).finish_non_exhaustive()
    }
}

fn open_database(path: &Path, key: &DataKey, config: &SqliteConfig) -> Result<Connection, Failure> {
    connection::require_whole_log(path)?;
    let mut database = connection::open(path, key, Role::Creator, config)?;
    make_ready(&mut database, path)?;
    Ok(database)
}

fn make_ready(database: &mut Connection, path: &Path) -> Result<(), Failure> {
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // A sync that failed in an earlier life may have left in memory what is not on the disk.
    let rewritten = farshore_log_check::make_durable(path);
    rewritten.map_err(file_error("write the journal's log again", path))?;
    let tables = transaction.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0));
    let tables: i64 = tables?;
    connection::require_sound(&transaction)?;
    // Where nothing is written, the files stay as they are.
    if tables == 0 {
        transaction.execute_batch(TABLES)?;
    }
    Ok(transaction.commit()?)
}

fn unsettled(database: &Connection) -> Result<HashMap<TenantId, Unsettled>, Failure> {
    let mut query = database.prepare(
        "SELECT number, tenant, file, write, ifnull(length(sealed), 0) FROM records ORDER BY number",
    )?;
    let mut rows = query.query([])?;
    let mut unsettled = HashMap::<TenantId, Unsettled>::new();
    while let Some(row) = rows.next()? {
        let tenant: String = row.get(1)?;
        let tenant = tenant.parse().map_err(|error| Failure::Damaged(format!("{error}")))?;
        let write = row.get::<_, i64>(3)?.cast_unsigned();
        let bytes = row.get::<_, i64>(4)?.cast_unsigned();
        let place = RecordPlace { number: row.get(0)?, file: row.get(2)?, write, bytes };
        unsettled.entry(tenant).or_default().records.push(place);
    }
    connection::require_sound(database)?;
    Ok(unsettled)
}

fn forget_after(database: &mut Connection, number: i64) -> Result<(), Failure> {
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("DELETE FROM records WHERE number > ?1", [number])?;
    connection::require_sound(&transaction)?;
    Ok(transaction.commit()?)
}

fn remove(database: &Connection, records: &[Settled]) -> rusqlite::Result<()> {
    let mut delete = database.prepare_cached("DELETE FROM records WHERE number = ?1")?;
    records.iter().try_for_each(|record| delete.execute([record.number]).map(drop))
}

/// The same error, for everybody in a group.
fn alike(error: &StoreError) -> StoreError {
    match error {
        StoreError::DiskFull { operation } => StoreError::DiskFull { operation },
        StoreError::Damaged { operation, detail } => {
            StoreError::Damaged { operation, detail: detail.clone() }
        }
        StoreError::Database { operation, source } => {
            StoreError::database(operation, source.to_string())
        }
        other => StoreError::database(OPERATION, other.to_string()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many records go along with groups of so many bytes, one after the other, until none is left.
    fn removals(records: &[u64], group_bytes: u64) -> Vec<usize> {
        let settled = (1..).zip(records).map(|(number, bytes)| Settled { number, bytes: *bytes });
        let mut queue = Queue { settled: settled.collect(), ..Queue::default() };
        let next = || Some(queue.take_settled(group_bytes).len()).filter(|taken| *taken > 0);
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn what_a_sweep_lets_go_goes_with_many_groups() {
        let long = [LEAST_REMOVED_BYTES; 5];
        assert_eq!(removals(&long, 0), [1; 5]);
        assert_eq!(removals(&long, LEAST_REMOVED_BYTES), [2, 2, 1]);
        assert_eq!(removals(&[10 * LEAST_REMOVED_BYTES, 1, 1], 0), [1, 2]);
        let notes = vec![0; MAX_REMOVALS_PER_GROUP + 1];
        assert_eq!(removals(&notes, 0), [MAX_REMOVALS_PER_GROUP, 1]);
    }
}

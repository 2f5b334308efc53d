//! The server's SQLite store of one tenant, with devices that push to it and an operator who manages it. Each commit
//! syncs the tenant's own file; [`crate::node`] is about those that share a journal.

use std::path::Path;
use std::sync::Arc;

use farshore_store::catalog::{Catalog as _, CatalogError};
use farshore_store::devices::DeviceRecord;
use farshore_store::pushed::PushedTransaction;
use farshore_store::schemas::ApplySchemaError;
use farshore_store::scope::{ScopeAuthority, TenantScope};
use farshore_store::sealing::MasterKey;
use farshore_store::sync::{Batch, DevicePush, PageRequest, PushResult, ScopeRead};
use farshore_store::{SharedTenantStore, StoreError};
use farshore_store_sqlite::{JournalMode, SqliteCatalog, SqliteConfig};
use farshore_sync_core::hlc::Hlc;
use farshore_sync_core::ids::{DeviceId, UserId};
use farshore_sync_core::mutation::{Cells, Mutation, Op, Transaction};
use farshore_sync_core::value::Value;
use test_chance::Chance;
use tokio::runtime::{Builder, Runtime};

use crate::shape::{self, LIKES, NOTES, NOW_MS, SITE, SITES, TAGS, TITLE, VISITS};
use crate::subject::{Observation, Problem, Subject};

/// Devices that push.
const DEVICES: u8 = 3;
/// The device that pushes after a crash.
const NEWCOMER: u8 = 9;
/// Rows of each collection.
const ROWS: u64 = 30;
/// Pages after which the log is moved into the file, so that a workload sees it often.
const CHECKPOINT_AFTER_PAGES: u32 = 48;
/// Bytes of records after which the journal is brought into the tenants' files: after some dozens of commits.
const JOURNAL_BYTES: u64 = 24 << 10;
/// The name of the one tenant.
const NAME: &str = "demo";
/// Most devices of a tenant that are listed.
const LISTED: u32 = 100;

/// A tenant.
pub struct Tenant {
    seed: u64,
    devices: Vec<Pushing>,
    /// The tenant's epoch, where it is known.
    epoch: Option<u64>,
    schema_version: u32,
    /// What was pushed, with the step, and how it was answered.
    pushed: Vec<(u64, Vec<DevicePush>, Vec<PushResult>)>,
    /// Which devices pushed in which step, whether or not it was answered.
    tried: Vec<(u64, Vec<DeviceId>)>,
}

/// A device that pushes its transactions until they are answered.
struct Pushing {
    number: u8,
    next: u64,
    waiting: Vec<Vec<u8>>,
}

/// An open tenant, and the threads on which it works.
pub struct OpenTenant {
    store: SharedTenantStore,
    catalog: SqliteCatalog,
    runtime: Arc<Runtime>,
}

impl Subject for Tenant {
    const NAME: &'static str = "tenant";
    type Store = OpenTenant;

    fn create(folder: &Path, seed: u64) -> Result<Self, Problem> {
        let runtime = runtime()?;
        let (catalog, authority) = catalog(folder, JournalMode::Off)?;
        Self::create_in(&catalog, &scope(&authority, NAME), &runtime, seed)
    }

    fn open(&self, folder: &Path) -> Result<OpenTenant, Problem> {
        let (catalog, authority) = catalog(folder, JournalMode::Off)?;
        OpenTenant::open(catalog, &scope(&authority, NAME), Arc::new(runtime()?))
    }

    fn close(&self, store: OpenTenant) -> Result<(), Problem> {
        let OpenTenant { store, catalog, runtime } = store;
        drop((store, catalog));
        // Waits until the connections are closed.
        drop(runtime);
        Ok(())
    }

    fn tidy(&self, _: &OpenTenant) -> Result<(), Problem> {
        Ok(())
    }

    fn step(&mut self, open: &OpenTenant, step: u64) -> Result<(), Problem> {
        let mut chance = Chance::apart(self.seed, step);
        let OpenTenant { store, runtime, .. } = open;
        match chance.below(24) {
            0 => {
                let number = 1 + u8::try_from(chance.below(6)).unwrap_or_default();
                runtime.block_on(store.put_device(&record(number, step))).map_err(of_store)
            }
            1 => {
                let purged = runtime.block_on(store.purge(NOW_MS + step.saturating_sub(20)));
                purged.map(drop).map_err(of_store)
            }
            2 => {
                self.epoch = None;
                runtime.block_on(store.begin_epoch(chance.next())).map(drop).map_err(of_store)
            }
            3 => {
                let schema = shape::schema(self.schema_version + 1);
                runtime.block_on(store.apply_schema(&schema, NOW_MS + step)).map_err(of_schema)?;
                self.schema_version += 1;
                Ok(())
            }
            _ => self.push(open, step, &mut chance),
        }
    }

    fn observe(&self, open: &OpenTenant) -> Result<Observation, Problem> {
        let OpenTenant { store, runtime, .. } = open;
        runtime.block_on(async {
            let head = store.head().await.map_err(of_store)?;
            let mut lines = vec![format!("{head:?}")];
            let granted = shape::grants().into_iter().map(|grant| grant.scope);
            let scopes: Vec<_> = granted.collect();
            let reads = scopes.iter().map(|scope| ScopeRead::from_checkpoint(scope.clone(), 0));
            let request = PageRequest {
                scopes: reads.collect(),
                target_bytes: usize::MAX,
                max_rows: usize::MAX,
            };
            let page = store.page(request).await.map_err(of_store)?;
            lines.extend(page.rows.iter().map(|row| format!("{row:x?}")));
            lines.push(format!("{:x?}", page.totals));
            for number in (1..=DEVICES).chain([NEWCOMER]) {
                let progress = store.device_progress(shape::device(number)).await;
                lines.push(format!("{number}: {:?}", progress.map_err(of_store)?));
            }
            lines.push(format!("{:?}", store.devices(None, LISTED).await.map_err(of_store)?));
            let schema = store.schema().await.map_err(of_store)?;
            lines.push(format!("schema {:?}", schema.map(|schema| schema.version)));
            match &store.scrub().await.map_err(of_store)?[..] {
                [] => Ok(Observation(lines)),
                differing => Err(Problem::Unsound(format!("sums are not of rows: {differing:?}"))),
            }
        })
    }

    fn goes_on(&self, open: &OpenTenant, found: u64, begun: u64) -> Result<(), Problem> {
        let OpenTenant { store, runtime, .. } = open;
        let head = runtime.block_on(store.head()).map_err(of_store)?;
        if let Some((step, pushes, answers)) =
            self.pushed.iter().rev().find(|(step, ..)| *step <= found)
        {
            // A device that went on after this answer has told so, and does not ask for it again.
            let later = |(at, _): &&(u64, _)| step < at && *at <= begun;
            let went_on = |push: &DevicePush| {
                self.tried.iter().filter(later).any(|(_, devices)| devices.contains(&push.device))
            };
            let resent = pushes.iter().zip(answers).filter(|(push, _)| !went_on(push));
            let (pushes, answers): (Vec<_>, Vec<_>) = resent
                .map(|(push, answer)| (DevicePush { epoch: head.epoch, ..push.clone() }, answer))
                .unzip();
            let batch = Batch { now_ms: NOW_MS + found, pushes };
            let again = runtime.block_on(store.commit(batch)).map_err(of_store)?;
            if again.seq != head.seq || again.results.iter().ne(answers) {
                let told = format!("a resend was not recognised: {:?}", again.results);
                return Err(Problem::Unsound(told));
            }
        }
        let mut newcomer = Pushing { number: NEWCOMER, next: 1, waiting: Vec::new() };
        newcomer.insert(head.seq);
        let batch = Batch { now_ms: NOW_MS + found, pushes: vec![newcomer.push(head.epoch)?] };
        let fresh = runtime.block_on(store.commit(batch)).map_err(of_store)?;
        if fresh.seq_before == head.seq && fresh.seq > head.seq {
            Ok(())
        } else {
            Err(Problem::Unsound(format!("new work went from {} to {}", head.seq, fresh.seq)))
        }
    }
}

impl OpenTenant {
    /// Opens a tenant of a catalog.
    ///
    /// # Errors
    /// [`Problem`].
    pub fn open(
        catalog: SqliteCatalog,
        scope: &TenantScope,
        runtime: Arc<Runtime>,
    ) -> Result<Self, Problem> {
        let store = runtime.block_on(catalog.open(scope)).map_err(of_catalog)?;
        Ok(Self { store, catalog, runtime })
    }
}

impl Tenant {
    /// Makes a tenant in a catalog.
    ///
    /// # Errors
    /// [`Problem`].
    pub fn create_in(
        catalog: &SqliteCatalog,
        scope: &TenantScope,
        runtime: &Runtime,
        seed: u64,
    ) -> Result<Self, Problem> {
        let store = runtime.block_on(catalog.create(scope, NOW_MS)).map_err(of_catalog)?;
        runtime.block_on(store.apply_schema(&shape::schema(1), NOW_MS)).map_err(of_schema)?;
        let devices = 1..=DEVICES;
        let devices = devices.map(|number| Pushing { number, next: 1, waiting: Vec::new() });
        Ok(Self {
            seed,
            devices: devices.collect(),
            epoch: None,
            schema_version: 1,
            pushed: Vec::new(),
            tried: Vec::new(),
        })
    }

    /// A group commit of some devices; what was not answered before goes along again.
    fn push(&mut self, open: &OpenTenant, step: u64, chance: &mut Chance) -> Result<(), Problem> {
        let first = usize::try_from(chance.below(u64::from(DEVICES))).unwrap_or_default();
        let several = if chance.once_in(3) { 2 } else { 1 };
        let mut at: Vec<usize> =
            (first..first + several).map(|at| at % self.devices.len()).collect();
        at.sort_unstable();
        let epoch = match self.epoch {
            Some(epoch) => epoch,
            None => open.runtime.block_on(open.store.head()).map_err(of_store)?.epoch,
        };
        self.epoch = Some(epoch);
        let mut pushes = Vec::new();
        for at in &at {
            let device = &mut self.devices[*at];
            if device.waiting.is_empty() {
                device.write(step, chance);
            }
            pushes.push(device.push(epoch)?);
        }
        self.tried.push((step, pushes.iter().map(|push| push.device).collect()));
        let batch = Batch { now_ms: NOW_MS + step, pushes: pushes.clone() };
        let committed = open.runtime.block_on(open.store.commit(batch)).map_err(of_store)?;
        for at in at {
            self.devices[at].waiting.clear();
        }
        self.pushed.push((step, pushes, committed.results));
        Ok(())
    }
}

impl Pushing {
    /// One transaction more.
    fn write(&mut self, step: u64, chance: &mut Chance) {
        let number = self.next;
        self.next += 1;
        let mutations = (0..=chance.below(4)).map(|_| mutation(step, chance)).collect();
        let stamp = Hlc::from_wall_ms(NOW_MS - 1_000_000 + number);
        self.waiting.push(Transaction { number, stamp, mutations }.encode());
    }

    /// One transaction with a row that nobody else writes.
    fn insert(&mut self, number: u64) {
        let cells = Cells::new(vec![(TITLE, Value::from("new"))]);
        let row = shape::row(self.number, number);
        let mutation = Mutation { collection: NOTES, row, op: Op::Insert { cells } };
        let stamp = Hlc::from_wall_ms(NOW_MS - 1_000_000);
        let insert = Transaction { number: self.next, stamp, mutations: vec![mutation] };
        self.next += 1;
        self.waiting.push(insert.encode());
    }

    fn push(&self, epoch: u64) -> Result<DevicePush, Problem> {
        let read = self.waiting.iter().map(|bytes| PushedTransaction::read(bytes));
        let transactions = read.collect::<Option<Vec<_>>>();
        let transactions =
            transactions.ok_or_else(|| Problem::Other("a transaction without number".into()))?;
        // What came before is recorded; the newest answer is kept for a resend.
        let settled = transactions.first().map_or(0, |first| first.number() - 1);
        let device = shape::device(self.number);
        Ok(DevicePush { device, epoch, grants: shape::grants(), settled, transactions })
    }
}

fn mutation(step: u64, chance: &mut Chance) -> Mutation {
    let row = shape::row(7, chance.below(ROWS));
    if chance.once_in(3) {
        let site = SITES[usize::try_from(chance.below(2)).unwrap_or_default()];
        let cells = Cells::new(vec![(SITE, Value::from(site))]);
        return Mutation { collection: VISITS, row, op: Op::Insert { cells } };
    }
    let title = Value::from(format!("step {step}").as_str());
    let op = match chance.below(8) {
        0 => Op::Increment { column: LIKES, delta: 3 },
        1 => Op::SetAdd { column: TAGS, element: title },
        2 => Op::Delete,
        3 => Op::Restore,
        _ => Op::Insert { cells: Cells::new(vec![(TITLE, title)]) },
    };
    Mutation { collection: NOTES, row, op }
}

fn record(number: u8, step: u64) -> DeviceRecord {
    DeviceRecord {
        id: shape::device(number),
        user: UserId::from_bytes([number; 16]),
        name: format!("device {number} of step {step}"),
        grants: shape::grants(),
        suspended: step.is_multiple_of(2),
        created_at_ms: NOW_MS,
    }
}

/// A thread for the stores of one opening.
///
/// # Errors
/// [`Problem::Other`] where the system has none.
pub fn runtime() -> Result<Runtime, Problem> {
    Builder::new_current_thread().build().map_err(|error| Problem::Other(error.to_string()))
}

/// The tenants of a folder, whose logs and journal are moved often.
///
/// # Errors
/// [`Problem`].
pub fn catalog(
    folder: &Path,
    journal: JournalMode,
) -> Result<(SqliteCatalog, ScopeAuthority), Problem> {
    let mut config = SqliteConfig::new(folder);
    config.checkpoint_after_pages = CHECKPOINT_AFTER_PAGES;
    config.journal = journal;
    config.journal_bytes = JOURNAL_BYTES;
    let master = MasterKey::from_slice(&[1; 32]).expect("a key has 32 bytes");
    SqliteCatalog::open(config, master).map_err(of_catalog)
}

/// A tenant by its name.
#[must_use]
pub fn scope(authority: &ScopeAuthority, name: &str) -> TenantScope {
    authority.scope(name.parse().expect("a plain name"))
}

fn of_catalog(error: CatalogError) -> Problem {
    match error {
        CatalogError::Store(error) => of_store(error),
        other => Problem::Other(other.to_string()),
    }
}

fn of_schema(error: ApplySchemaError) -> Problem {
    match error {
        ApplySchemaError::Store(error) => of_store(error),
        misfit @ ApplySchemaError::Refused(_) => Problem::Other(misfit.to_string()),
    }
}

fn of_store(error: StoreError) -> Problem {
    let text = error.to_string();
    match error {
        StoreError::Damaged { .. } => Problem::Damaged(text),
        StoreError::DiskFull { .. } => Problem::Full(text),
        StoreError::Database { .. } if text.contains("I/O") => Problem::Device(text),
        _ => Problem::Other(text),
    }
}

//! The server that the device of a workload syncs with: the server's own plan and pages, on the store in memory.

use std::sync::Arc;

use farshore_store::SharedTenantStore;
use farshore_store::catalog::Catalog as _;
use farshore_store::memory::MemoryCatalog;
use farshore_store::pushed::PushedTransaction;
use farshore_store::scope::{ScopeAuthority, TenantScope};
use farshore_store::sync::{Batch, DevicePush, PageRequest, PushResult, RowChange, ScopeRead};
use farshore_sync_core::digest;
use farshore_sync_core::hlc::Hlc;
use farshore_sync_core::ids::DeviceId;
use farshore_sync_core::mutation::{Cells, Mutation, Op, Transaction};
use farshore_sync_core::replica::Standing;
use farshore_sync_core::value::Value;
use farshore_sync_core::wire::{
    Checkpoint, ChunkEntry, Page, PositionUpdate, PushOutcome, Refill, RowEntry, RowPayload,
    Welcome, scopes_hash,
};
use tokio::runtime::{Builder, Runtime};

use crate::shape::{self, NOTES, NOW_MS, SITE, TITLE, VISITS};
use crate::subject::Problem;

/// Rows of a page, so that a catch-up takes several and is staged.
const PAGE_ROWS: usize = 6;
/// The device that is another one.
const OTHER: u8 = 200;

/// A server in memory.
pub struct Hub {
    runtime: Runtime,
    catalog: MemoryCatalog,
    store: SharedTenantStore,
    /// Transactions of the other device so far.
    foreign: u64,
}

fn problem(error: impl ToString) -> Problem {
    Problem::Other(format!("the hub: {}", error.to_string()))
}

fn tenant() -> TenantScope {
    ScopeAuthority::for_new_catalog().scope("demo".parse().expect("a plain name"))
}

impl Hub {
    /// A server with the schema and no rows.
    ///
    /// # Errors
    /// [`Problem::Other`] where there is no runtime.
    pub fn new(seed: u64) -> Result<Self, Problem> {
        let (catalog, _) = MemoryCatalog::open(seed);
        let runtime = Builder::new_current_thread().build().map_err(problem)?;
        let store = runtime.block_on(catalog.create(&tenant(), NOW_MS)).map_err(problem)?;
        runtime.block_on(store.apply_schema(&shape::schema(1), NOW_MS)).map_err(problem)?;
        Ok(Self { runtime, catalog, store, foreign: 0 })
    }

    /// What a backup holds now.
    #[must_use]
    pub fn backup(&self) -> MemoryCatalog {
        self.catalog.backup()
    }

    /// A server that goes on from a backup, in its epoch.
    ///
    /// # Errors
    /// [`Problem::Other`] where there is no runtime.
    pub fn of(backup: &MemoryCatalog) -> Result<Self, Problem> {
        let catalog = backup.backup();
        let runtime = Builder::new_current_thread().build().map_err(problem)?;
        let store = runtime.block_on(catalog.open(&tenant())).map_err(problem)?;
        Ok(Self { runtime, catalog, store, foreign: 0 })
    }

    /// The answer to a greeting.
    ///
    /// # Errors
    /// [`Problem::Other`], which a store in memory never has.
    pub fn welcome(&self, device: DeviceId, standing: &Standing) -> Result<Welcome, Problem> {
        let head = self.runtime.block_on(self.store.head()).map_err(problem)?;
        let progress = self.runtime.block_on(self.store.device_progress(device));
        let key = self.runtime.block_on(self.store.digest_key()).map_err(problem)?;
        let granted = shape::grants();
        Ok(Welcome {
            server_time_ms: NOW_MS,
            epoch: head.epoch,
            head: head.seq,
            high_water: progress.map_err(problem)?.high_water,
            schema_version: 1,
            grants: (scopes_hash(&granted) != standing.scopes_hash).then_some(granted),
            digest_key: (standing.epoch == 0).then_some(key.0.into()),
            refill: Refill::No,
        })
    }

    /// Commits transactions of a device.
    ///
    /// # Errors
    /// [`Problem::Unsound`] where a number comes with other content than before.
    pub fn push(
        &self,
        device: DeviceId,
        settled: u64,
        transactions: &[(u64, Vec<u8>)],
    ) -> Result<Vec<PushOutcome>, Problem> {
        let read = transactions.iter().map(|(_, bytes)| PushedTransaction::read(bytes));
        let transactions = read.collect::<Option<Vec<_>>>();
        let transactions = transactions.ok_or_else(|| problem("a transaction without number"))?;
        let epoch = self.runtime.block_on(self.store.head()).map_err(problem)?.epoch;
        let push = DevicePush { device, epoch, grants: shape::grants(), settled, transactions };
        let batch = Batch { now_ms: NOW_MS, pushes: vec![push] };
        let committed = self.runtime.block_on(self.store.commit(batch)).map_err(problem)?;
        match committed.results.into_iter().next() {
            Some(PushResult::Answered(outcomes)) => Ok(outcomes),
            Some(PushResult::Forked { number, .. }) => {
                Err(Problem::Unsound(format!("the device gave number {number} out twice")))
            }
            None => Err(problem("no answer to a push")),
        }
    }

    /// Another device writes some rows in one transaction.
    ///
    /// # Errors
    /// As [`Hub::push`].
    pub fn foreign(&mut self, rows: u64) -> Result<(), Problem> {
        self.foreign += 1;
        let number = self.foreign;
        let mutations = (0..rows).map(|at| {
            let title = Value::from(format!("foreign {number}").as_str());
            let (collection, cells) = if at % 3 == 2 {
                (VISITS, vec![(SITE, Value::from(shape::SITES[(number % 3) as usize]))])
            } else {
                (NOTES, vec![(TITLE, title)])
            };
            let row = shape::row(OTHER, (number + at) % 24);
            Mutation { collection, row, op: Op::Insert { cells: Cells::new(cells) } }
        });
        let stamp = Hlc::from_wall_ms(NOW_MS - 1_000_000 + number);
        let transaction = Transaction { number, stamp, mutations: mutations.collect() };
        self.push(shape::device(OTHER), number - 1, &[(number, transaction.encode())]).map(drop)
    }

    /// The next page for a device.
    ///
    /// # Errors
    /// [`Problem::Other`], which a store in memory never has.
    pub fn page(&self, standing: &Standing) -> Result<Page, Problem> {
        let granted = shape::grants();
        let scopes = granted.iter().map(|grant| {
            let known = standing.positions.iter().find(|position| position.scope == grant.scope);
            ScopeRead {
                scope: grant.scope.clone(),
                after: known.map_or(standing.cursor, |position| position.seq),
                changes_after: standing.cursor,
            }
        });
        let scopes: Vec<_> = scopes.collect();
        let request =
            PageRequest { scopes: scopes.clone(), target_bytes: usize::MAX, max_rows: PAGE_ROWS };
        let read = self.runtime.block_on(self.store.page(request)).map_err(problem)?;
        let mut page = Page::default();
        for changed in read.rows {
            let index = granted.iter().position(|grant| grant.scope == changed.scope);
            let scope =
                index.and_then(|at| u16::try_from(at).ok()).ok_or_else(|| problem("no scope"))?;
            let (collection, row) = (changed.collection, changed.row);
            let payload = match changed.change {
                RowChange::State(state) => RowPayload::State(state.into()),
                RowChange::Deleted(stamp) => RowPayload::Deleted(stamp),
                RowChange::Departed => RowPayload::Departed,
            };
            page.rows.push(RowEntry { scope, collection, row, payload });
            page.chunks.extend(changed.chunks.into_iter().map(|chunk| ChunkEntry {
                collection,
                row,
                column: chunk.column,
                change: chunk.bytes.into(),
            }));
        }
        let moved = scopes.iter().zip(&read.positions).enumerate();
        let moved = moved.filter(|(_, (scope, seq))| scope.after != **seq);
        page.positions = moved
            .map(|(at, (_, seq))| PositionUpdate {
                scope: u16::try_from(at).unwrap_or_default(),
                seq: *seq,
            })
            .collect();
        page.checkpoint = read.complete.then(|| {
            let totals = read.totals.iter();
            let root = digest::root(totals.map(|((scope, of), sum)| (scope, *of, *sum)));
            Checkpoint { seq: read.head.seq, root }
        });
        Ok(page)
    }
}

/// Versions of the hub, each with the step before which it was made.
#[derive(Default)]
pub struct Versions(Vec<(u64, Arc<MemoryCatalog>)>);

impl Versions {
    /// Keeps what the hub is now, at a step.
    pub fn keep(&mut self, step: u64, hub: &Hub) {
        self.0.push((step, Arc::new(hub.backup())));
    }

    /// What it was while a step was under way.
    #[must_use]
    pub fn at(&self, step: u64) -> Option<&MemoryCatalog> {
        let known = self.0.iter().rev().find(|(made, _)| *made <= step);
        known.map(|(_, version)| &**version)
    }
}

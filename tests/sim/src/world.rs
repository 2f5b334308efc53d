//! Carrying out a plan.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use farshore_store::devices::DeviceRecord;
use farshore_sync_core::wire::{Grant, Rights, sorted_grants};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::time::Instant;
use tracing::subscriber::DefaultGuard;

use crate::causal::Causal;
use crate::device::{Device, Parts};
use crate::disk::Disk;
use crate::history::{History, RowKey};
use crate::network::{Network, Sent};
use crate::oracles::{self, Violation, Watch};
use crate::plan::Plan;
use crate::platform::{Platform, TENANTS, tenant_id};
use crate::sinks::LOGGED_ONE_IN;
use crate::time::{START_MS, Timeline, WallClock};

mod acts;
mod judge;
mod settle;

/// How soon devices are looked at once something has arrived, in milliseconds.
const LOOK_EVERY_MS: u64 = 50;
/// Where files of runs are kept if it is there: memory, so that a run does not wait for a disk.
const MEMORY_DIRECTORY: &str = "/dev/shm";

/// What became of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What must never be, and was.
    pub violations: Vec<Violation>,
    /// A hash over every message and what every device shows in the end.
    pub trace: [u8; 32],
    /// What the run covered.
    pub covered: Covered,
    /// What was read and written, and what is wrong with it, where causal consistency was judged.
    pub causal: Option<Causal>,
}

/// What a run covered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Covered {
    /// Transactions that stores took.
    pub transactions: u64,
    /// Messages between devices and server.
    pub messages: u64,
    /// Frames to devices that were searched for words of other tenants.
    pub scanned_frames: u64,
    /// Their bytes.
    pub scanned_bytes: u64,
    /// Log lines that were searched.
    pub log_lines: u64,
    /// Group commits.
    pub commits: u64,
    /// Virtual time, in milliseconds.
    pub virtual_ms: u64,
    /// How long the queues took to drain in the end, in virtual milliseconds.
    pub drained_ms: u64,
}

impl Covered {
    /// Adds what another run covered; of times to drain the longest counts.
    pub fn add(&mut self, other: &Self) {
        self.transactions += other.transactions;
        self.messages += other.messages;
        self.scanned_frames += other.scanned_frames;
        self.scanned_bytes += other.scanned_bytes;
        self.log_lines += other.log_lines;
        self.commits += other.commits;
        self.virtual_ms += other.virtual_ms;
        self.drained_ms = self.drained_ms.max(other.drained_ms);
    }
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A panic in a task of the server would only end that task: every one is written down.
fn watch_panics() {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
        }));
    });
    PANICS.take();
}

/// Carries a plan out.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    watch_panics();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime of one thread without I/O needs nothing");
        let mut parent = Path::new(MEMORY_DIRECTORY).to_owned();
        if !parent.is_dir() {
            parent = std::env::temp_dir();
        }
        let directory = TempDir::with_prefix_in("farshore-sim-", parent);
        let directory = directory.expect("there is a directory for temporary files");
        runtime.block_on(async { World::new(plan, directory.path()).await.run().await })
    }));
    let panics = PANICS.take();
    match ran {
        Ok(mut outcome) => {
            outcome.violations.extend(panics.into_iter().map(Violation::Failed));
            outcome
        }
        Err(payload) => Outcome {
            violations: vec![Violation::Failed(
                panics.into_iter().next().unwrap_or_else(|| text_of(&*payload)),
            )],
            trace: [0; 32],
            covered: Covered::default(),
            causal: None,
        },
    }
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    payload.downcast_ref::<&str>().map_or_else(|| "a panic".to_owned(), ToString::to_string)
}

struct World<'a> {
    plan: &'a Plan,
    timeline: Timeline,
    network: Network,
    platform: Platform,
    devices: Vec<Device>,
    watches: Vec<Watch>,
    histories: Vec<History>,
    deleted: Vec<Vec<RowKey>>,
    versions: Vec<u32>,
    numbers: u64,
    /// How many messages each device had taken when it was looked at; `None` where it did something since.
    looked: Vec<Option<u64>>,
    epochs: u64,
    was_off_at_a_restore: Vec<bool>,
    /// How often each device had connected at the last restore, until it has heard of that.
    unaware_of_restore: Vec<Option<u64>>,
    violations: Vec<Violation>,
    drained_ms: u64,
    causal: Option<Causal>,
    _logging: Option<DefaultGuard>,
}

impl<'a> World<'a> {
    async fn new(plan: &'a Plan, directory: &Path) -> Self {
        let timeline = Timeline::begin();
        let network = Network::new(timeline, plan.seed, plan.latency_ms);
        let disk = Disk::new(timeline, plan.seed, plan.disk);
        let retention_ms = plan.retention_ms;
        let platform = Platform::new(disk, WallClock::new(timeline), |config| {
            config.retention.tombstones_ms = retention_ms;
        });
        for (tenant, shape) in plan.tenants.iter().enumerate() {
            network.watch_for(&shape.canary);
            platform.sinks().watch_for(&shape.canary);
            platform.found(tenant).await;
        }
        let parts =
            Parts { network: &network, platform: &platform, timeline, directory, seed: plan.seed };
        let devices = plan.devices.iter().enumerate().map(|(index, device)| {
            network.belongs(index, device.tenant);
            Device::new(index, device.tenant, &plan.tenants[device.tenant], &parts)
        });
        let devices: Vec<_> = devices.collect();
        let tenants = plan.tenants.len();
        let logging = plan.seed.is_multiple_of(LOGGED_ONE_IN);
        let mut world = Self {
            _logging: logging.then(|| platform.log_here()),
            plan,
            timeline,
            watches: vec![Watch::default(); devices.len()],
            devices,
            histories: vec![History::default(); tenants],
            deleted: vec![Vec::new(); tenants],
            versions: vec![1; tenants],
            numbers: 1_000,
            looked: vec![None; plan.devices.len()],
            epochs: 0,
            was_off_at_a_restore: vec![false; plan.devices.len()],
            unaware_of_restore: vec![None; plan.devices.len()],
            violations: Vec::new(),
            drained_ms: 0,
            causal: None,
            network,
            platform,
        };
        world.begin().await;
        world
    }

    /// Registers schemas and devices, and switches everything on.
    async fn begin(&mut self) {
        for device in 0..self.devices.len() {
            let grants = self.grants(device, &self.plan.devices[device].rights);
            let record = DeviceRecord {
                id: self.devices[device].id,
                user: self.devices[device].user(),
                name: String::new(),
                grants: grants.clone(),
                suspended: false,
                created_at_ms: START_MS,
            };
            self.devices[device].grants = grants;
            let store = self.store(self.devices[device].tenant).await;
            store.put_device(&record).await.expect("the memory store takes devices");
        }
        for (tenant, shape) in self.plan.tenants.iter().enumerate() {
            let store = self.store(tenant).await;
            let applied = store.apply_schema(&shape.schema(1), START_MS).await;
            applied.expect("a first schema is applied");
        }
        self.platform.start();
        (0..self.devices.len()).for_each(|device| self.start(device));
    }

    async fn run(mut self) -> Outcome {
        for step in &self.plan.steps {
            self.pass(step.after_ms).await;
            self.act(&step.action).await;
            self.look();
            if !self.violations.is_empty() {
                break;
            }
        }
        if self.violations.is_empty() {
            self.settle().await;
        }
        if self.violations.is_empty() {
            self.judge().await;
        }
        if self.platform.disk().is_overworked() {
            self.violations.push(Violation::Stuck("the server goes round in circles".to_owned()));
        }
        self.platform.search_metrics();
        self.violations.extend(oracles::leaks(&self.network.leaks()));
        self.violations.extend(oracles::leaks(&self.platform.sinks().leaks()));
        self.violations.extend(oracles::unwarranted(&self.network.unwarranted()));
        self.outcome()
    }

    fn outcome(self) -> Outcome {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.network.trace());
        for device in &self.devices {
            hasher.update(format!("{:?}", device.view()).as_bytes());
        }
        let Sent { messages, scanned_frames, scanned_bytes } = self.network.sent();
        let transactions = self.histories.iter().map(|history| history.transactions.len() as u64);
        Outcome {
            violations: self.violations,
            trace: *hasher.finalize().as_bytes(),
            covered: Covered {
                transactions: transactions.sum(),
                messages,
                scanned_frames,
                scanned_bytes,
                log_lines: self.platform.sinks().lines(),
                commits: self.platform.disk().commits(),
                virtual_ms: self.timeline.elapsed_ms(),
                drained_ms: self.drained_ms,
            },
            causal: self.causal,
        }
    }

    /// Lets time pass, and looks at the devices soon after something arrived.
    async fn pass(&mut self, time_ms: u64) {
        let until = Instant::now() + Duration::from_millis(time_ms);
        let deliveries = self.network.deliveries();
        while Instant::now() < until {
            if tokio::time::timeout_at(until, deliveries.next()).await.is_ok() {
                let soon = Instant::now() + Duration::from_millis(LOOK_EVERY_MS);
                tokio::time::sleep_until(soon.min(until)).await;
            }
            self.look();
        }
    }

    /// What must hold on every device at every moment. Whoever has taken no message and done nothing shows what it
    /// showed before.
    fn look(&mut self) {
        for (device, watch) in self.devices.iter().zip(&mut self.watches) {
            let delivered = Some(self.network.delivered(device.index));
            if std::mem::replace(&mut self.looked[device.index], delivered) == delivered {
                continue;
            }
            let (Some(client), Some(status)) = (device.client(), device.status()) else { continue };
            let shape = &self.plan.tenants[device.tenant];
            match Watch::whole(shape, client, &status) {
                Ok(torn) => self.violations.extend(torn),
                Err(error) => self.violations.push(Violation::Failed(error.to_string())),
            }
            let deleted = &self.deleted[device.tenant];
            let counters = Watch::counters(shape, device.version, client, deleted);
            let quarantined = Watch::quarantined(client, &status);
            match counters.and_then(|counters| Ok((counters, quarantined?))) {
                Ok((counters, quarantined)) => {
                    self.violations.extend(watch.monotonic(counters, &status, quarantined));
                }
                Err(error) => self.violations.push(Violation::Failed(error.to_string())),
            }
            if status.caught_up && self.network.is_unfilled(device.index) {
                let what = format!(
                    "device {} has caught up with scopes of which nothing has come",
                    device.index
                );
                self.violations.push(Violation::Lied(what));
            }
            if status.repairs > 0 {
                let what =
                    format!("device {} compared its copy and found a difference", device.index);
                self.violations.push(Violation::Mended(what));
            }
            if let Some(cause) = &status.cause
                && matches!(cause.code, "local_store" | "protocol_violation" | "replica_forked")
                && !self.plan.is_about_truncation()
            {
                let what = format!("device {}: {}: {}", device.index, cause.code, cause.message);
                self.violations.push(Violation::Failed(what));
            }
        }
    }

    fn grants(&self, device: usize, rights: &[Option<Rights>]) -> Vec<Grant> {
        let scopes = self.plan.tenants[self.plan.devices[device].tenant].scopes();
        let granted = scopes.into_iter().zip(rights);
        let granted =
            granted.filter_map(|(scope, rights)| Some(Grant { scope, rights: (*rights)? }));
        sorted_grants(granted)
    }

    fn every_scope(&self, tenant: usize) -> Vec<Grant> {
        let scopes = self.plan.tenants[tenant].scopes().into_iter();
        sorted_grants(scopes.map(|scope| Grant { scope, rights: Rights::Write }))
    }

    async fn store(&self, tenant: usize) -> farshore_store::SharedTenantStore {
        let store = self.platform.disk().store(&tenant_id(TENANTS[tenant])).await;
        store.expect("the tenants of a run stay")
    }
}

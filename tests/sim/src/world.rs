//! Carrying out a plan.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use farshore_client::store::OutboxState;
use farshore_server::app;
use farshore_server::clock::Clock as _;
use farshore_store::TenantStore;
use farshore_store::devices::DeviceRecord;
use farshore_store::sync::{PageRequest, RowChange, ScopeRead};
use farshore_sync_core::hlc::MAX_FUTURE_DRIFT_MS;
use farshore_sync_core::ids::{CollectionId, Scope};
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::row::RowState;
use farshore_sync_core::wire::{Grant, Rights, sorted_grants};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::time::Instant;
use tracing::subscriber::DefaultGuard;

use crate::causal::{self, Causal};
use crate::device::{Device, OUTBOX_LIMIT, Parts, Written, last_entry};
use crate::disk::Disk;
use crate::history::{Deed, Fate, History, RowKey, Transaction, View};
use crate::network::{Network, Sent};
use crate::oracles::{self, Violation, Watch};
use crate::plan::{Action, Op, Plan};
use crate::platform::{Platform, TENANTS, tenant_id};
use crate::shape::Shape;
use crate::sinks::LOGGED_ONE_IN;
use crate::time::{START_MS, Timeline, WallClock};

/// After the last fault every queue drains within this time, in milliseconds.
pub const DRAIN_LIMIT_MS: u64 = 180_000;
/// How long everything has to stay quiet before copies are compared, in milliseconds.
const QUIET_MS: u64 = 6_000;
/// How soon devices are looked at once something has arrived, in milliseconds.
const LOOK_EVERY_MS: u64 = 50;
/// How often the end of a run looks whether everything has arrived, in milliseconds.
const DRAIN_LOOK_MS: u64 = 250;
/// How far the server's clock may be off in a run, on top of what stamps may be ahead of it, in milliseconds.
const SERVER_DRIFT_MS: u64 = 60_000;
/// A stamp that is ahead of the server's clock by more may be one that the server moves, also where its clock is set
/// back a little until then, in milliseconds.
const AHEAD_MS: u64 = MAX_FUTURE_DRIFT_MS / 2;
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
            match Watch::counters(shape, device.version, client, deleted) {
                Ok(counters) => self.violations.extend(watch.monotonic(counters, &status)),
                Err(error) => self.violations.push(Violation::Failed(error.to_string())),
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

    async fn act(&mut self, action: &Action) {
        match action {
            Action::Write { device, ops } => self.write(*device, ops),
            Action::Cut { device } => self.network.cut(*device),
            Action::Flow { device, direction, flow } => {
                self.network.set_flow(*device, *direction, *flow);
            }
            Action::Truncate { device, direction } => {
                self.network.truncate_next(*device, *direction);
            }
            Action::Dial { device, dialling } => self.network.set_dialling(*device, *dialling),
            Action::Heal { device } => self.network.heal(*device),
            Action::CrashDevice { device, noticed } => self.crash(*device, *noticed),
            Action::StartDevice { device } => self.start(*device),
            Action::CrashServer => self.platform.crash(),
            Action::StartServer => self.platform.start(),
            Action::FailDisk { calls } => self.platform.disk().fail_calls(*calls),
            Action::DeviceClock { device, by_ms } => {
                self.devices[*device].environment.wall.jump(*by_ms);
            }
            Action::ServerClock { off_ms } => self.platform.clock().set_off(*off_ms),
            Action::Grant { device, rights } => self.grant(*device, rights).await,
            Action::Suspend { device, suspended } => self.suspend(*device, *suspended).await,
            Action::UpgradeSchema { tenant } => self.upgrade_schema(*tenant).await,
            Action::UpgradeApp { device } => {
                self.crash(*device, true);
                self.devices[*device].version = 2;
                self.start(*device);
            }
            Action::Purge => {
                if let Some((app, _)) = self.platform.operate() {
                    app::retention::purge(&app).await;
                }
            }
            Action::BackUp => self.platform.disk().back_up(),
            Action::Restore => self.restore().await,
            Action::Review { device, pick, again } => self.review(*device, *pick, *again),
        }
    }

    fn write(&mut self, device: usize, ops: &[Op]) {
        self.looked[device] = None;
        let device = &mut self.devices[device];
        let tenant = device.tenant;
        let (shape, deleted) = (&self.plan.tenants[tenant], &self.deleted[tenant]);
        match device.write(shape, deleted, ops, &mut self.numbers) {
            Ok(Some(Written { number, written_at_ms, deeds, read })) => {
                let gone = deeds.iter().filter_map(|deed| match deed {
                    Deed::Delete { row } => Some(row.clone()),
                    _ => None,
                });
                self.deleted[tenant].extend(gone);
                // Numbers of transactions begin with one.
                let number = number.unwrap_or_default();
                let (device, fate) = (device.index, Fate::Accepted);
                let ahead = written_at_ms > self.platform.clock().now_ms() + AHEAD_MS;
                let made = Transaction { device, number, deeds, fate, read, ahead, resent: false };
                self.histories[tenant].transactions.push(made);
            }
            Ok(None) => {}
            Err(error) => self.violations.push(Violation::Failed(error)),
        }
    }

    fn start(&mut self, device: usize) {
        self.looked[device] = None;
        let every_scope = self.every_scope(self.devices[device].tenant);
        if let Err(error) = self.devices[device].start(&every_scope, self.plan.token_life_ms) {
            self.violations
                .push(Violation::Failed(format!("device {device} does not start: {error}")));
        }
        if std::mem::take(&mut self.was_off_at_a_restore[device]) {
            self.note_resent(device);
        }
    }

    /// What waits on a device for the answer of a server that was lost comes to the restored one once more.
    fn note_resent(&mut self, device: usize) {
        let Some(client) = self.devices[device].client() else {
            self.was_off_at_a_restore[device] = true;
            return;
        };
        let entries = match client.outbox(OUTBOX_LIMIT) {
            Ok(entries) => entries,
            Err(error) => return self.violations.push(Violation::Failed(error.to_string())),
        };
        let waiting = entries.iter().filter(|entry| entry.state == OutboxState::Waiting);
        let waiting: BTreeSet<u64> = waiting.map(|entry| entry.number).collect();
        let history = &mut self.histories[self.devices[device].tenant].transactions;
        for made in history.iter_mut().filter(|made| made.device == device) {
            made.resent |= waiting.contains(&made.number);
        }
    }

    fn crash(&mut self, device: usize, noticed: bool) {
        if noticed {
            self.network.cut(device);
        } else {
            self.network.vanish(device);
        }
        if let Err(error) = self.devices[device].crash() {
            self.violations.push(Violation::Failed(error));
        }
        self.watches[device].forget();
    }

    async fn grant(&mut self, device: usize, rights: &[Option<Rights>]) {
        let tenant = self.devices[device].tenant;
        // The first device of a tenant sees everything to the end.
        if device < self.plan.tenants.len() {
            return;
        }
        let Some((app, operator)) = self.platform.operate() else { return };
        let grants = self.grants(device, rights);
        let id = self.devices[device].id;
        let tenant = tenant_id(TENANTS[tenant]);
        let done = app::devices::set_grants(&app, &operator, tenant, id, grants.clone()).await;
        if done.is_ok() {
            self.devices[device].grants = grants;
            self.watches[device].forget();
        }
    }

    async fn suspend(&mut self, device: usize, suspended: bool) {
        let Some((app, operator)) = self.platform.operate() else { return };
        let (id, tenant) = (self.devices[device].id, self.devices[device].tenant);
        let tenant = tenant_id(TENANTS[tenant]);
        let done = if suspended {
            app::devices::suspend(&app, &operator, tenant, id).await
        } else {
            app::devices::resume(&app, &operator, tenant, id).await
        };
        if done.is_ok() {
            self.devices[device].suspended = suspended;
            self.network.suspend(device, suspended);
        }
    }

    async fn upgrade_schema(&mut self, tenant: usize) {
        let Some((app, operator)) = self.platform.operate() else { return };
        let schema = self.plan.tenants[tenant].schema(2).to_json();
        let id = tenant_id(TENANTS[tenant]);
        if app::schemas::apply(&app, &operator, id, &schema).await.is_ok() {
            self.versions[tenant] = 2;
        }
    }

    /// Everything that the server knows is what the backup knows: rights and schemas too.
    async fn restore(&mut self) {
        self.platform.crash();
        if self.platform.disk().restore() {
            for tenant in 0..self.plan.tenants.len() {
                let store = self.store(tenant).await;
                self.epochs += 1;
                let entropy = self.plan.seed ^ (self.epochs << 32);
                store.begin_epoch(entropy).await.expect("the memory store begins epochs");
                let schema = store.schema().await.expect("the memory store reads");
                self.versions[tenant] = schema.map_or(1, |schema| schema.version);
                for device in self.devices.iter_mut().filter(|device| device.tenant == tenant) {
                    let record = store.device(device.id).await.expect("the memory store reads");
                    if let Some(record) = record {
                        device.suspended = record.suspended;
                        self.network.suspend(device.index, record.suspended);
                        device.grants = sorted_grants(record.grants);
                    }
                    self.watches[device.index].retire();
                }
            }
            (0..self.devices.len()).for_each(|device| self.note_resent(device));
        }
        self.platform.start();
    }

    /// The app looks at what was refused. What it does not know for certain to be refused it leaves alone.
    fn review(&mut self, device: usize, pick: u64, again: bool) {
        self.looked[device] = None;
        self.watches[device].forget();
        let tenant = self.devices[device].tenant;
        let Some(client) = self.devices[device].client().cloned() else { return };
        let Ok(entries) = client.quarantine() else { return };
        let history = &mut self.histories[tenant].transactions;
        let known = entries.iter().filter_map(|entry| {
            let made = history
                .iter()
                .position(|made| made.device == device && made.number == entry.number)?;
            let certain = self.epochs == 0 && fate_of(entry.code) == Fate::Refused;
            certain.then_some((entry.id, made))
        });
        let known: Vec<_> = known.collect();
        let Some((id, made)) = known.get(pick as usize % known.len().max(1)).copied() else {
            return;
        };
        let last = || last_entry(&client).unwrap_or_default();
        let before = last();
        if again {
            if client.resubmit(id).is_ok() {
                match last() {
                    after if after != before => {
                        history[made].number = after.number;
                        history[made].ahead =
                            after.written_at_ms > self.platform.clock().now_ms() + AHEAD_MS;
                    }
                    // It had no effect any more.
                    _ => history[made].fate = Fate::Refused,
                }
            }
        } else if client.discard(id).is_ok() {
            history[made].fate = Fate::Refused;
        }
    }

    /// Everything works again, and nobody writes: every queue has to drain.
    async fn settle(&mut self) {
        self.platform.disk().fail_calls(0);
        self.platform.start();
        self.let_the_first_see_all();
        for device in 0..self.devices.len() {
            self.network.heal(device);
            self.start(device);
            if self.devices[device].suspended {
                self.suspend(device, false).await;
            }
            let tenant = self.devices[device].tenant;
            if self.devices[device].version > self.versions[tenant] {
                self.upgrade_schema(tenant).await;
            }
        }
        let began_ms = self.timeline.elapsed_ms();
        let mut settled_at_ms = None;
        loop {
            let now_ms = self.timeline.elapsed_ms();
            // A server whose clock was set closes connections once more.
            settled_at_ms = settled_at_ms.filter(|_| self.is_settled());
            if settled_at_ms.is_none() && self.is_settled() {
                settled_at_ms = Some(now_ms);
            }
            match settled_at_ms {
                Some(at_ms) if now_ms - at_ms >= QUIET_MS => {
                    self.drained_ms = at_ms - began_ms;
                    return;
                }
                None if now_ms - began_ms > DRAIN_LIMIT_MS => return self.stuck(),
                _ => {}
            }
            self.pass(DRAIN_LOOK_MS).await;
            self.help_apps();
            if !self.violations.is_empty() {
                return;
            }
        }
    }

    /// The first device of a tenant gets the newest app that any device has, so that it knows every column.
    fn let_the_first_see_all(&mut self) {
        for first in 0..self.plan.tenants.len() {
            let of_tenant = self.devices.iter().filter(|device| device.tenant == first);
            let newest = of_tenant.map(|device| device.version).max().unwrap_or(1);
            if self.devices[first].version < newest {
                self.crash(first, true);
                self.devices[first].version = newest;
            }
        }
    }

    /// What an app does whose schema was newer than the server's: it connects again.
    fn help_apps(&self) {
        for device in &self.devices {
            let cause = device.status().and_then(|status| status.cause);
            if cause.is_some_and(|cause| cause.code == "schema_too_new")
                && let Some(client) = device.client()
            {
                // It has a server and tokens; there is nothing that could be missing.
                let _ = client.connect();
            }
        }
    }

    fn is_settled(&self) -> bool {
        !self.network.has_holes()
            && self.devices.iter().all(|device| {
                device
                    .status()
                    .is_some_and(|status| status.synced && status.caught_up && status.in_step)
            })
    }

    fn stuck(&mut self) {
        for device in &self.devices {
            let Some(status) = device.status() else { continue };
            if !(status.synced && status.caught_up && status.in_step) {
                self.violations
                    .push(Violation::Stuck(format!("device {}: {status:?}", device.index)));
            }
        }
    }

    async fn judge(&mut self) {
        self.settle_fates();
        let restored = self.epochs > 0;
        self.histories.iter_mut().for_each(|history| history.restored = restored);
        self.check_rights();
        let mut views: Vec<View> = Vec::new();
        for device in &self.devices {
            match device.view() {
                Ok(view) => views.push(view),
                Err(error) => {
                    self.violations.push(Violation::Failed(error.to_string()));
                    return;
                }
            }
        }
        if self.plan.causal.is_some() {
            let last: Vec<_> = views.iter().map(causal::registers).collect();
            let causal = Causal::judge(&self.histories[0], &last);
            let found = causal.errors.iter();
            self.violations.extend(
                found.map(|(error, what)| Violation::Causal(format!("{}: {what}", error.as_str()))),
            );
            self.causal = Some(causal);
        }
        for (tenant, shape) in self.plan.tenants.iter().enumerate() {
            // Tenants and their first devices have the same numbers.
            let first = &views[tenant];
            self.violations.extend(oracles::judge(shape, &self.histories[tenant], first));
            for device in self.devices.iter().filter(|device| device.tenant == tenant) {
                let (name, scopes) = (format!("device {}", device.index), scopes(&device.grants));
                let view = &views[device.index];
                self.violations.extend(oracles::only_granted(shape, &name, view, &scopes));
                let names = ("the first device", name.as_str());
                self.violations.extend(oracles::compare(
                    shape,
                    names,
                    first,
                    view,
                    (&scopes, device.schema()),
                ));
            }
            let store = self.store(tenant).await;
            self.check_digests(tenant, &*store).await;
            self.check_clocks(shape, &*store).await;
        }
    }

    /// What the devices say became of their transactions.
    fn settle_fates(&mut self) {
        for device in &self.devices {
            let Some(client) = device.client() else { continue };
            let Ok(entries) = client.quarantine() else { continue };
            let codes: BTreeMap<u64, ReasonCode> =
                entries.iter().map(|entry| (entry.number, entry.code)).collect();
            if self.epochs > 0 {
                let mutations = entries.iter().flat_map(|entry| &entry.mutations);
                let offers = mutations.filter(|mutation| mutation.operation == "offer");
                self.histories[device.tenant]
                    .set_aside
                    .extend(offers.map(|offer| (offer.collection.clone(), offer.row)));
            }
            let history = &mut self.histories[device.tenant].transactions;
            for made in history.iter_mut().filter(|made| made.device == device.index) {
                if let Some(code) = codes.get(&made.number) {
                    // What a restored server refuses for the lack of a row its predecessor may have taken, and others
                    // may have seen and offered.
                    let restored = self.epochs > 0;
                    made.fate = if restored { Fate::Doubtful } else { fate_of(*code) };
                }
            }
        }
    }

    /// Where rights never changed, nothing is accepted that a device had no right to.
    fn check_rights(&mut self) {
        let changes = |action: &Action| matches!(action, Action::Grant { .. } | Action::Restore);
        if self.plan.steps.iter().any(|step| changes(&step.action)) {
            return;
        }
        for made in self.histories.iter().flat_map(|history| &history.transactions) {
            let granted = &self.devices[made.device].grants;
            let may = |scope: &Scope| {
                granted.iter().any(|grant| grant.scope == *scope && grant.rights == Rights::Write)
            };
            for deed in made.deeds.iter().filter(|_| made.fate == Fate::Accepted) {
                if let Deed::Insert { row, scope } = deed
                    && !may(scope)
                {
                    let what = format!("device {} was let write {row:?} in {scope}", made.device);
                    self.violations.push(Violation::NotGranted(what));
                }
            }
        }
    }

    async fn check_digests(&mut self, tenant: usize, store: &dyn TenantStore) {
        let differing = store.scrub().await.expect("the memory store reads");
        if !differing.is_empty() {
            self.violations
                .push(Violation::Digest(format!("the server's own sums: {differing:?}")));
        }
        for device in self.devices.iter().filter(|device| device.tenant == tenant) {
            let Some(client) = device.client() else { continue };
            let scopes = scopes(&device.grants);
            let ours = store.buckets(&scopes).await.expect("the memory store reads");
            let ours: BTreeMap<(Scope, CollectionId), u128> = ours
                .into_iter()
                .map(|(place, buckets)| (place, buckets.total().0))
                .filter(|(_, total)| *total != 0)
                .collect();
            let theirs = client.digests().map(|digests| {
                let totals = digests.into_iter().map(|(scope, id, sum)| ((scope, id), sum.0));
                totals.filter(|(_, total)| *total != 0).collect::<BTreeMap<_, _>>()
            });
            if theirs.as_ref().ok() != Some(&ours) {
                let what = format!("device {} has {theirs:?}, the server {ours:?}", device.index);
                self.violations.push(Violation::Digest(what));
            }
        }
    }

    /// No stamp that the server keeps may be further ahead of it than the protocol allows.
    async fn check_clocks(&mut self, shape: &Shape, store: &dyn TenantStore) {
        let latest_ms = self.platform.clock().now_ms() + MAX_FUTURE_DRIFT_MS + SERVER_DRIFT_MS;
        let scopes = shape.scopes().into_iter().map(|scope| ScopeRead::from_checkpoint(scope, 0));
        let scopes = scopes.collect();
        let request = PageRequest { scopes, target_bytes: usize::MAX, max_rows: usize::MAX };
        let page = store.page(request).await.expect("the memory store reads");
        for row in page.rows {
            let RowChange::State(bytes) = &row.change else { continue };
            let state = RowState::decode(bytes).expect("the server stores rows");
            let cells = state.cells.iter().map(|cell| cell.stamp);
            let stamps = cells.chain(state.life.iter().map(|life| life.stamp));
            if let Some(ahead) = stamps.filter(|stamp| stamp.hlc.wall_ms() > latest_ms).max() {
                let what = format!("{ahead:?} in row {} when it was {latest_ms}", row.row);
                self.violations.push(Violation::Clock(what));
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

fn scopes(grants: &[Grant]) -> Vec<Scope> {
    grants.iter().map(|grant| grant.scope.clone()).collect()
}

/// What a device knows of a transaction in its quarantine. Where the device itself put it there, the server may have
/// it all the same.
const fn fate_of(code: ReasonCode) -> Fate {
    match code {
        ReasonCode::ScopeRevoked => Fate::Doubtful,
        _ => Fate::Refused,
    }
}

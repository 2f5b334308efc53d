//! Carrying out one step of a plan.

use std::collections::BTreeSet;

use farshore_client::store::OutboxState;
use farshore_server::app;
use farshore_server::clock::Clock as _;
use farshore_sync_core::hlc::MAX_FUTURE_DRIFT_MS;
use farshore_sync_core::wire::{Rights, sorted_grants};

use super::World;
use super::judge::fate_of;
use crate::device::{OUTBOX_LIMIT, Written, last_entry};
use crate::history::{Deed, Fate, Transaction};
use crate::oracles::{self, Violation};
use crate::plan::{Action, Op};
use crate::platform::{TENANTS, tenant_id};

/// A stamp that is ahead of the server's clock by more may be one that the server moves, also where its clock is set
/// back a little until then, in milliseconds.
const AHEAD_MS: u64 = MAX_FUTURE_DRIFT_MS / 2;

impl World<'_> {
    pub(super) async fn act(&mut self, action: &Action) {
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
        let resent = !self.knows_the_server(device);
        let device = &mut self.devices[device];
        let tenant = device.tenant;
        let (shape, deleted) = (&self.plan.tenants[tenant], &self.deleted[tenant]);
        match device.write(shape, deleted, ops, &mut self.numbers) {
            Ok(Some(Written { number, written_at_ms, deeds, shown, read })) => {
                self.violations.extend(oracles::own_writes(&deeds, &shown));
                let gone = deeds.iter().filter_map(|deed| match deed {
                    Deed::Delete { row } => Some(row.clone()),
                    _ => None,
                });
                self.deleted[tenant].extend(gone);
                // Numbers of transactions begin with one.
                let number = number.unwrap_or_default();
                let (device, fate) = (device.index, Fate::Accepted);
                let ahead = written_at_ms > self.platform.clock().now_ms() + AHEAD_MS;
                let made = Transaction {
                    device,
                    number,
                    deeds,
                    fate,
                    read,
                    ahead,
                    resent,
                    resubmitted: false,
                };
                self.histories[tenant].transactions.push(made);
            }
            Ok(None) => {}
            Err(error) => self.violations.push(Violation::Failed(error)),
        }
    }

    /// Whether a device has heard of the last restore: what it writes before that is written over what the lost server
    /// had, and comes to the restored one like what waited.
    fn knows_the_server(&mut self, device: usize) -> bool {
        let Some(dialled) = self.unaware_of_restore[device] else { return true };
        let status = self.devices[device].status();
        let is_in_step = status.is_some_and(|status| status.checkpoint.is_some());
        let knows = is_in_step && self.network.dialled(device) > dialled;
        if knows {
            self.unaware_of_restore[device] = None;
        }
        knows
    }

    pub(super) fn start(&mut self, device: usize) {
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

    pub(super) fn crash(&mut self, device: usize, noticed: bool) {
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

    pub(super) async fn suspend(&mut self, device: usize, suspended: bool) {
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

    pub(super) async fn upgrade_schema(&mut self, tenant: usize) {
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
            for device in 0..self.devices.len() {
                self.note_resent(device);
                self.unaware_of_restore[device] = Some(self.network.dialled(device));
            }
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
                        history[made].resubmitted = true;
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
}

//! The service that http hands authenticated sockets to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use farshore_store::SharedTenantStore;
use farshore_store::StoreError;
use farshore_store::catalog::Catalog;
use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::ids::{DeviceId, TenantId};
use tokio::sync::watch;

use super::connection::{Connection, Socket};
use super::lane::{CommittedGroup, LaneHandle, LaneObserver};
use super::pace::most_bytes;
use super::turns::{SMALL_COMMIT_BYTES, SMALL_MESSAGE_BYTES, Turns};
use crate::auth::{Authenticator, DevicePrincipal};
use crate::bus::{self, Bus, Hearer, Notice};
use crate::clock::SharedClock;
use crate::telemetry::metrics::Metrics;

/// The limits of each session and lane.
#[derive(Debug, Clone)]
pub struct SyncLimits {
    /// Time for a device to say Hello.
    pub hello_timeout_ms: u64,
    /// Silence after which the server sends a ping.
    pub heartbeat_ms: u64,
    /// Silence after which a connection counts as dead.
    pub silence_limit_ms: u64,
    /// How often the rights of a connected device are read again.
    pub reauthorise_interval_ms: u64,
    /// Most bytes that wait in one connection for a slow reader.
    pub session_queue_bytes: usize,
    /// Most pushes that wait for the commit of one tenant.
    pub lane_queue_pushes: usize,
    /// Most bytes of transactions in one commit.
    pub commit_max_bytes: usize,
    /// Most large commits at the same time, over all tenants.
    pub large_commits: usize,
    /// Most bytes of transactions that a tenant may push a second on this server; 0: as many as it likes.
    pub tenant_bytes_per_second: usize,
}

impl SyncLimits {
    /// Most bytes of transactions in one commit of a tenant.
    pub(super) fn most_commit_bytes(&self) -> usize {
        most_bytes(self.tenant_bytes_per_second, self.commit_max_bytes)
    }
}

/// The sync service. Cloning it is cheap; every clone is the same service.
#[derive(Clone)]
pub struct SyncService {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub catalog: Arc<dyn Catalog>,
    pub authenticator: Authenticator,
    pub limits: SyncLimits,
    pub metrics: Metrics,
    pub clock: SharedClock,
    bus: Bus,
    committing: Turns,
    /// Whose turn it is to have a large message read or written.
    pub large_messages: Turns,
    /// Whose turn it is to have a large page read, until that is a message: whoever holds one may wait for
    /// `large_messages` as well, and never the other way round.
    pub pages: Turns,
    lanes: Mutex<HashMap<TenantId, Weak<LaneHandle>>>,
    /// The newest connection of each device: an older one gives way to it.
    newest: Mutex<HashMap<(TenantId, DeviceId), watch::Sender<u64>>>,
    /// How many connections have come.
    turns: AtomicU64,
    draining: watch::Sender<bool>,
    sessions: watch::Sender<usize>,
}

impl SyncService {
    /// A service without sessions.
    #[must_use]
    pub fn new(
        catalog: Arc<dyn Catalog>,
        authenticator: Authenticator,
        limits: SyncLimits,
        metrics: Metrics,
        clock: SharedClock,
        bus: Bus,
    ) -> Self {
        let shared = Shared {
            catalog,
            authenticator,
            committing: Turns::new(limits.large_commits, SMALL_COMMIT_BYTES),
            large_messages: Turns::new(limits.large_commits, SMALL_MESSAGE_BYTES),
            pages: Turns::new(limits.large_commits, SMALL_MESSAGE_BYTES),
            limits,
            metrics,
            clock,
            bus,
            lanes: Mutex::default(),
            newest: Mutex::default(),
            turns: AtomicU64::new(0),
            draining: watch::Sender::new(false),
            sessions: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Serves one device until either side closes.
    pub fn run<S: Socket>(
        &self,
        principal: DevicePrincipal,
        socket: S,
    ) -> impl Future<Output = ()> + Send + use<S> {
        let counted = Counted::new(&self.shared);
        // What opens it is given back before the device falls quiet, as most of them are.
        let connection = Box::pin(Connection::open(self.clone(), principal, socket));
        async move {
            let _counted = counted;
            if let Some(connection) = connection.await {
                connection.serve().await;
            }
        }
    }

    /// Makes every session of a tenant, on every node, read again what its device may do.
    pub fn authority_changed(&self, tenant: &TenantId) {
        self.shared.bus.announce(tenant, Notice::RightsChanged);
        if let Some(lane) = lock(&self.shared.lanes).get(tenant).and_then(Weak::upgrade) {
            lane.authority_changed();
        }
    }

    /// Ends every session of a tenant that was restored or moved, on every node.
    pub fn begun_anew(&self, tenant: &TenantId) {
        self.shared.bus.announce(tenant, Notice::BegunAnew);
        if let Some(lane) = lock(&self.shared.lanes).remove(tenant).and_then(|lane| lane.upgrade())
        {
            lane.end();
        }
    }

    /// Tells the service that a tenant has a new schema: stores read it with each commit, so nothing waits for it.
    pub fn schema_changed(&self, tenant: &TenantId) {
        tracing::info!(%tenant, "schema changed");
    }

    /// Closes every session with a fault that says so, and waits until they have ended; the caller bounds the wait.
    pub async fn drain(&self) {
        self.shared.draining.send_replace(true);
        let mut sessions = self.shared.sessions.subscribe();
        // The sender lives as long as the service, so that waiting cannot fail.
        let _ = sessions.wait_for(|open| *open == 0).await;
    }

    /// How many devices are connected.
    #[must_use]
    pub fn sessions(&self) -> usize {
        *self.shared.sessions.borrow()
    }

    pub(super) fn draining(&self) -> watch::Receiver<bool> {
        self.shared.draining.subscribe()
    }

    /// The lane of a tenant, started where none runs.
    pub(super) fn lane(&self, tenant: &TenantId, store: &SharedTenantStore) -> Arc<LaneHandle> {
        let mut lanes = lock(&self.shared.lanes);
        let any = || lanes.values().find_map(Weak::upgrade);
        if bugs::planted(Bug::LaneWithoutTenant)
            && let Some(lane) = any()
        {
            return lane;
        }
        let running = lanes.get(tenant).and_then(Weak::upgrade);
        if let Some(lane) = running.filter(|lane| !lane.is_over()) {
            return lane;
        }
        lanes.retain(|_, lane| lane.strong_count() > 0);
        let observer = Observer {
            metrics: self.shared.metrics.clone(),
            bus: self.shared.bus.clone(),
            tenant: tenant.clone(),
        };
        let (clock, limits) = (Arc::clone(&self.shared.clock), &self.shared.limits);
        let (turns, own_store) = (self.shared.committing.clone(), Arc::clone(store));
        let lane = LaneHandle::start(tenant.clone(), own_store, clock, limits, turns, observer);
        lanes.insert(tenant.clone(), Arc::downgrade(&lane));
        let elsewhere = Elsewhere {
            lane: Arc::downgrade(&lane),
            authenticator: self.shared.authenticator.clone(),
            tenant: tenant.clone(),
        };
        let mut authority = lane.authority();
        let gone = async move { while authority.changed().await.is_ok() {} };
        let (bus, store) = (self.shared.bus.clone(), Arc::clone(store));
        let alone = Duration::from_millis(limits.reauthorise_interval_ms);
        tokio::spawn(bus::listen(bus, tenant.clone(), store, elsewhere, alone, gone));
        lane
    }

    /// Gives a connection its turn among those of its device. The one with the latest turn that has greeted stays.
    ///
    /// Whoever never greets takes nothing over: a device that gave a connection up may have the next one before the
    /// server gets to the first.
    pub(super) fn queue_up(&self, tenant: &TenantId, device: DeviceId) -> Newest {
        let turn = self.shared.turns.fetch_add(1, Ordering::Relaxed) + 1;
        let place = (tenant.clone(), device);
        let receiver = self.shared.newest_of(&place).subscribe();
        Newest { receiver, turn, place, shared: Arc::clone(&self.shared) }
    }
}

impl Shared {
    /// The latest turn of a device that has greeted.
    fn newest_of(&self, place: &(TenantId, DeviceId)) -> watch::Sender<u64> {
        let mut newest = lock(&self.newest);
        newest.entry(place.clone()).or_insert_with(|| watch::Sender::new(0)).clone()
    }
}

/// A connection's claim to be the newest of its device.
pub(super) struct Newest {
    receiver: watch::Receiver<u64>,
    turn: u64,
    place: (TenantId, DeviceId),
    shared: Arc<Shared>,
}

impl Newest {
    /// The device has greeted: older connections of it give way, and so does this one where a newer one has.
    pub(super) fn take_over(&self) {
        let newest = self.shared.newest_of(&self.place);
        newest.send_modify(|turn| *turn = (*turn).max(self.turn));
    }

    /// Waits until a newer connection of the device has greeted.
    pub(super) fn superseded(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut newest, turn) = (self.receiver.clone(), self.turn);
        async move {
            if newest.wait_for(|newest| *newest > turn).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Newest {
    fn drop(&mut self) {
        let mut newest = lock(&self.shared.newest);
        let is_last = |sender: &watch::Sender<u64>| sender.receiver_count() <= 1;
        if newest.get(&self.place).is_some_and(is_last) {
            newest.remove(&self.place);
        }
    }
}

/// Counts a session while it lives.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.sessions.send_modify(|open| *open += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.sessions.send_modify(|open| *open -= 1);
    }
}

/// What other nodes do in a tenant, on its way to the sessions here.
struct Elsewhere {
    lane: Weak<LaneHandle>,
    authenticator: Authenticator,
    tenant: TenantId,
}

impl Hearer for Elsewhere {
    fn committed_elsewhere(&self, seq: u64) {
        if let Some(lane) = self.lane.upgrade() {
            lane.committed_elsewhere(seq);
        }
    }

    fn begun_anew_elsewhere(&self) {
        self.authenticator.keys_changed(&self.tenant);
        if let Some(lane) = self.lane.upgrade() {
            lane.end();
        }
    }

    fn rights_changed_elsewhere(&self) {
        self.authenticator.keys_changed(&self.tenant);
        if let Some(lane) = self.lane.upgrade() {
            lane.authority_changed();
        }
    }
}

struct Observer {
    metrics: Metrics,
    bus: Bus,
    tenant: TenantId,
}

impl LaneObserver for Observer {
    fn committed(&self, group: &CommittedGroup) {
        if let Some(seq) = group.seq {
            self.bus.announce(&self.tenant, Notice::Committed(seq));
        }
        self.metrics.transactions.inc_by(group.transactions as u64);
        self.metrics.rows_written.inc_by(group.rows as u64);
        self.metrics.commit_duration.observe(group.took.as_secs_f64());
        self.metrics.commit_wait.observe(group.waited.as_secs_f64());
        self.metrics.commit_pushes.observe(group.pushes as f64);
        group.refusals.iter().for_each(|code| self.metrics.refusal(code.as_str()));
    }

    fn failed(&self, error: &StoreError) {
        if matches!(error, StoreError::Frozen | StoreError::BegunAnew) {
            return;
        }
        tracing::error!(tenant = %self.tenant, %error, "a commit failed; its pushes will come again");
    }

    fn held_back(&self, wait: Duration, is_to_be_named: bool) {
        self.metrics.held_back.inc_by(wait.as_secs_f64());
        if is_to_be_named {
            tracing::warn!(tenant = %self.tenant, "pushes more than sync.tenant_bytes_per_second: its devices wait");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::testing::{PATIENCE, TestServer};

    #[tokio::test]
    async fn a_device_that_has_gone_leaves_nothing_behind() {
        let server = TestServer::start().await;
        server.tenant("acme").await;
        let (token, _) = server.token("acme").await;
        let service = server.app.sync();
        let mut sessions = service.shared.sessions.subscribe();
        let answer = server.handshake(farshore_api::SYNC_PATH, &token).send().await.unwrap();
        let socket = answer.upgrade().await.unwrap();
        timeout(PATIENCE, sessions.wait_for(|open| *open == 1)).await.unwrap().unwrap();
        drop(socket);
        timeout(PATIENCE, sessions.wait_for(|open| *open == 0)).await.unwrap().unwrap();
        assert!(lock(&service.shared.newest).is_empty());
    }
}

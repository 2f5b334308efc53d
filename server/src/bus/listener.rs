//! What a node does with the notices of a tenant that it serves.

use std::time::Duration;

use farshore_store::{SharedTenantStore, StoreError};
use farshore_sync_core::ids::TenantId;
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep_until};

use super::{Bus, Connected, Notice};
use crate::telemetry::metrics::Direction;

/// Who hears what other nodes did in a tenant.
pub trait Hearer: Send + Sync + 'static {
    /// The tenant has reached a seq.
    fn committed_elsewhere(&self, seq: u64);
    /// What devices may do there has changed.
    fn rights_changed_elsewhere(&self);
    /// The tenant was restored or moved.
    fn begun_anew_elsewhere(&self);
}

/// Hears what other nodes say of a tenant, and looks at it, until `gone` is over. Without a bus there are no other
/// nodes; a tenant that may begin anew by itself is looked at all the same, at intervals of `alone`.
pub(crate) async fn listen<H: Hearer>(
    bus: Bus,
    tenant: TenantId,
    store: SharedTenantStore,
    hearer: H,
    alone: Duration,
    gone: impl Future<Output = ()>,
) {
    let Some(connected) = bus.0 else {
        if store.may_begin_anew() {
            tokio::select! {
                () = gone => {}
                () = look_alone(&tenant, &store, &hearer, alone) => {}
            }
        }
        return;
    };
    let listening =
        Listening { connected: &connected, tenant, store, hearer, known: 0, epoch: None };
    tokio::select! {
        () = gone => {}
        () = listening.run() => {}
    }
}

/// Looks at a tenant at intervals until it has begun anew.
async fn look_alone(
    tenant: &TenantId,
    store: &SharedTenantStore,
    hearer: &impl Hearer,
    interval: Duration,
) {
    let mut known = None;
    loop {
        match store.head().await {
            Ok(head) if *known.get_or_insert(head.epoch) != head.epoch => {
                return hearer.begun_anew_elsewhere();
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%tenant, %error, "a tenant could not be looked at"),
        }
        tokio::time::sleep(interval).await;
    }
}

struct Listening<'a, H> {
    connected: &'a Connected,
    tenant: TenantId,
    store: SharedTenantStore,
    hearer: H,
    known: u64,
    /// The epoch that the first look found.
    epoch: Option<u64>,
}

impl<H: Hearer> Listening<'_, H> {
    async fn run(mut self) {
        let Some(mut notices) = self.connected.subscribe(&self.tenant).await else { return };
        let mut up = self.connected.up.clone();
        // What was committed elsewhere before the subscription held is found by the first look.
        let mut next_look = Instant::now();
        loop {
            tokio::select! {
                notice = notices.next() => {
                    let Some(message) = notice else { return };
                    self.connected.metrics.bus_notice(Direction::In);
                    match Notice::from_bytes(&message.payload) {
                        Some(Notice::Committed(seq)) => self.committed(seq),
                        Some(Notice::RightsChanged) => self.hearer.rights_changed_elsewhere(),
                        Some(Notice::BegunAnew) => self.hearer.begun_anew_elsewhere(),
                        None => {}
                    }
                }
                // Notices that were lost while the bus was away are made up for at once, and its loss too.
                Ok(()) = up.changed() => next_look = Instant::now(),
                () = sleep_until(next_look) => {
                    self.look().await;
                    let config = &self.connected.config;
                    let is_up = *up.borrow_and_update();
                    let pause_ms =
                        if is_up { config.check_interval_ms } else { config.poll_interval_ms };
                    next_look = Instant::now() + Duration::from_millis(pause_ms);
                }
            }
        }
    }

    /// Looks where the tenant stands. What devices may do is read again at intervals by every session anyway.
    async fn look(&mut self) {
        let Ok(_permit) = self.connected.looks.acquire().await else { return };
        self.connected.metrics.bus_looks.inc();
        match self.store.head().await {
            Ok(head) if *self.epoch.get_or_insert(head.epoch) != head.epoch => {
                self.hearer.begun_anew_elsewhere();
            }
            Ok(head) => self.committed(head.seq),
            Err(StoreError::BegunAnew) => self.hearer.begun_anew_elsewhere(),
            Err(error) => {
                tracing::warn!(tenant = %self.tenant, %error, "a tenant could not be looked at");
            }
        }
    }

    fn committed(&mut self, seq: u64) {
        if seq > self.known {
            self.known = seq;
            self.hearer.committed_elsewhere(seq);
        }
    }
}

//! What the nodes of a platform tell each other: that a tenant has a new seq, or that rights in it changed.
//!
//! A notice that is lost costs time, never data: every node looks for itself at each tenant that it serves, often
//! while the bus is down and now and then while it is up.
//!
//! - [`config`]: [`BusConfig`], and where the bus is.
//! - [`listener`]: what a node does with the notices of a tenant that it serves.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, Subscriber};
use farshore_sync_core::ids::TenantId;
use tokio::sync::{Notify, Semaphore, watch};

use crate::telemetry::metrics::{Direction, Metrics};

pub mod config;
mod listener;

pub use config::{BusConfig, BusUrl};
pub(crate) use listener::{Hearer, listen};

/// Messages of one tenant that wait to be read; further ones are dropped, and the tenant is looked at instead.
const MAX_WAITING_NOTICES: usize = 64;
/// Commands that wait for the connection.
const MAX_WAITING_COMMANDS: usize = 256;
/// Tenants that are looked at by one node at the same time.
const MAX_LOOKS: usize = 4;
/// Time for the connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause before the connection is tried again.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(2);
/// How often the connection is asked whether it is alive; after two silences it is made anew.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// What one node tells the others of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// It has reached a seq.
    Committed(u64),
    /// What devices may do there has changed, or the keys that sign for them.
    RightsChanged,
    /// It was restored or moved: sessions begin anew.
    BegunAnew,
}

/// How the bus stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusStanding {
    /// There is none: this node is the only one.
    Alone,
    /// Notices pass.
    Up,
    /// Notices wait, and tenants are looked at instead.
    Down,
}

/// The way to the other nodes. Clones are the same bus.
#[derive(Clone)]
pub struct Bus(Option<Arc<Connected>>);

struct Connected {
    client: Client,
    config: BusConfig,
    metrics: Metrics,
    up: watch::Receiver<bool>,
    /// What the others have not been told yet: the newest of each tenant is enough.
    unsaid: Mutex<HashMap<TenantId, Unsaid>>,
    something_unsaid: Notify,
    looks: Semaphore,
}

#[derive(Debug, Default)]
struct Unsaid {
    seq: Option<u64>,
    rights: bool,
    begun_anew: bool,
}

impl Bus {
    /// No other nodes.
    #[must_use]
    pub const fn alone() -> Self {
        Self(None)
    }

    /// Connects, and goes on trying where nobody answers: the server works without.
    ///
    /// # Errors
    /// Where the connection cannot even be tried.
    pub async fn connect(config: BusConfig, metrics: Metrics) -> Result<Self, BusError> {
        let (standing, up) = watch::channel(false);
        let (gauge, url) = (metrics.bus_up.clone(), config.url.clone());
        let options = ConnectOptions::new()
            .name("farshore")
            .no_echo()
            .retry_on_initial_connect()
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .client_capacity(MAX_WAITING_COMMANDS)
            .subscription_capacity(MAX_WAITING_NOTICES)
            .reconnect_delay_callback(|attempts| {
                let doubled = Duration::from_millis(50 << attempts.min(6));
                doubled.min(MAX_RECONNECT_DELAY)
            })
            .event_callback(move |event| {
                let is_up = match event {
                    Event::Connected => Some(true),
                    Event::Disconnected | Event::Closed => Some(false),
                    _ => None,
                };
                if let Some(is_up) = is_up
                    && standing.send_replace(is_up) != is_up
                {
                    gauge.set(is_up.into());
                    tracing::warn!(is_up, "the bus between nodes");
                }
                std::future::ready(())
            });
        let client = options.connect(url.addresses()).await.map_err(BusError::new)?;
        let connected = Arc::new(Connected {
            client,
            config,
            metrics,
            up,
            unsaid: Mutex::default(),
            something_unsaid: Notify::new(),
            looks: Semaphore::new(MAX_LOOKS),
        });
        tokio::spawn(say(Arc::clone(&connected)));
        Ok(Self(Some(connected)))
    }

    /// How it stands now.
    #[must_use]
    pub fn standing(&self) -> BusStanding {
        match &self.0 {
            None => BusStanding::Alone,
            Some(connected) if *connected.up.borrow() => BusStanding::Up,
            Some(_) => BusStanding::Down,
        }
    }

    /// Tells the other nodes. Never waits: while the bus is down, the newest notice of each tenant is kept.
    pub fn announce(&self, tenant: &TenantId, notice: Notice) {
        let Some(connected) = &self.0 else { return };
        let mut unsaid = connected.unsaid.lock().unwrap_or_else(PoisonError::into_inner);
        let of_tenant = unsaid.entry(tenant.clone()).or_default();
        match notice {
            Notice::Committed(seq) => of_tenant.seq = of_tenant.seq.max(Some(seq)),
            Notice::RightsChanged => of_tenant.rights = true,
            Notice::BegunAnew => of_tenant.begun_anew = true,
        }
        drop(unsaid);
        connected.something_unsaid.notify_one();
    }
}

/// Says what there is to say, as long as the connection takes it.
async fn say(connected: Arc<Connected>) {
    let mut up = connected.up.clone();
    loop {
        connected.something_unsaid.notified().await;
        // Its sender lives as long as the client's callbacks.
        if up.wait_for(|up| *up).await.is_err() {
            return;
        }
        let unsaid =
            std::mem::take(&mut *connected.unsaid.lock().unwrap_or_else(PoisonError::into_inner));
        for (tenant, Unsaid { seq, rights, begun_anew }) in unsaid {
            let notices = [
                begun_anew.then_some(Notice::BegunAnew),
                rights.then_some(Notice::RightsChanged),
                seq.map(Notice::Committed),
            ];
            for notice in notices.into_iter().flatten() {
                let subject = connected.config.subject(&tenant);
                if connected.client.publish(subject, notice.to_bytes().into()).await.is_err() {
                    return;
                }
                connected.metrics.bus_notice(Direction::Out);
            }
        }
    }
}

impl Connected {
    async fn subscribe(&self, tenant: &TenantId) -> Option<Subscriber> {
        self.client.subscribe(self.config.subject(tenant)).await.ok()
    }
}

impl Notice {
    const COMMITTED: u8 = 1;
    const RIGHTS_CHANGED: u8 = 2;
    const BEGUN_ANEW: u8 = 3;

    fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Committed(seq) => [&[Self::COMMITTED], &seq.to_be_bytes()[..]].concat(),
            Self::RightsChanged => vec![Self::RIGHTS_CHANGED],
            Self::BegunAnew => vec![Self::BEGUN_ANEW],
        }
    }

    /// `None` for what another version says, or nobody of ours: the next look finds what it meant.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&Self::COMMITTED, seq) => {
                Some(Self::Committed(u64::from_be_bytes(seq.try_into().ok()?)))
            }
            (&Self::RIGHTS_CHANGED, []) => Some(Self::RightsChanged),
            (&Self::BEGUN_ANEW, []) => Some(Self::BegunAnew),
            _ => None,
        }
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bus").field(&self.standing()).finish()
    }
}

/// The bus cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("bus.url: {problem}")]
pub struct BusError {
    problem: String,
}

impl BusError {
    fn new(problem: impl fmt::Display) -> Self {
        Self { problem: problem.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_come_back_as_they_were_and_garbage_does_not() {
        let committed = [Notice::Committed(0), Notice::Committed(u64::MAX)];
        for notice in committed.into_iter().chain([Notice::RightsChanged, Notice::BegunAnew]) {
            assert_eq!(Notice::from_bytes(&notice.to_bytes()), Some(notice));
        }
        for garbage in [&[][..], &[0], &[1], &[1, 2, 3], &[2, 0], &[9; 64]] {
            assert_eq!(Notice::from_bytes(garbage), None, "{garbage:?}");
        }
    }
}

//! Which devices are let in: a bound on all of them and one on those of each tenant.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farshore_sync_core::ids::TenantId;
use prometheus_client::metrics::gauge::Gauge;

use super::App;
use crate::auth::DevicePrincipal;

/// Why a device was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// The server has as many connections as it takes.
    #[error("the server has as many connections as it takes")]
    ServerFull,
    /// The tenant has as many connections as it may have.
    #[error("the tenant has as many connections as it may have")]
    TenantFull,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl AdmissionError {
    const fn label(self) -> &'static str {
        match self {
            Self::ServerFull => "server_full",
            Self::TenantFull => "tenant_full",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// The devices that are connected. Clones count together.
#[derive(Debug, Clone)]
pub struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max: usize,
    max_per_tenant: usize,
    closing: AtomicBool,
    open: Mutex<Open>,
    /// Shows the total to those who watch.
    gauge: Gauge,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_tenant: HashMap<TenantId, usize>,
}

/// A place among the connections; it is given back when this is dropped.
#[derive(Debug)]
pub struct Admission {
    connections: Connections,
    tenant: TenantId,
}

impl Connections {
    pub(super) fn new(max: usize, max_per_tenant: usize, gauge: Gauge) -> Self {
        let (closing, open) = (AtomicBool::new(false), Mutex::default());
        Self(Arc::new(Inner { max, max_per_tenant, closing, open, gauge }))
    }

    /// Lets nobody in from now on.
    pub fn close(&self) {
        self.0.closing.store(true, Ordering::Release);
    }

    /// Whether the server is shutting down.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::Acquire)
    }

    /// How many devices are connected.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open().total
    }

    fn admit(&self, tenant: &TenantId) -> Result<Admission, AdmissionError> {
        if self.is_closing() {
            return Err(AdmissionError::ShuttingDown);
        }
        let mut open = self.open();
        if open.total >= self.0.max {
            return Err(AdmissionError::ServerFull);
        }
        let of_tenant = open.by_tenant.entry(tenant.clone()).or_default();
        if *of_tenant >= self.0.max_per_tenant {
            return Err(AdmissionError::TenantFull);
        }
        *of_tenant += 1;
        open.total += 1;
        self.0.gauge.inc();
        Ok(Admission { connections: self.clone(), tenant: tenant.clone() })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing that holds the lock can panic between its two counters.
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        open.total -= 1;
        self.connections.0.gauge.dec();
        if let Some(count) = open.by_tenant.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                open.by_tenant.remove(&self.tenant);
            }
        }
    }
}

/// Gives a device a place among the connections.
///
/// # Errors
/// See [`AdmissionError`].
pub fn admit(app: &App, principal: &DevicePrincipal) -> Result<Admission, AdmissionError> {
    let metrics = app.metrics();
    app.connections()
        .admit(principal.tenant())
        .inspect(|_| {
            metrics.connections.inc();
        })
        .inspect_err(|error| metrics.connection_refused(error.label()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let connections = Connections::new(3, 2, Gauge::default());
        let (acme, other): (TenantId, TenantId) =
            ("acme".parse().unwrap(), "other".parse().unwrap());
        let first = connections.admit(&acme).unwrap();
        let _second = connections.admit(&acme).unwrap();
        assert_eq!(connections.admit(&acme).unwrap_err(), AdmissionError::TenantFull);
        let _third = connections.admit(&other).unwrap();
        assert_eq!(connections.admit(&other).unwrap_err(), AdmissionError::ServerFull);
        drop(first);
        assert_eq!((connections.count(), connections.0.gauge.get()), (2, 2));
        let _again = connections.admit(&acme).unwrap();
        connections.close();
        assert_eq!(connections.admit(&acme).unwrap_err(), AdmissionError::ShuttingDown);
    }

    #[test]
    fn a_refused_tenant_leaves_nothing_behind() {
        let connections = Connections::new(1, 1, Gauge::default());
        let (acme, other): (TenantId, TenantId) =
            ("acme".parse().unwrap(), "other".parse().unwrap());
        let place = connections.admit(&acme).unwrap();
        for _ in 0..3 {
            connections.admit(&other).unwrap_err();
        }
        drop(place);
        assert!(connections.open().by_tenant.is_empty());
    }
}

//! Which tenants are open, and which of them closes next.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use farshore_store::sync_core::ids::TenantId;
use lru::LruCache;

use crate::tenant::OpenTenant;

/// The open tenants: those used last stay open, and one that is in use stays the only one of its kind.
#[derive(Debug)]
pub(crate) struct OpenTenants(Mutex<Tenants>);

#[derive(Debug)]
struct Tenants {
    /// Kept open, the one used longest ago last.
    recent: LruCache<TenantId, Arc<OpenTenant>>,
    /// One gate for each tenant that is open, opens, or goes.
    gates: HashMap<TenantId, Arc<Gate>>,
}

/// The one place where a tenant is created, opened or erased: one at a time.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<Weak<OpenTenant>>);

/// A gate while it is held.
pub(crate) struct Passage<'a>(MutexGuard<'a, Weak<OpenTenant>>);

impl OpenTenants {
    pub fn new(most: NonZeroUsize) -> Self {
        Self(Mutex::new(Tenants { recent: LruCache::new(most), gates: HashMap::new() }))
    }

    /// A tenant that was kept open. Never blocks on a file.
    pub fn recent(&self, tenant: &TenantId) -> Option<Arc<OpenTenant>> {
        self.lock().recent.get(tenant).cloned()
    }

    pub fn gate(&self, tenant: &TenantId) -> Arc<Gate> {
        Arc::clone(self.lock().gates.entry(tenant.clone()).or_default())
    }

    /// Keeps a tenant open, and closes another one where there are too many. Blocks while that one closes.
    pub fn keep(&self, tenant: TenantId, open: Arc<OpenTenant>) {
        let mut tenants = self.lock();
        let closing = tenants.recent.push(tenant, open);
        let most_gates = 2 * tenants.recent.cap().get();
        if tenants.gates.len() > most_gates {
            tenants.gates.retain(|_, gate| Arc::strong_count(gate) > 1 || gate.is_open());
        }
        drop(tenants);
        // Where somebody still uses it, it closes with its last handle.
        if let Some(closing) = closing.and_then(|(_, closing)| Arc::into_inner(closing)) {
            closing.close();
        }
    }

    /// Forgets a tenant that is to be erased.
    pub fn forget(&self, tenant: &TenantId) {
        let forgotten = self.lock().recent.pop(tenant);
        drop(forgotten);
    }

    fn lock(&self) -> MutexGuard<'_, Tenants> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// Waits for whoever creates, opens or erases the tenant now.
    pub fn pass(&self) -> Passage<'_> {
        Passage(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_open(&self) -> bool {
        self.pass().0.strong_count() > 0
    }
}

impl Passage<'_> {
    /// The tenant, if anybody has it open.
    pub fn open(&self) -> Option<Arc<OpenTenant>> {
        self.0.upgrade()
    }

    /// From now on this is the tenant for everybody.
    pub fn set(&mut self, open: &Arc<OpenTenant>) {
        *self.0 = Arc::downgrade(open);
    }
}

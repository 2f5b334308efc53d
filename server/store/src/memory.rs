//! The store that forgets: everything in memory, for tests and the simulator.
//!
//! It runs the same plan and fills the same pages as the others and is deterministic: the same entropy and the
//! same calls give the same bytes. Nothing in it waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use farshore_sync_core::digest::DigestKey;
use farshore_sync_core::ids::TenantId;

use crate::catalog::{Catalog, CatalogError};
use crate::copy::{Arrival, Arriving};
use crate::scope::{ScopeAuthority, TenantScope};
use crate::{SharedTenantStore, StoreError};

mod copy;
mod devices;
mod schemas;
mod signing_keys;
mod state;
mod sync;

use copy::MemoryArrival;
use state::State;

/// Tenants in memory.
#[derive(Debug)]
pub struct MemoryCatalog {
    entropy: u64,
    /// An erased tenant stays as `None`, so that its id is not used again.
    tenants: Arc<Mutex<Tenants>>,
    /// The copy of each tenant that began to arrive last.
    arrivals: Arc<Mutex<BTreeMap<TenantId, Weak<MemoryTenant>>>>,
}

type Tenants = BTreeMap<TenantId, Option<Arc<MemoryTenant>>>;

/// One tenant's store in memory.
#[derive(Debug)]
pub struct MemoryTenant {
    state: Mutex<Held>,
}

/// What a store in memory holds.
#[derive(Debug, Clone)]
enum Held {
    Everything(Box<State>),
    /// A copy took the tenant's place.
    BegunAnew,
    Erased,
}

impl MemoryCatalog {
    /// A platform without tenants. Digest keys and first epochs come from `entropy`.
    #[must_use]
    pub fn open(entropy: u64) -> (Self, ScopeAuthority) {
        let catalog = Self { entropy, tenants: Arc::default(), arrivals: Arc::default() };
        (catalog, ScopeAuthority::for_new_catalog())
    }

    /// A copy of every tenant as it is now: what a backup holds.
    #[must_use]
    pub fn backup(&self) -> Self {
        let tenants = self.lock();
        let copies = tenants.iter().map(|(id, tenant)| {
            (id.clone(), tenant.as_ref().map(|tenant| Arc::new(tenant.copy())))
        });
        let tenants = Arc::new(Mutex::new(copies.collect()));
        Self { entropy: self.entropy, tenants, arrivals: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Tenants> {
        lock(&self.tenants)
    }

    fn new_tenant(&self, id: &TenantId, now_ms: u64) -> MemoryTenant {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.entropy.to_le_bytes());
        hasher.update(id.as_str().as_bytes());
        MemoryTenant::new(State::new(
            DigestKey(*hasher.finalize().as_bytes()),
            self.entropy,
            now_ms,
        ))
    }
}

#[async_trait]
impl Catalog for MemoryCatalog {
    async fn create(
        &self,
        scope: &TenantScope,
        now_ms: u64,
    ) -> Result<SharedTenantStore, CatalogError> {
        let tenant = scope.tenant().clone();
        let mut tenants = self.lock();
        match tenants.get(&tenant) {
            Some(Some(_)) => Err(CatalogError::TenantExists { tenant }),
            Some(None) => Err(CatalogError::Erased { tenant }),
            None => {
                let store = Arc::new(self.new_tenant(&tenant, now_ms));
                tenants.insert(tenant, Some(Arc::clone(&store)));
                Ok(store)
            }
        }
    }

    async fn open(&self, scope: &TenantScope) -> Result<SharedTenantStore, CatalogError> {
        let tenant = scope.tenant();
        match self.lock().get(tenant) {
            Some(Some(store)) => Ok(Arc::<MemoryTenant>::clone(store)),
            Some(None) => Err(CatalogError::Erased { tenant: tenant.clone() }),
            None => Err(CatalogError::UnknownTenant { tenant: tenant.clone() }),
        }
    }

    async fn erase(&self, scope: &TenantScope) -> Result<(), CatalogError> {
        let tenant = scope.tenant();
        match self.lock().get_mut(tenant) {
            Some(slot) => {
                if let Some(store) = slot.take() {
                    store.end(Held::Erased);
                }
                Ok(())
            }
            None => Err(CatalogError::UnknownTenant { tenant: tenant.clone() }),
        }
    }

    async fn receive(
        &self,
        scope: &TenantScope,
        arriving: Arriving,
    ) -> Result<Box<dyn Arrival>, CatalogError> {
        let tenant = scope.tenant().clone();
        check_arrival(&self.lock(), &tenant, arriving)?;
        let store = Arc::new(self.new_tenant(&tenant, 0));
        lock(&self.arrivals).insert(tenant.clone(), Arc::downgrade(&store));
        let (tenants, arrivals) = (Arc::clone(&self.tenants), Arc::clone(&self.arrivals));
        Ok(Box::new(MemoryArrival { tenants, tenant, arriving, store, arrivals }))
    }

    /// Every tenant in memory is here.
    async fn release(&self, scope: &TenantScope) -> Result<(), CatalogError> {
        Err(CatalogError::UnknownTenant { tenant: scope.tenant().clone() })
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, CatalogError> {
        let tenants = self.lock();
        Ok(tenants.iter().filter(|(_, store)| store.is_some()).map(|(id, _)| id.clone()).collect())
    }
}

/// Whether a copy may arrive as it says it does.
fn check_arrival(
    tenants: &Tenants,
    tenant: &TenantId,
    arriving: Arriving,
) -> Result<(), CatalogError> {
    let tenant = tenant.clone();
    match (tenants.get(&tenant), arriving) {
        (Some(None), _) => Err(CatalogError::Erased { tenant }),
        (_, Arriving::Returning) => Err(CatalogError::UnknownTenant { tenant }),
        (Some(Some(_)), Arriving::New) => Err(CatalogError::TenantExists { tenant }),
        (None, Arriving::Replacing) => Err(CatalogError::UnknownTenant { tenant }),
        (None, Arriving::New) | (Some(Some(_)), Arriving::Replacing) => Ok(()),
    }
}

impl MemoryTenant {
    fn new(state: State) -> Self {
        Self { state: Mutex::new(Held::Everything(Box::new(state))) }
    }

    fn copy(&self) -> Self {
        Self { state: Mutex::new(lock(&self.state).clone()) }
    }

    /// From now on the store says why it holds nothing.
    fn end(&self, why: Held) {
        *lock(&self.state) = why;
    }

    /// What writes, which does not happen while the tenant is moved.
    fn change<T>(&self, work: impl FnOnce(&mut State) -> T) -> Result<T, StoreError> {
        self.with(|state| match state.frozen_by {
            Some(_) => Err(StoreError::Frozen),
            None => Ok(work(state)),
        })?
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> Result<T, StoreError> {
        match &mut *lock(&self.state) {
            Held::Everything(state) => Ok(work(state)),
            Held::BegunAnew => Err(StoreError::BegunAnew),
            Held::Erased => Err(StoreError::Erased),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! The store that forgets: everything in memory, for tests and the simulator.
//!
//! It runs the same plan and fills the same pages as the others and is deterministic: the same entropy and the
//! same calls give the same bytes. Nothing in it waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use farshore_sync_core::digest::DigestKey;
use farshore_sync_core::ids::TenantId;

use crate::catalog::{Catalog, CatalogError};
use crate::scope::{ScopeAuthority, TenantScope};
use crate::{SharedTenantStore, StoreError};

mod devices;
mod schemas;
mod signing_keys;
mod state;
mod sync;

use state::State;

/// Tenants in memory.
#[derive(Debug)]
pub struct MemoryCatalog {
    entropy: u64,
    /// An erased tenant stays as `None`, so that its id is not used again.
    tenants: Mutex<BTreeMap<TenantId, Option<Arc<MemoryTenant>>>>,
}

/// One tenant's store in memory.
#[derive(Debug)]
pub struct MemoryTenant {
    /// `None` once the tenant was erased.
    state: Mutex<Option<State>>,
}

impl MemoryCatalog {
    /// A platform without tenants. Digest keys and first epochs come from `entropy`.
    #[must_use]
    pub fn open(entropy: u64) -> (Self, ScopeAuthority) {
        let catalog = Self { entropy, tenants: Mutex::default() };
        (catalog, ScopeAuthority::for_new_catalog())
    }

    /// A copy of every tenant as it is now: what a backup holds.
    #[must_use]
    pub fn backup(&self) -> Self {
        let tenants = self.lock();
        let copies = tenants.iter().map(|(id, tenant)| {
            (id.clone(), tenant.as_ref().map(|tenant| Arc::new(tenant.copy())))
        });
        Self { entropy: self.entropy, tenants: Mutex::new(copies.collect()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantId, Option<Arc<MemoryTenant>>>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_tenant(&self, id: &TenantId) -> MemoryTenant {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.entropy.to_le_bytes());
        hasher.update(id.as_str().as_bytes());
        let state = State::new(DigestKey(*hasher.finalize().as_bytes()), self.entropy);
        MemoryTenant { state: Mutex::new(Some(state)) }
    }
}

#[async_trait]
impl Catalog for MemoryCatalog {
    async fn create(
        &self,
        scope: &TenantScope,
        _now_ms: u64,
    ) -> Result<SharedTenantStore, CatalogError> {
        let tenant = scope.tenant().clone();
        let mut tenants = self.lock();
        match tenants.get(&tenant) {
            Some(Some(_)) => Err(CatalogError::TenantExists { tenant }),
            Some(None) => Err(CatalogError::Erased { tenant }),
            None => {
                let store = Arc::new(self.new_tenant(&tenant));
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
                    *store.lock() = None;
                }
                Ok(())
            }
            None => Err(CatalogError::UnknownTenant { tenant: tenant.clone() }),
        }
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, CatalogError> {
        let tenants = self.lock();
        Ok(tenants.iter().filter(|(_, store)| store.is_some()).map(|(id, _)| id.clone()).collect())
    }
}

impl MemoryTenant {
    fn copy(&self) -> Self {
        Self { state: Mutex::new(self.lock().clone()) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> Result<T, StoreError> {
        self.lock().as_mut().map(work).ok_or(StoreError::Erased)
    }
}

#[cfg(test)]
mod tests;

//! A vault that forgets everything when it is dropped, for tests and for data that need not outlive the process.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::secret::VaultKey;
use super::{DataKey, KeyVault, ProtectionLevel, VaultError, VaultLabel, WrappedKey, envelope};

/// Keeps vault keys in the memory of the process.
#[derive(Default)]
pub struct MemoryVault {
    keys: Mutex<HashMap<VaultLabel, VaultKey>>,
}

impl MemoryVault {
    /// An empty vault.
    pub fn new() -> Self {
        Self::default()
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<VaultLabel, VaultKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyVault for MemoryVault {
    fn wrap(&self, label: &VaultLabel, key: &DataKey) -> Result<WrappedKey, VaultError> {
        match self.keys().entry(label.clone()) {
            Entry::Occupied(present) => envelope::seal(label, present.get(), key),
            Entry::Vacant(absent) => {
                envelope::seal(label, absent.insert(VaultKey::generate()?), key)
            }
        }
    }

    fn unwrap(&self, label: &VaultLabel, wrapped: &WrappedKey) -> Result<DataKey, VaultError> {
        match self.keys().get(label) {
            Some(vault_key) => envelope::open(label, vault_key, wrapped),
            None => Err(VaultError::Missing { label: label.clone() }),
        }
    }

    fn destroy(&self, label: &VaultLabel) -> Result<(), VaultError> {
        self.keys().remove(label);
        Ok(())
    }

    fn level(&self) -> ProtectionLevel {
        ProtectionLevel::Memory
    }
}

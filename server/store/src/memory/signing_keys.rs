//! The signing keys of a tenant in memory.

use async_trait::async_trait;

use super::MemoryTenant;
use crate::StoreError;
use crate::signing_keys::{SigningKeyRecord, SigningKeyStore};

#[async_trait]
impl SigningKeyStore for MemoryTenant {
    async fn signing_keys(&self) -> Result<Vec<SigningKeyRecord>, StoreError> {
        self.with(|state| state.signing_keys.iter().rev().cloned().collect())
    }

    async fn rotate_signing_key(&self, key: &SigningKeyRecord) -> Result<(), StoreError> {
        self.change(|state| {
            for earlier in &mut state.signing_keys {
                earlier.retired_at_ms.get_or_insert(key.created_at_ms);
            }
            state.signing_keys.push(key.clone());
        })
    }
}

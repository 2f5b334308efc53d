//! The keychain of the operating system: Secret Service on Linux, Keychain on macOS, Credential Manager on Windows.
//!
//! It is reached through `keyring-core` and one store crate per platform, behind the feature `os-keychain` (on by default; a headless image leaves it out and uses [`super::SealedFile`]).
//! For Linux we took the store on libdbus (built from its bundled source, 15 crates) rather than the one on zbus (50 crates and an async runtime of its own): vault calls are synchronous.
//! The kernel's keyutils is no choice, since it forgets at reboot.
//! iOS and Android bring their vaults as foreign implementations of [`KeyVault`].
//!
//! An entry's secret is one line of text under the names (service, label), so the platform's own tools and other keyring clients can show and remove it.
//! A keychain has no "create unless present": two processes that wrap the same new label at the same moment would race. Within a process a lock prevents it, and across processes a database has one creator.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use keyring_core::{CredentialPersistence, CredentialStore, Entry, Error as KeyringError};
use zeroize::Zeroizing;

use super::secret::VaultKey;
use super::{DataKey, KeyVault, ProtectionLevel, VaultError, VaultLabel, WrappedKey, envelope};

/// Keeps vault keys in a keychain.
pub struct OsKeychain {
    store: Arc<CredentialStore>,
    service: String,
    creating: Mutex<()>,
}

impl OsKeychain {
    /// The platform's own keychain; `service` names the app in it, as in `com.example.fieldwork`.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`] if no keychain service runs, or this build has none.
    pub fn native(service: impl Into<String>) -> Result<Self, VaultError> {
        let store = native_store().map_err(|error| match error {
            KeyringError::PlatformFailure(source) | KeyringError::NoStorageAccess(source) => {
                VaultError::Unavailable { source }
            }
            other => VaultError::unavailable(other),
        })?;
        Ok(Self::with_store(store, service))
    }

    /// Any other store made for `keyring-core`.
    pub fn with_store(store: Arc<CredentialStore>, service: impl Into<String>) -> Self {
        Self { store, service: service.into(), creating: Mutex::new(()) }
    }

    fn entry(&self, label: &VaultLabel) -> Result<Entry, VaultError> {
        self.store.build(&self.service, label.as_str(), None).map_err(|error| explain(label, error))
    }

    fn load(&self, label: &VaultLabel) -> Result<VaultKey, VaultError> {
        let secret = self.entry(label)?.get_secret().map_err(|error| explain(label, error))?;
        VaultKey::from_text(&Zeroizing::new(secret)).map_err(|detail| damaged(label, detail))
    }

    fn load_or_create(&self, label: &VaultLabel) -> Result<VaultKey, VaultError> {
        let _only_creator = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        match self.load(label) {
            Err(VaultError::Missing { .. }) => {}
            loaded_or_failed => return loaded_or_failed,
        }
        self.entry(label)?
            .set_secret(VaultKey::generate()?.to_text().as_bytes())
            .map_err(|error| explain(label, error))?;
        // Read back: a key that the keychain did not keep must not seal anything.
        self.load(label)
    }
}

impl KeyVault for OsKeychain {
    fn wrap(&self, label: &VaultLabel, key: &DataKey) -> Result<WrappedKey, VaultError> {
        envelope::seal(label, &self.load_or_create(label)?, key)
    }

    fn unwrap(&self, label: &VaultLabel, wrapped: &WrappedKey) -> Result<DataKey, VaultError> {
        envelope::open(label, &self.load(label)?, wrapped)
    }

    fn destroy(&self, label: &VaultLabel) -> Result<(), VaultError> {
        match self.entry(label)?.delete_credential() {
            Ok(()) | Err(KeyringError::NoEntry) => Ok(()),
            Err(error) => Err(explain(label, error)),
        }
    }

    fn level(&self) -> ProtectionLevel {
        match self.store.persistence() {
            CredentialPersistence::UntilDelete => ProtectionLevel::OsKeychain,
            // A store that forgets is no keychain, whatever it calls itself.
            _ => ProtectionLevel::Memory,
        }
    }
}

impl fmt::Debug for OsKeychain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("OsKeychain")
            .field("store", &self.store)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

/// "No entry", "locked" and "no service" lead to different actions, so they are different errors.
/// Errors that carry what the keychain returned are replaced by words: it may be a key.
fn explain(label: &VaultLabel, error: KeyringError) -> VaultError {
    match error {
        KeyringError::NoEntry => VaultError::Missing { label: label.clone() },
        KeyringError::NoStorageAccess(source) => {
            VaultError::Locked { label: label.clone(), source }
        }
        KeyringError::PlatformFailure(source) => VaultError::Unavailable { source },
        KeyringError::BadEncoding(_) | KeyringError::BadDataFormat(..) => {
            damaged(label, "the keychain cannot decode it")
        }
        KeyringError::Ambiguous(_) => {
            damaged(label, "the keychain has several entries of this name")
        }
        other => VaultError::unavailable(other),
    }
}

fn damaged(label: &VaultLabel, detail: &'static str) -> VaultError {
    VaultError::Damaged { what: format!("the keychain entry `{label}`"), detail }
}

#[cfg(all(feature = "os-keychain", target_os = "linux"))]
fn native_store() -> keyring_core::Result<Arc<CredentialStore>> {
    Ok(dbus_secret_service_keyring_store::Store::new()?)
}

#[cfg(all(feature = "os-keychain", target_os = "macos"))]
fn native_store() -> keyring_core::Result<Arc<CredentialStore>> {
    Ok(apple_native_keyring_store::keychain::Store::new()?)
}

#[cfg(all(feature = "os-keychain", target_os = "windows"))]
fn native_store() -> keyring_core::Result<Arc<CredentialStore>> {
    Ok(windows_native_keyring_store::Store::new()?)
}

#[cfg(not(all(
    feature = "os-keychain",
    any(target_os = "linux", target_os = "macos", target_os = "windows")
)))]
fn native_store() -> keyring_core::Result<Arc<CredentialStore>> {
    Err(KeyringError::NotSupportedByStore("this build has no operating system keychain".to_owned()))
}

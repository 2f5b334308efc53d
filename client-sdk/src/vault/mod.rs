//! The key vault: where the key of an encrypted database rests while the app does not run.
//!
//! Each encrypted database has one random [`DataKey`].
//! It is never written down as it is: a [`KeyVault`] wraps it, and only the [`WrappedKey`] lies beside the database (see [`crate::encrypted_file`]).
//! The vaults of this module hold one random vault key for each [`VaultLabel`] and seal the data key under it (envelope encryption), so destroying a label's vault key makes everything sealed under it unreadable for good.
//! A vault whose key never leaves its hardware (Secure Enclave, Android Keystore) implements the same trait: synchronous calls, bytes in and bytes out.
//!
//! | file | subject |
//! |---|---|
//! | `secret` | [`DataKey`] and the vault key: 32 bytes that erase themselves |
//! | `label` | [`VaultLabel`], the name of an entry |
//! | `envelope` | [`WrappedKey`] and its authenticated encryption |
//! | `memory` | [`MemoryVault`], for tests |
//! | `sealed_file` | [`SealedFile`], for devices without a keychain |
//! | `os_keychain` | [`OsKeychain`], for desktops |
//! | `durable` | files that are there whole or not at all |
//!
//! Invariants:
//! - A key that is missing, one that is locked away, one that is damaged and a vault that is out of reach are different [`VaultError`]s. Nothing is deleted or made anew on any of them.
//! - [`KeyVault::wrap`] returns only after the vault key is durable.
//! - No secret has `Debug`, `Display` or `Serialize` output.

pub(crate) mod durable;
mod envelope;
mod error;
mod label;
mod memory;
mod os_keychain;
mod sealed_file;
mod secret;

pub use envelope::{MAX_WRAPPED_KEY_BYTES, WrappedKey};
pub use error::VaultError;
pub use label::{InvalidLabel, MAX_LABEL_BYTES, VaultLabel};
pub use memory::MemoryVault;
pub use os_keychain::OsKeychain;
pub use sealed_file::SealedFile;
pub use secret::{DataKey, KEY_BYTES};

/// Wraps and unwraps data keys.
///
/// Calls may block for as long as the platform asks the user (a password prompt, a fingerprint): make them from a thread that may wait, never from an async task.
pub trait KeyVault: Send + Sync {
    /// Wraps `key` under the vault key of `label`, which is made if there is none yet and durable when this returns.
    ///
    /// # Errors
    /// [`VaultError::Locked`], [`VaultError::Unavailable`], [`VaultError::Damaged`], [`VaultError::TooOpen`] or [`VaultError::Io`].
    fn wrap(&self, label: &VaultLabel, key: &DataKey) -> Result<WrappedKey, VaultError>;

    /// Unwraps a data key that [`KeyVault::wrap`] wrapped for the same label.
    ///
    /// # Errors
    /// [`VaultError::Missing`] if the vault has no key for `label`, [`VaultError::WrongKey`] if it has another one than the one that wrapped, and those of [`KeyVault::wrap`].
    fn unwrap(&self, label: &VaultLabel, wrapped: &WrappedKey) -> Result<DataKey, VaultError>;

    /// Destroys the vault key of `label`: what was wrapped under it can never be read again.
    /// A label without a key is no error, so that an interrupted wipe can be repeated.
    ///
    /// # Errors
    /// [`VaultError::Locked`], [`VaultError::Unavailable`] or [`VaultError::Io`]; the key may then still exist.
    fn destroy(&self, label: &VaultLabel) -> Result<(), VaultError>;

    /// How well this vault protects its keys, as the fleet's policy sees it. Never better than the truth.
    fn level(&self) -> ProtectionLevel;
}

/// How well a vault protects its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProtectionLevel {
    /// In security hardware, released by the user's biometrics.
    HardwareBiometric,
    /// In security hardware.
    Hardware,
    /// In the operating system's keychain, unlocked by the user's session.
    OsKeychain,
    /// In a file that only file permissions protect.
    FileOnly,
    /// In the memory of the process; lost when it ends.
    Memory,
}

impl ProtectionLevel {
    /// The name used in reports, as in `os_keychain`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HardwareBiometric => "hardware_biometric",
            Self::Hardware => "hardware",
            Self::OsKeychain => "os_keychain",
            Self::FileOnly => "file_only",
            Self::Memory => "memory",
        }
    }
}

#[cfg(test)]
pub(crate) mod reexec;
#[cfg(test)]
mod tests;

//! What can go wrong with a vault. No variant carries a secret, and none of them deletes anything.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::VaultLabel;

/// Why a vault could not do what it was asked.
#[derive(Debug, Error)]
pub enum VaultError {
    /// The vault works but has no key of this name: it was destroyed, or lost with the device or the account that held it.
    #[error("the vault holds no key named `{label}`: what was sealed under it cannot be read")]
    Missing {
        /// The entry that was asked for.
        label: VaultLabel,
    },
    /// The vault has a key of this name, but another one sealed the data key.
    #[error("the vault's key named `{label}` is not the one that sealed this data key")]
    WrongKey {
        /// The entry that was asked for.
        label: VaultLabel,
    },
    /// The vault is locked, or the user or the system refused access. It may work later.
    #[error("the vault is locked or refused access to the key named `{label}`")]
    Locked {
        /// The entry that was asked for.
        label: VaultLabel,
        /// What the platform said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no vault to talk to: no service runs, or this platform has none.
    #[error("the vault cannot be reached")]
    Unavailable {
        /// What the platform said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// What the vault holds, or the wrapped key, is not what was written.
    #[error("{what} is damaged: {detail}")]
    Damaged {
        /// The thing that is damaged, with its name or path.
        what: String,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// The vault's file can be read by others, so it protects nothing.
    #[error("{} can be read by other users (mode {mode:03o}); run: chmod 600 {}", path.display(), path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl VaultError {
    /// Puts the path to an error of the file system.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// There is no vault to talk to.
    pub(crate) fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable { source: source.into() }
    }
}

//! Several users on one device: each has an encrypted file of its own in the same directory, under a key of its own.
//!
//! A user's store is called `<tenant>.<user>`: the database with its write-ahead log, the wrapped key, the file that
//! says whose it is, and the vault's entry all carry this name. A device with one user needs none of this.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farshore_sync_core::ids::TenantId;
use farshore_sync_core::schema::Schema;

use crate::client::{Client, ClientBuilder, OwnerFileError, owner_file};
use crate::encrypted_file::{self, key_file_path};
use crate::store::{Counts, CreateMode, OpenError, QueryError, Store, StoreError, StoreOptions};
use crate::vault::{InvalidLabel, KeyVault, VaultError, VaultLabel, durable};

/// What SQLite appends to the name of a database for the files beside it.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The users of one directory.
#[derive(Clone)]
pub struct Users {
    dir: PathBuf,
    schema: Arc<Schema>,
    vault: Arc<dyn KeyVault>,
}

/// One user of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// The tenant.
    pub tenant: TenantId,
    /// The user, as the app calls them.
    pub name: String,
}

/// Whether data that the server does not have may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Only remove what the server has.
    IfSynced,
    /// Remove everything, also what cannot be opened.
    Forced,
}

/// Why the users could not be listed, or one not be removed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Tenant and user make no name for files and vault.
    #[error(transparent)]
    Name(#[from] InvalidLabel),
    /// There is no such user here.
    #[error("there is no user {name} of tenant {tenant} on this device")]
    Unknown {
        /// The tenant.
        tenant: TenantId,
        /// The user.
        name: String,
    },
    /// Something would be lost.
    #[error(
        "{unsynced} transactions are not on the server yet and {quarantined} are in quarantine"
    )]
    Unsynced {
        /// Transactions that the server has not confirmed.
        unsynced: u64,
        /// Transactions that the server refused.
        quarantined: u64,
    },
    /// The store cannot be opened to see whether everything is on the server.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file that says whose the store is cannot be used.
    #[error(transparent)]
    OwnerFile(#[from] OwnerFileError),
    /// The store cannot say whether everything is on the server.
    #[error(transparent)]
    Count(#[from] QueryError),
    /// The store cannot be closed.
    #[error(transparent)]
    Close(#[from] StoreError),
    /// The key cannot be destroyed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Users {
    /// The users whose stores are in `dir`. Nothing is opened.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, schema: Arc<Schema>, vault: Arc<dyn KeyVault>) -> Self {
        Self { dir: dir.into(), schema, vault }
    }

    /// Who has a store here, in order. A directory that is not there has none.
    ///
    /// # Errors
    /// [`UserError::Io`].
    pub fn list(&self) -> Result<Vec<User>, UserError> {
        let failed = |source| UserError::Io { path: self.dir.clone(), source };
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut users = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            users.extend(name.to_str().and_then(user_of_owner_file));
        }
        users.sort();
        Ok(users)
    }

    /// What makes a client for a user: give it a server and a token, and build it. The store is made where there is
    /// none.
    #[must_use]
    pub fn open(&self, tenant: TenantId, user: &str) -> ClientBuilder {
        Client::builder()
            .dir(&self.dir)
            .user(tenant, user)
            .schema(Arc::clone(&self.schema))
            .vault(Arc::clone(&self.vault))
    }

    /// Removes a user's store: the key first, so that nothing can be read any more, then the files. The user's clients
    /// must be closed. A removal that was interrupted is finished by calling it again.
    ///
    /// # Errors
    /// [`UserError::Unsynced`] unless [`Removal::Forced`]; see [`UserError`].
    pub fn remove(&self, tenant: &TenantId, user: &str, removal: Removal) -> Result<(), UserError> {
        let name = store_name(tenant, user);
        let label = VaultLabel::new(name.clone())?;
        let database = database_path(&self.dir, &name);
        let owner_file = owner_file::path_of(&self.dir, &name);
        if !owner_file.exists() && !database.exists() {
            return Err(UserError::Unknown { tenant: tenant.clone(), name: user.to_owned() });
        }
        if removal == Removal::IfSynced {
            self.refuse_unsynced(&name)?;
        }
        self.vault.destroy(&label)?;
        let beside = |ending: &str| {
            let mut path = database.clone().into_os_string();
            path.push(ending);
            PathBuf::from(path)
        };
        for companion in COMPANIONS {
            remove_file(&beside(companion))?;
        }
        remove_file(&key_file_path(&database))?;
        remove_file(&database)?;
        // The list shows the user until the last file is gone.
        remove_file(&owner_file)
    }

    fn refuse_unsynced(&self, name: &str) -> Result<(), UserError> {
        let Some(owner) = owner_file::read(&self.dir, name)? else { return Ok(()) };
        let opened = Store::open(StoreOptions {
            dir: self.dir.clone(),
            name: name.to_owned(),
            device: owner.device,
            schema: Arc::clone(&self.schema),
            vault: Arc::clone(&self.vault),
            create: CreateMode::MustExist,
        });
        let store = match opened {
            // It was never filled, or an earlier removal got this far.
            Err(OpenError::File(encrypted_file::OpenError::NotCreated { .. })) => return Ok(()),
            opened => opened?,
        };
        let counted = store.counts();
        store.close()?;
        match counted? {
            Counts { unconfirmed: 0, quarantined: 0, .. } => Ok(()),
            Counts { unconfirmed, quarantined, .. } => {
                Err(UserError::Unsynced { unsynced: unconfirmed, quarantined })
            }
        }
    }
}

/// What a user's store is called.
pub(crate) fn store_name(tenant: &TenantId, user: &str) -> String {
    format!("{tenant}.{user}")
}

/// A tenant has no dot in its name, so the first one is the border.
fn user_of_owner_file(file: &str) -> Option<User> {
    let (tenant, name) = file.strip_suffix(owner_file::ENDING)?.split_once('.')?;
    Some(User { tenant: tenant.parse().ok()?, name: name.to_owned() })
}

/// Where the store puts its database.
fn database_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.db"))
}

fn remove_file(path: &Path) -> Result<(), UserError> {
    durable::remove(path).map_err(|source| UserError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_files_name_the_users() {
        let user =
            |tenant: &str, name: &str| User { tenant: tenant.parse().unwrap(), name: name.into() };
        for (file, expected) in [
            ("demo.alice.owner.json", Some(user("demo", "alice"))),
            ("demo.alice.b.owner.json", Some(user("demo", "alice.b"))),
            ("replica.owner.json", None),
            ("demo.alice.db", None),
            ("x.alice.owner.json", None),
        ] {
            assert_eq!(user_of_owner_file(file), expected, "{file}");
        }
    }
}

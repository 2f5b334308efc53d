//! The key file: what lies beside an encrypted database so that the vault can open it.
//!
//! JSON with the store's identity, the vault's label, the wrapped key, a check value of the key, and the salt that the database starts with.
//! Nothing in it is secret. It is small, written atomically, and carries a checksum, so that damage to it is not taken for a wrong key.
//! Lose it and the database is lost.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::{digest, hmac};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{OpenError, SALT_BYTES, StoreKey};
use crate::vault::{DataKey, KeyVault, VaultError, VaultLabel, WrappedKey, durable};

/// The version of the key file's format.
const FORMAT: u32 = 1;

/// Longest key file: the longest wrapped key in hexadecimal, and room for the rest.
const MAX_KEY_FILE_BYTES: usize = 4096;

/// What the check value is computed over, so that it says nothing about the key's other uses.
const CHECK_CONTEXT: &[u8] = b"farshore data key check v1";

/// The key file of the database at `path`: the same name with `.key` added.
pub fn key_file_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".key");
    name.into()
}

/// How far the creation of the store has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// The database may be absent or unfinished; nothing has been stored in it yet.
    Creating,
    /// The database is there.
    Ready,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeyFile {
    format: u32,
    pub(super) state: State,
    store_id: Uuid,
    label: String,
    wrapped_key: String,
    key_check: String,
    salt: String,
}

#[derive(Serialize, Deserialize)]
struct WithChecksum {
    #[serde(flatten)]
    body: KeyFile,
    checksum: String,
}

/// The one field that every version of the format has.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

impl KeyFile {
    /// Makes a new key, has the vault wrap it, and writes the key file of a store that is being created.
    pub(super) fn create(
        path: &Path,
        vault: &dyn KeyVault,
        label: &VaultLabel,
        store_id: Uuid,
    ) -> Result<Self, OpenError> {
        let key = DataKey::generate().map_err(OpenError::Vault)?;
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt)
            .map_err(|error| OpenError::Vault(VaultError::unavailable(error)))?;
        let wrapped = vault.wrap(label, &key).map_err(OpenError::Vault)?;
        let key_file = Self {
            format: FORMAT,
            state: State::Creating,
            store_id,
            label: label.as_str().to_owned(),
            wrapped_key: HEXLOWER.encode(wrapped.as_bytes()),
            key_check: HEXLOWER.encode(hmac::sign(&check_key(&key), CHECK_CONTEXT).as_ref()),
            salt: HEXLOWER.encode(&salt),
        };
        let place = key_file_path(path);
        durable::create(&place, &key_file.encode()).map_err(OpenError::io(&place))?;
        Ok(key_file)
    }

    /// Writes that the database is there.
    pub(super) fn mark_ready(mut self, path: &Path) -> Result<(), OpenError> {
        self.state = State::Ready;
        let place = key_file_path(path);
        durable::replace(&place, &self.encode()).map_err(OpenError::io(&place))
    }

    /// Reads the key file of the database at `path`; `None` if there is none in an existing directory.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, OpenError> {
        let place = key_file_path(path);
        let file = match File::open(&place) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return directory_exists(&place).map(|()| None);
            }
            Err(source) => return Err(OpenError::Io { path: place, source }),
        };
        let mut text = Vec::with_capacity(MAX_KEY_FILE_BYTES);
        match durable::read_within(&file, &mut text) {
            Ok(()) => Self::decode(&place, &text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                Err(OpenError::damaged(&place, "it is too long for a key file"))
            }
            Err(source) => Err(OpenError::Io { path: place, source }),
        }
    }

    /// Has the vault unwrap the key and checks that it is the one.
    pub(super) fn unlock(
        &self,
        path: &Path,
        vault: &dyn KeyVault,
        label: &VaultLabel,
    ) -> Result<StoreKey, OpenError> {
        let wrong_key = |detail| OpenError::WrongKey { path: path.to_owned(), detail };
        let damaged = |detail| OpenError::damaged(&key_file_path(path), detail);
        if self.label != label.as_str() {
            return Err(wrong_key("the key file belongs to another store"));
        }
        let wrapped = HEXLOWER.decode(self.wrapped_key.as_bytes()).ok();
        let wrapped = wrapped
            .and_then(WrappedKey::from_bytes)
            .ok_or_else(|| damaged("its wrapped key is malformed"))?;
        let salt = HEXLOWER.decode(self.salt.as_bytes()).ok();
        let salt = salt
            .and_then(|salt| salt.try_into().ok())
            .ok_or_else(|| damaged("its salt is malformed"))?;
        let data_key = vault.unwrap(label, &wrapped).map_err(|error| match error {
            VaultError::Missing { .. } => {
                OpenError::LostKey { path: path.to_owned(), lost: "the vault no longer holds it" }
            }
            VaultError::WrongKey { .. } => {
                wrong_key("the vault holds another key than the one that sealed the key file")
            }
            other => OpenError::Vault(other),
        })?;
        let check = HEXLOWER.decode(self.key_check.as_bytes()).unwrap_or_default();
        hmac::verify(&check_key(&data_key), CHECK_CONTEXT, &check)
            .map_err(|_| wrong_key("the vault unwrapped another key than the key file's"))?;
        Ok(StoreKey { data_key, salt, store_id: self.store_id })
    }

    fn encode(&self) -> Vec<u8> {
        let file = WithChecksum { body: self.clone(), checksum: self.checksum() };
        let mut text = serde_json::to_vec_pretty(&file).expect("strings and numbers always encode");
        text.push(b'\n');
        assert!(text.len() <= MAX_KEY_FILE_BYTES, "a wrapped key has a bounded length");
        text
    }

    fn decode(place: &Path, text: &[u8]) -> Result<Self, OpenError> {
        let damaged = |_| OpenError::damaged(place, "it is no key file");
        let AnyFormat { format } = serde_json::from_slice(text).map_err(damaged)?;
        if format > FORMAT {
            return Err(OpenError::NewerSchema {
                path: place.to_owned(),
                found: format,
                supported: FORMAT,
            });
        }
        let file: WithChecksum = serde_json::from_slice(text).map_err(damaged)?;
        if file.checksum == file.body.checksum() {
            Ok(file.body)
        } else {
            Err(OpenError::damaged(place, "its checksum does not match"))
        }
    }

    /// Finds accidental damage; it protects from nobody.
    fn checksum(&self) -> String {
        let body = serde_json::to_vec(self).expect("strings and numbers always encode");
        HEXLOWER.encode(digest::digest(&digest::SHA256, &body).as_ref())
    }
}

fn check_key(key: &DataKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())
}

/// A missing directory is not the same as a directory without a key file.
fn directory_exists(place: &Path) -> Result<(), OpenError> {
    match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            parent.metadata().map(drop).map_err(OpenError::io(parent))
        }
        _ => Ok(()),
    }
}

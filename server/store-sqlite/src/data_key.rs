//! A tenant's data key and the file in which it rests, sealed with the master key.

use std::fmt;
use std::io;
use std::path::Path;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use farshore_store::StoreError;
use farshore_store::catalog::CatalogError;
use farshore_store::sealing::{MasterKey, SEALING_OVERHEAD_BYTES, SealError, UnsealError};
use farshore_store::sync_core::ids::TenantId;
use zeroize::Zeroizing;

use crate::durable;
use crate::failure::file_error;

const KEY_BYTES: usize = 32;
const JOURNAL_CONTEXT: &[u8] = b"farshore shared journal v1";
const RECORDS_CONTEXT: &[u8] = b"farshore journal records v1";
const SEALED_KEY_BYTES: u64 = (KEY_BYTES + SEALING_OVERHEAD_BYTES) as u64;

/// The raw key of one tenant's file, erased from memory when dropped.
pub(crate) struct DataKey(Box<Zeroizing<[u8; KEY_BYTES]>>);

impl DataKey {
    /// A new key from the system's random source.
    pub fn generate() -> Result<Self, SealError> {
        let mut key = Box::new(Zeroizing::new([0; KEY_BYTES]));
        aws_lc_rs::rand::fill(&mut key[..]).map_err(|_| SealError)?;
        Ok(Self(key))
    }

    /// The key of the journal that all tenants share.
    pub fn of_journal(master: &MasterKey) -> Self {
        Self(derive(master.as_bytes(), JOURNAL_CONTEXT))
    }

    /// The key under which the tenant's records in that journal are sealed: it is gone when this one is.
    pub fn of_records(&self) -> MasterKey {
        let key = derive(&self.0, RECORDS_CONTEXT);
        MasterKey::from_slice(&key[..]).expect("both keys have 32 bytes")
    }

    /// Seals the key into a file that must not exist yet; durable on return.
    pub fn store(
        &self,
        path: &Path,
        master: &MasterKey,
        tenant: &TenantId,
    ) -> Result<(), StoreError> {
        let operation = "store a tenant's key";
        let sealed = master.seal(&purpose(tenant), &self.0[..]);
        let sealed = sealed.map_err(|error| StoreError::database(operation, error))?;
        durable::create(path, &sealed).map_err(file_error(operation, path))
    }

    /// Opens the key of a tenant from its file; `None` where there is no file.
    pub fn load(
        path: &Path,
        master: &MasterKey,
        tenant: &TenantId,
    ) -> Result<Option<Self>, CatalogError> {
        let operation = "read a tenant's key";
        let sealed = match durable::read_within(path, SEALED_KEY_BYTES) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file_error(operation, path)(error).into()),
        };
        let damaged = |problem: &dyn fmt::Display| StoreError::Damaged {
            operation,
            detail: format!("{}: {problem}", path.display()),
        };
        match master.open(&purpose(tenant), &sealed) {
            Ok(key) => {
                let mut own = Box::new(Zeroizing::new([0; KEY_BYTES]));
                if key.len() != KEY_BYTES {
                    return Err(damaged(&"the key has another length").into());
                }
                own.copy_from_slice(&key);
                Ok(Some(Self(own)))
            }
            Err(UnsealError::WrongMasterKey) => {
                Err(CatalogError::WrongMasterKey { what: path.display().to_string() })
            }
            Err(error @ UnsealError::Damaged) => Err(damaged(&error).into()),
        }
    }

    /// The statement that gives SQLCipher the key as it is, without deriving another one from it.
    pub fn pragma(&self) -> Zeroizing<String> {
        const BEFORE: &str = "PRAGMA key = \"x'";
        const AFTER: &str = "'\"";
        let length = BEFORE.len() + 2 * KEY_BYTES + AFTER.len();
        let mut statement = Zeroizing::new(String::with_capacity(length));
        statement.push_str(BEFORE);
        HEXLOWER.encode_append(&self.0[..], &mut statement);
        statement.push_str(AFTER);
        statement
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

fn derive(key: &[u8; KEY_BYTES], context: &[u8]) -> Box<Zeroizing<[u8; KEY_BYTES]>> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let tag = hmac::sign(&key, context);
    let mut derived = Box::new(Zeroizing::new([0; KEY_BYTES]));
    derived.copy_from_slice(tag.as_ref());
    derived
}

fn purpose(tenant: &TenantId) -> String {
    format!("tenant-key/{tenant}")
}

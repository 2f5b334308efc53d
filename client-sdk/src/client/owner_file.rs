//! The file beside a store that says whose it is: `<name>.owner.json`, readable without any key.
//!
//! It lets an app open its store offline without knowing the device id, and lists the users of a device. The store
//! itself is the authority: it refuses to open for another device.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use farshore_sync_core::ids::{DeviceId, TenantId};
use serde::{Deserialize, Serialize};

use crate::sync::Owner;
use crate::vault::durable;

/// Longest owner file, in bytes.
pub const MAX_OWNER_FILE_BYTES: usize = 1_024;
/// What an owner file's name ends in.
pub(crate) const ENDING: &str = ".owner.json";

/// Why an owner file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct OwnerFileError {
    path: PathBuf,
    source: io::Error,
}

#[derive(Serialize, Deserialize)]
struct Content {
    device: DeviceId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<TenantId>,
}

/// Where the owner file of a store is.
pub(crate) fn path_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{ENDING}"))
}

/// Whose store it is; `None` where there is no such file.
pub(crate) fn read(dir: &Path, name: &str) -> Result<Option<Owner>, OwnerFileError> {
    let path = path_of(dir, name);
    let mut bytes = Vec::with_capacity(MAX_OWNER_FILE_BYTES);
    let read = File::open(&path).and_then(|file| durable::read_within(&file, &mut bytes));
    let parsed = read.and_then(|()| serde_json::from_slice(&bytes).map_err(io::Error::from));
    match parsed {
        Ok(Content { device, tenant }) => Ok(Some(Owner { device, tenant })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OwnerFileError { path, source }),
    }
}

/// Says whose store it is.
pub(crate) fn write(dir: &Path, name: &str, owner: &Owner) -> Result<(), OwnerFileError> {
    let path = path_of(dir, name);
    let content = Content { device: owner.device, tenant: owner.tenant.clone() };
    let json = serde_json::to_vec(&content).map_err(io::Error::from);
    json.and_then(|json| durable::replace(&path, &json))
        .map_err(|source| OwnerFileError { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_knows_whose_it_is_without_its_key() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), "a").unwrap(), None);
        let mut owner = Owner { device: DeviceId::from_bytes([7; 16]), tenant: None };
        for tenant in [None, Some("demo".parse().unwrap())] {
            owner.tenant = tenant;
            write(dir.path(), "a", &owner).unwrap();
            assert_eq!(read(dir.path(), "a").unwrap(), Some(owner.clone()));
        }
    }

    #[test]
    fn a_damaged_owner_file_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), "a");
        for content in ["", "{\"device\":7}", &"x".repeat(MAX_OWNER_FILE_BYTES + 1)] {
            std::fs::write(&path, content).unwrap();
            let error = read(dir.path(), "a").unwrap_err().to_string();
            assert!(error.starts_with(path.to_str().unwrap()), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }
}

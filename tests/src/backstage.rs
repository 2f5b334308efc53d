//! What happens to files while no program has them open: backups, purges, and hands that do not belong there.

use std::fs;
use std::path::Path;

use farshore_client::encrypted_file::{self, OpenMode};
use farshore_client::vault::{SealedFile, VaultLabel};
use farshore_store::SharedTenantStore;
use farshore_store::catalog::Catalog as _;
use farshore_store::sealing::MasterKey;
use farshore_store_sqlite::{SqliteCatalog, SqliteConfig};
use rusqlite::Connection;
use tokio::runtime::Builder;

/// Copies a folder with everything in it.
///
/// # Panics
/// Where something cannot be copied.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Puts a copy in the place of a folder.
///
/// # Panics
/// Where something cannot be copied.
pub fn restore_folder(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    copy_folder(from, to);
}

/// Purges every tombstone of a tenant, as the server does when they are old enough. The server must not run.
///
/// # Panics
/// Where the store does not open.
pub fn purge_tombstones(data_dir: &Path, tenant: &str) -> u64 {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open_store(data_dir, tenant).await;
        store.purge(u64::MAX >> 16).await.unwrap()
    })
}

async fn open_store(data_dir: &Path, tenant: &str) -> SharedTenantStore {
    let master = MasterKey::from_slice(&[0x5a; 32]).unwrap();
    let (catalog, authority) = SqliteCatalog::open(SqliteConfig::new(data_dir), master).unwrap();
    catalog.open(&authority.scope(tenant.parse().unwrap())).await.unwrap()
}

/// Opens the database of a replica that does not run, with its own key.
///
/// # Panics
/// Where it does not open.
#[must_use]
pub fn open_device_file(database: &Path, vault: &Path, label: &str) -> Connection {
    let (vault, label) = (SealedFile::new(vault), VaultLabel::new(label).unwrap());
    let key = encrypted_file::unlock(database, &vault, &label).unwrap();
    encrypted_file::open(database, &key, OpenMode::ReadWrite).unwrap()
}

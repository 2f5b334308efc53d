//! What happens to files while no program has them open: backups, purges, and hands that do not belong there.

use std::fs;
use std::path::{Path, PathBuf};

use farshore_client::encrypted_file::{self, OpenMode};
use farshore_client::vault::{SealedFile, VaultLabel};
use farshore_store::SharedTenantStore;
use farshore_store::catalog::Catalog as _;
use farshore_store::scope::ScopeAuthority;
use farshore_store::sealing::MasterKey;
use farshore_store_postgres::{PostgresCatalog, PostgresConfig};
use farshore_store_sqlite::{SqliteCatalog, SqliteConfig};
use rusqlite::Connection;
use test_services::postgres;
use tokio::runtime::Builder;

use crate::server::Server;

/// Everything of a server as it was at some moment.
#[derive(Debug)]
pub struct Backup<'a> {
    folder: PathBuf,
    database: Option<postgres::Backup<'a>>,
}

impl Backup<'_> {
    /// Copies everything of a server, which must not run.
    ///
    /// # Panics
    /// Where something cannot be copied.
    #[must_use]
    pub fn of(server: &Server) -> Backup<'static> {
        let folder = server.home().join("backup");
        copy_folder(&server.data_dir(), &folder);
        Backup { folder, database: server.database().map(postgres::Database::back_up) }
    }

    /// Puts it back in its place. The server must not run.
    ///
    /// # Panics
    /// Where something cannot be copied.
    pub fn restore(&self, server: &Server) {
        fs::remove_dir_all(server.data_dir()).unwrap();
        copy_folder(&self.folder, &server.data_dir());
        if let (Some(database), Some(backup)) = (server.database(), &self.database) {
            database.restore(backup);
        }
    }
}

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

/// Purges every tombstone of a tenant, as the server does when they are old enough. The server must not run.
///
/// # Panics
/// Where the store does not open.
#[must_use]
pub fn purge_tombstones(server: &Server, tenant: &str) -> u64 {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open_store(server, tenant).await;
        store.purge(u64::MAX >> 16).await.unwrap()
    })
}

async fn open_store(server: &Server, tenant: &str) -> SharedTenantStore {
    let master = MasterKey::from_slice(&[0x5a; 32]).unwrap();
    let scope = |authority: ScopeAuthority| authority.scope(tenant.parse().unwrap());
    match server.database() {
        Some(database) => {
            let config = PostgresConfig::new(database.url().parse().unwrap());
            let (catalog, authority) = PostgresCatalog::open(config, &master).await.unwrap();
            catalog.open(&scope(authority)).await.unwrap()
        }
        None => {
            let config = SqliteConfig::new(server.data_dir());
            let (catalog, authority) = SqliteCatalog::open(config, master).unwrap();
            catalog.open(&scope(authority)).await.unwrap()
        }
    }
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

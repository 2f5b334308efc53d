//! The suite of all back-ends, and what only files on a disk can do.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use farshore_store::catalog::Catalog;
use farshore_store::conformance::Storage;
use farshore_store::scope::{ScopeAuthority, TenantScope};
use farshore_store::sealing::MasterKey;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::connection::{self, OnClose, Role};
use crate::data_key::DataKey;
use crate::{JournalMode, SqliteCatalog, SqliteConfig};

mod crashes;
mod damage;
mod eviction;
mod journal;
mod keys;
mod limits;
mod secrecy;

/// A data directory of its own.
struct Disk {
    folder: TempDir,
    config: SqliteConfig,
    master: MasterKey,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = SqliteConfig::new(folder.path().join("data"));
        Self { folder, config, master: master_key(1) }
    }

    /// The least that still works: one open tenant, one reader, small caches, a log and a journal that are moved at once.
    fn cramped() -> Self {
        let mut disk = Self::new();
        disk.config.max_open_tenants = NonZeroUsize::MIN;
        disk.config.readers_per_tenant = NonZeroUsize::MIN;
        disk.config.writer_cache_kib = 16;
        disk.config.reader_cache_kib = 16;
        disk.config.checkpoint_after_pages = 1;
        disk.config.journal_bytes = 1;
        disk
    }

    /// Every commit syncs the file of its tenant.
    fn without_journal() -> Self {
        let mut disk = Self::new();
        disk.config.journal = JournalMode::Off;
        disk
    }

    fn catalog(&self) -> (SqliteCatalog, ScopeAuthority) {
        SqliteCatalog::open(self.config.clone(), self.master.clone()).unwrap()
    }

    fn tenants(&self) -> PathBuf {
        self.config.data_dir.join("tenants")
    }

    /// The names of all files of the tenants, sorted.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.tenants()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

#[async_trait]
impl Storage for Disk {
    async fn open(&self) -> (Arc<dyn Catalog>, ScopeAuthority) {
        let (catalog, authority) = self.catalog();
        (Arc::new(catalog), authority)
    }
}

/// Runs work as a process of its own would: when it returns, every connection is closed.
fn process<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(work)
}

fn master_key(byte: u8) -> MasterKey {
    MasterKey::from_slice(&[byte; 32]).unwrap()
}

fn scope(authority: &ScopeAuthority, name: &str) -> TenantScope {
    authority.scope(name.parse().unwrap())
}

/// Copies the files of one folder into another: what a crash or a backup in this moment leaves.
fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_files(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// How many descriptors this process has on files of a folder whose names begin like this.
#[cfg(target_os = "linux")]
fn open_files(folder: &Path, beginning: &str) -> usize {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let names = targets.filter(|target| target.starts_with(folder));
    names
        .filter(|target| target.file_name().unwrap().to_str().unwrap().starts_with(beginning))
        .count()
}

/// The disk as the next process finds it if this one dies now.
fn after_a_crash(disk: &Disk) -> Disk {
    let crashed = Disk::new();
    copy_files(&disk.config.data_dir, &crashed.config.data_dir);
    // The index of the log is memory that the next process makes anew.
    for name in crashed.files().iter().filter(|name| name.ends_with("-shm")) {
        fs::remove_file(crashed.tenants().join(name)).unwrap();
    }
    crashed
}

/// Opens the database of the tenant directly.
fn raw_connection(disk: &Disk) -> Connection {
    let path = disk.tenants().join("demo.key");
    let tenant = "demo".parse().unwrap();
    let key = DataKey::load(&path, &disk.master, &tenant).unwrap().unwrap();
    let database = disk.tenants().join("demo.db");
    let connection = connection::open(&database, &key, Role::Writer, &disk.config).unwrap();
    connection::on_close(&connection, OnClose::TidyLog).unwrap();
    connection
}

mod by_default {
    use super::*;
    farshore_store::conformance_suite!(Disk::new());
}

mod without_journal {
    use super::*;
    farshore_store::conformance_suite!(Disk::without_journal());
}

mod cramped {
    use super::*;
    farshore_store::conformance_suite!(Disk::cramped());
}

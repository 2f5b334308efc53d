//! The settings of the store; each limit has its unit in its name.

use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Open tenants by default. With all readers in use each takes 11 of the process's descriptors.
const DEFAULT_MAX_OPEN_TENANTS: NonZeroUsize = NonZeroUsize::new(256).expect("256 is not zero");
/// Readers of one tenant by default.
const DEFAULT_READERS_PER_TENANT: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not zero");

/// Where the store is and what it may use.
#[derive(Debug, Clone)]
pub struct SqliteConfig {
    /// The folder in which all of it lies; it is created where it is missing.
    pub data_dir: PathBuf,
    /// Most tenants that stay open while nobody uses them; the one used longest ago closes first. An open
    /// tenant takes 3 descriptors and 2 more for each reader.
    pub max_open_tenants: NonZeroUsize,
    /// Most reads of one tenant that run at the same time; further ones wait.
    pub readers_per_tenant: NonZeroUsize,
    /// Decrypted pages that the writer of a tenant keeps, in KiB.
    pub writer_cache_kib: u32,
    /// Decrypted pages that each reader of a tenant keeps, in KiB.
    pub reader_cache_kib: u32,
    /// Pages of 4 KiB after which the write-ahead log of a tenant or of the journal is moved into its file.
    pub checkpoint_after_pages: u32,
    /// How long a statement waits for another process that uses the same file, in milliseconds.
    pub busy_timeout_ms: u32,
    /// Whether small commits of all tenants become durable together.
    pub journal: JournalMode,
    /// Bytes of records after which tenants bring what the shared journal has of them into their own files.
    pub journal_bytes: u64,
}

/// Where small commits become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalMode {
    /// In the journal that all tenants share: one sync for many of them.
    Shared,
    /// In the tenant's own file: one sync for each.
    Off,
}

impl SqliteConfig {
    /// The default limits for a folder.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            max_open_tenants: DEFAULT_MAX_OPEN_TENANTS,
            readers_per_tenant: DEFAULT_READERS_PER_TENANT,
            writer_cache_kib: 8 << 10,
            reader_cache_kib: 2 << 10,
            checkpoint_after_pages: 500,
            busy_timeout_ms: 5_000,
            journal: JournalMode::Shared,
            journal_bytes: 128 << 20,
        }
    }
}

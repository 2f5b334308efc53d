//! The directory that holds everything. One server at a time: two on one directory would each think that their
//! order of writes is the tenant's.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// The file's name that the server holds locked.
pub const LOCK_FILE: &str = "farshore.lock";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be made or written to.
    #[error("store.data_dir: {}: {source}", path.display())]
    Unusable {
        /// The directory, or what in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another server works in it.
    #[error("store.data_dir: {}: another server is running on this directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// A data directory that is ours until this is dropped; the operating system gives it back if we are killed.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory where there is none, for this user alone, and locks it.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn lock(path: &Path) -> Result<Self, DataDirError> {
        create(path).map_err(|source| DataDirError::Unusable { path: path.to_owned(), source })?;
        let lock_path = path.join(LOCK_FILE);
        let unusable = |source| DataDirError::Unusable { path: lock_path.clone(), source };
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the directory and those above it.
///
/// # Errors
/// Where the system refuses.
pub fn create(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

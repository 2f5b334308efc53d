//! Why an encrypted database could not be opened.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use thiserror::Error;

use crate::vault::VaultError;

/// Why an encrypted database could not be created or opened. The files are as they were.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is neither a database nor a finished key file: [`super::create`] makes them.
    #[error("{}: no store has been created here", path.display())]
    NotCreated {
        /// The database.
        path: PathBuf,
    },
    /// There is a finished store already.
    #[error("{}: there is a store here already", path.display())]
    AlreadyExists {
        /// The database.
        path: PathBuf,
    },
    /// The key file is there, the database is not.
    #[error("{}: the database is gone, its key file is still there", path.display())]
    Missing {
        /// The database.
        path: PathBuf,
    },
    /// The key that was found is another one than the file's.
    #[error("{}: wrong key: {detail}", path.display())]
    WrongKey {
        /// The database.
        path: PathBuf,
        /// How it showed.
        detail: &'static str,
    },
    /// The file is there and its key is nowhere: its content cannot be read by anyone.
    #[error("{}: the key is lost: {lost}", path.display())]
    LostKey {
        /// The database.
        path: PathBuf,
        /// What is gone.
        lost: &'static str,
    },
    /// The key is right and the file's content is not what was written.
    #[error("{}: the file is damaged: {detail}", path.display())]
    Damaged {
        /// The database or its key file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A SQLite database without encryption.
    #[error("{}: the file is a database without encryption", path.display())]
    PlainFile {
        /// The database.
        path: PathBuf,
    },
    /// A newer Farshore wrote the file.
    #[error("{}: the file has format {found}, this version reads up to {supported}: update the app", path.display())]
    NewerSchema {
        /// The database or its key file.
        path: PathBuf,
        /// The file's format version.
        found: u32,
        /// The newest version that this build reads.
        supported: u32,
    },
    /// Another connection held its lock for longer than [`super::BUSY_TIMEOUT_MS`].
    #[error("{}: another process holds the database", path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// The vault is locked, out of reach or damaged. The store may be sound.
    #[error(transparent)]
    Vault(VaultError),
    /// The file system refused: no such directory, no permission, read-only, full.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said; its kind tells a full disk from a read-only one.
        source: io::Error,
    },
    /// The SQLite that this program is linked with must not be used.
    #[error("this build cannot open stores: {detail}")]
    UnfitLibrary {
        /// What it lacks.
        detail: &'static str,
    },
    /// SQLite failed in a way that has no name here.
    #[error("{}: {source}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// Explains an error of SQLite on a connection that [`super::open`] made.
    pub fn from_sqlite(path: &Path, error: rusqlite::Error) -> Self {
        let io =
            |kind, error| Self::Io { path: path.to_owned(), source: io::Error::new(kind, error) };
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Self::damaged(path, error.to_string())
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Busy { path: path.to_owned() }
            }
            Some(ErrorCode::DiskFull) => io(io::ErrorKind::StorageFull, error),
            Some(ErrorCode::ReadOnly) => io(io::ErrorKind::ReadOnlyFilesystem, error),
            Some(ErrorCode::PermissionDenied) => io(io::ErrorKind::PermissionDenied, error),
            Some(ErrorCode::CannotOpen) => Self::Io {
                path: path.to_owned(),
                source: why_not_writable(path).unwrap_or_else(|| io::Error::other(error)),
            },
            Some(ErrorCode::SystemIoFailure) => io(io::ErrorKind::Other, error),
            _ => Self::Sqlite { path: path.to_owned(), source: error },
        }
    }

    /// Puts the path to an error of SQLite.
    pub(super) fn sqlite(path: &Path) -> impl FnOnce(rusqlite::Error) -> Self + '_ {
        |error| Self::from_sqlite(path, error)
    }

    pub(super) fn damaged(path: &Path, detail: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), detail: detail.into() }
    }

    /// Puts the path to an error of the file system.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// What the system says to writing a file beside this one; SQLite only says that it cannot.
pub(super) fn why_not_writable(path: &Path) -> Option<io::Error> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    tempfile::tempfile_in(directory.unwrap_or(Path::new("."))).err()
}

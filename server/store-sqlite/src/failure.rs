//! From SQLite's errors to the store's.

use std::io;
use std::path::Path;

use farshore_store::StoreError;
use rusqlite::ErrorCode;

/// Why a step inside of an operation failed; the operation is named when it leaves the tenant.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Damaged(String),
    #[error("the tenant has used up its {0}")]
    Exhausted(&'static str),
}

impl Failure {
    /// The error of an operation.
    pub fn during(self, operation: &'static str) -> StoreError {
        match self {
            Self::Sqlite(error) => explain(operation, error),
            Self::Store(error) => error,
            Self::Damaged(detail) => StoreError::Damaged { operation, detail },
            exhausted @ Self::Exhausted(_) => StoreError::database(operation, exhausted),
        }
    }
}

fn explain(operation: &'static str, error: rusqlite::Error) -> StoreError {
    use rusqlite::Error as E;
    let damaged = matches!(
        error,
        E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::InvalidColumnType(..)
            | E::QueryReturnedNoRows
            | E::Utf8Error(..)
    );
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::DiskFull { operation },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            let detail = format!("{error}: it is damaged, or not encrypted with this tenant's key");
            StoreError::Damaged { operation, detail }
        }
        _ if damaged => StoreError::Damaged { operation, detail: error.to_string() },
        _ => StoreError::database(operation, error),
    }
}

/// The error of an operation on a file or folder.
pub(crate) fn file_error<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::DiskFull { operation }
        }
        kind => {
            let with_path = io::Error::new(kind, format!("{}: {error}", path.display()));
            StoreError::database(operation, with_path)
        }
    }
}

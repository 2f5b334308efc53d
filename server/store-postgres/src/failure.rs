//! From Postgres's errors to the store's.

use farshore_store::StoreError;
use sqlx::error::BoxDynError;

/// Why a step inside of an operation failed; the operation is named when it leaves the tenant.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Sqlx(#[from] sqlx::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Damaged(String),
    #[error("a value cannot be sent: {0}")]
    Encode(BoxDynError),
    #[error(
        "no connection to the database within {timeout_ms} ms: it is not there, or all connections are in use"
    )]
    NoConnection { timeout_ms: u32 },
    #[error("the database has not answered within {timeout_ms} ms")]
    NoAnswer { timeout_ms: u128 },
    #[error("the master key does not fit")]
    WrongMasterKey,
    #[error("a worker stopped: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl Failure {
    /// The error of an operation.
    pub fn during(self, operation: &'static str) -> StoreError {
        match self {
            Self::Sqlx(error) => explain(operation, error),
            Self::Store(error) => error,
            Self::Damaged(detail) => StoreError::Damaged { operation, detail },
            Self::Encode(error) => StoreError::Database { operation, source: error },
            other @ (Self::NoConnection { .. }
            | Self::NoAnswer { .. }
            | Self::WrongMasterKey
            | Self::Worker(_)) => StoreError::database(operation, other),
        }
    }

    /// Whether nothing more can be asked on the connection: the server was restarted, a pooler closed it, or it does
    /// not answer.
    pub fn is_dead_connection(&self) -> bool {
        match self {
            Self::NoAnswer { .. } | Self::Sqlx(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => {
                true
            }
            // Connection exceptions, and those by which a server ends its sessions.
            Self::Sqlx(error) => {
                code_of(error).is_some_and(|code| code.starts_with("08") || code.starts_with("57P"))
            }
            _ => false,
        }
    }

    /// Whether the server says that we may not.
    pub fn is_denied(&self) -> bool {
        const INSUFFICIENT_PRIVILEGE: &str = "42501";
        match self {
            Self::Sqlx(error) => code_of(error).as_deref() == Some(INSUFFICIENT_PRIVILEGE),
            _ => false,
        }
    }

    /// Whether the tenant's role, schema or tables are not there, as after an erasure by another node.
    pub fn is_missing_tenant(&self) -> bool {
        const MISSING: [&str; 5] = ["22023", "42704", "3F000", "42P01", "42501"];
        match self {
            Self::Sqlx(error) => {
                code_of(error).is_some_and(|code| MISSING.contains(&code.as_str()))
            }
            _ => false,
        }
    }
}

/// The SQLSTATE of an error of the server.
pub(crate) fn code_of(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned())
}

fn explain(operation: &'static str, error: sqlx::Error) -> StoreError {
    let damaged = matches!(
        error,
        sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::RowNotFound
    );
    match code_of(&error).as_deref() {
        Some("53100") => StoreError::DiskFull { operation },
        // Corrupted data, a corrupted index.
        Some("XX001" | "XX002") => StoreError::Damaged { operation, detail: one_line(&error) },
        _ if damaged => StoreError::Damaged { operation, detail: one_line(&error) },
        _ => StoreError::database(operation, error),
    }
}

/// What an error says, on one line.
pub(crate) fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().replace('\n', " ")
}

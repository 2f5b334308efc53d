//! What programs need to know of an error: its kind, a stable code, and whether trying again may help.
//!
//! Each operation has an error enum of its own, with what a person needs to know in its text. This is the same for
//! all of them, for bindings and command lines that pass errors on.

use farshore_sync_core::schema::SchemaError;

use crate::client::{BuildError, ConnectError, OwnerFileError, PauseError, WaitError};
use crate::encrypted_file;
use crate::live::LiveError;
use crate::store::{OpenError, QueryError, StoreError, WriteError};
use crate::sync::{ClaimsError, InvalidAddress, OwnerError, RootError, TokenError};
use crate::users::UserError;
use crate::vault::{InvalidLabel, VaultError};

/// What kind of error it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// What the caller gave is not right: a value, a name, SQL, a setting.
    Invalid,
    /// What the caller named is not there.
    NotFound,
    /// The key of the database is missing, locked away or another one.
    Key,
    /// The files are damaged or not what they should be.
    Damaged,
    /// Device, tenant or token do not belong together.
    Identity,
    /// The system refused: no room, no permission, busy.
    System,
    /// The client is suspended or closed.
    Closed,
    /// The time was over.
    Timeout,
}

impl ErrorKind {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Key => "key",
            Self::Damaged => "damaged",
            Self::Identity => "identity",
            Self::System => "system",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
        }
    }
}

/// An error that programs can act on.
pub trait Classified: std::error::Error {
    /// What kind of error it is.
    fn kind(&self) -> ErrorKind {
        self.classify().0
    }

    /// The stable code: it is never given another meaning.
    fn code(&self) -> &'static str {
        self.classify().1
    }

    /// Whether the same call may succeed later, without anybody changing anything.
    fn is_retryable(&self) -> bool {
        matches!(
            self.code(),
            "busy" | "timeout" | "vault_locked" | "vault_unavailable" | "token_unavailable"
        )
    }

    /// Kind and code.
    fn classify(&self) -> (ErrorKind, &'static str);
}

impl Classified for StoreError {
    fn classify(&self) -> (ErrorKind, &'static str) {
        match self {
            Self::Full { .. } => (ErrorKind::System, "disk_full"),
            Self::ReadOnly { .. } => (ErrorKind::System, "read_only"),
            Self::Busy { .. } => (ErrorKind::System, "busy"),
            Self::Damaged { .. } => (ErrorKind::Damaged, "damaged"),
            Self::Protocol { .. } => (ErrorKind::Invalid, "protocol_violation"),
            Self::Closed => (ErrorKind::Closed, "suspended"),
            Self::Open { source } => source.classify(),
            Self::Sqlite { .. } => (ErrorKind::System, "database"),
        }
    }
}

impl Classified for WriteError {
    fn classify(&self) -> (ErrorKind, &'static str) {
        match self {
            Self::UnknownCollection { .. } => (ErrorKind::Invalid, "unknown_collection"),
            Self::UnknownColumn { .. } => (ErrorKind::Invalid, "unknown_column"),
            Self::Invalid { code, .. } => (ErrorKind::Invalid, code.as_str()),
            Self::RowMissing { .. } => (ErrorKind::NotFound, "row_missing"),
            Self::RowDeleted { .. } => (ErrorKind::NotFound, "row_deleted"),
            Self::RowExists { .. } => (ErrorKind::Invalid, "row_exists"),
            Self::TooLarge { .. } => (ErrorKind::Invalid, "too_large"),
            Self::Document { .. } => (ErrorKind::Invalid, "bad_document_change"),
            Self::NotQuarantined { .. } => (ErrorKind::NotFound, "not_quarantined"),
            Self::Randomness(_) => (ErrorKind::System, "no_randomness"),
            Self::Broken => (ErrorKind::System, "broken_transaction"),
            Self::Aborted(_) => (ErrorKind::Invalid, "aborted"),
            Self::Store(error) => error.classify(),
        }
    }
}

impl Classified for QueryError {
    fn classify(&self) -> (ErrorKind, &'static str) {
        match self {
            Self::Sql { .. } => (ErrorKind::Invalid, "sql"),
            Self::NotReadOnly { .. } => (ErrorKind::Invalid, "not_read_only"),
            Self::Parameters { .. } => (ErrorKind::Invalid, "parameters"),
            Self::TooManyRows | Self::TooManyBytes => (ErrorKind::Invalid, "result_too_large"),
            Self::UnknownCollection { .. } => (ErrorKind::Invalid, "unknown_collection"),
            Self::UnknownDocument { .. } => (ErrorKind::Invalid, "unknown_document"),
            Self::Document { .. } => (ErrorKind::Invalid, "bad_document_path"),
            Self::Store(error) => error.classify(),
        }
    }
}

impl Classified for OpenError {
    fn classify(&self) -> (ErrorKind, &'static str) {
        match self {
            Self::Name(error) => error.classify(),
            Self::File(error) => error.classify(),
            Self::OtherDevice { .. } => (ErrorKind::Identity, "wrong_device"),
            Self::SchemaConflict { .. } => (ErrorKind::Invalid, "schema_conflict"),
            Self::StoredSchema { .. } => (ErrorKind::Damaged, "newer_schema"),
            Self::Store(error) => error.classify(),
        }
    }
}

impl Classified for encrypted_file::OpenError {
    fn classify(&self) -> (ErrorKind, &'static str) {
        match self {
            Self::NotCreated { .. } => (ErrorKind::NotFound, "not_created"),
            Self::AlreadyExists { .. } => (ErrorKind::Invalid, "already_exists"),
            Self::Missing { .. } => (ErrorKind::NotFound, "database_missing"),
            Self::WrongKey { .. } => (ErrorKind::Key, "wrong_key"),
            Self::LostKey { .. } => (ErrorKind::Key, "lost_key"),
            Self::Damaged { .. } => (ErrorKind::Damaged, "damaged"),
            Self::PlainFile { .. } => (ErrorKind::Damaged, "plain_file"),
            Self::NewerSchema { .. } => (ErrorKind::Damaged, "newer_schema"),
            Self::Busy { .. } => (ErrorKind::System, "busy"),
            Self::Vault(error) => error.classify(),
            Self::Io { source, .. } => (ErrorKind::System, code_of_io(source)),
            Self::UnfitLibrary { .. } => (ErrorKind::System, "unfit_library"),
            Self::Sqlite { .. } => (ErrorKind::System, "database"),
        }
    }
}

impl Classified for VaultError {
    fn classify(&self) -> (ErrorKind, &'static str) {
        match self {
            Self::Missing { .. } => (ErrorKind::Key, "lost_key"),
            Self::WrongKey { .. } => (ErrorKind::Key, "wrong_key"),
            Self::Locked { .. } => (ErrorKind::Key, "vault_locked"),
            Self::Unavailable { .. } => (ErrorKind::Key, "vault_unavailable"),
            Self::Damaged { .. } => (ErrorKind::Damaged, "vault_damaged"),
            Self::TooOpen { .. } => (ErrorKind::Key, "vault_too_open"),
            Self::Io { source, .. } => (ErrorKind::System, code_of_io(source)),
        }
    }
}

impl Classified for BuildError {
    fn classify(&self) -> (ErrorKind, &'static str) {
        match self {
            Self::Missing { .. } => (ErrorKind::Invalid, "incomplete_settings"),
            Self::Schema(error) => error.classify(),
            Self::Address(error) => error.classify(),
            Self::Root(error) => error.classify(),
            Self::Token(error) => error.classify(),
            Self::Owner(error) => error.classify(),
            Self::OwnerFile(error) => error.classify(),
            Self::Open(error) => error.classify(),
            Self::Randomness => (ErrorKind::System, "no_randomness"),
            Self::Runtime(_) => (ErrorKind::System, "no_threads"),
        }
    }
}

impl Classified for ConnectError {
    fn classify(&self) -> (ErrorKind, &'static str) {
        match self {
            Self::NoServer => (ErrorKind::Invalid, "no_server"),
            Self::NoToken => (ErrorKind::Identity, "no_token"),
            Self::Suspended => (ErrorKind::Closed, "suspended"),
            Self::Claims(error) => error.classify(),
            Self::Owner(error) => error.classify(),
            Self::OwnerFile(error) => error.classify(),
        }
    }
}

impl Classified for PauseError {
    fn classify(&self) -> (ErrorKind, &'static str) {
        match self {
            Self::Close(error) => error.classify(),
            Self::Open(error) => error.classify(),
        }
    }
}

impl Classified for LiveError {
    fn classify(&self) -> (ErrorKind, &'static str) {
        match self {
            Self::Query(error) => error.classify(),
            Self::TooMany => (ErrorKind::Invalid, "too_many_live_queries"),
        }
    }
}

impl Classified for UserError {
    fn classify(&self) -> (ErrorKind, &'static str) {
        match self {
            Self::Name(error) => error.classify(),
            Self::Unknown { .. } => (ErrorKind::NotFound, "unknown_user"),
            Self::Unsynced { .. } => (ErrorKind::Invalid, "unsynced"),
            Self::Open(error) => error.classify(),
            Self::OwnerFile(error) => error.classify(),
            Self::Count(error) => error.classify(),
            Self::Close(error) => error.classify(),
            Self::Vault(error) => error.classify(),
            Self::Io { source, .. } => (ErrorKind::System, code_of_io(source)),
        }
    }
}

impl Classified for TokenError {
    fn classify(&self) -> (ErrorKind, &'static str) {
        match self {
            Self::Claims(error) => error.classify(),
            Self::File { .. } | Self::Source(_) | Self::Timeout => {
                (ErrorKind::Identity, "token_unavailable")
            }
        }
    }
}

impl Classified for OwnerError {
    fn classify(&self) -> (ErrorKind, &'static str) {
        (ErrorKind::Identity, OwnerError::code(self))
    }
}

macro_rules! classified {
    ($($error:ty => $kind:ident, $code:literal;)*) => {
        $(impl Classified for $error {
            fn classify(&self) -> (ErrorKind, &'static str) {
                (ErrorKind::$kind, $code)
            }
        })*
    };
}

classified! {
    ClaimsError => Identity, "bad_token";
    InvalidAddress => Invalid, "bad_server_url";
    RootError => Invalid, "bad_root_certificate";
    InvalidLabel => Invalid, "bad_name";
    SchemaError => Invalid, "bad_schema";
    OwnerFileError => Damaged, "owner_file";
    WaitError => Timeout, "timeout";
}

fn code_of_io(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::StorageFull | Io::QuotaExceeded => "disk_full",
        Io::ReadOnlyFilesystem => "read_only",
        Io::PermissionDenied => "permission_denied",
        Io::NotFound => "no_such_file",
        _ => "io",
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_ways_in_which_a_file_cannot_be_opened_have_codes_of_their_own() {
        use encrypted_file::OpenError as File;
        let path = PathBuf::from("a.db");
        let errors = [
            (File::WrongKey { path: path.clone(), detail: "" }, "wrong_key"),
            (File::LostKey { path: path.clone(), lost: "" }, "lost_key"),
            (File::Damaged { path: path.clone(), detail: String::new() }, "damaged"),
            (File::PlainFile { path: path.clone() }, "plain_file"),
            (File::NewerSchema { path, found: 2, supported: 1 }, "newer_schema"),
        ];
        for (error, code) in errors {
            let error = BuildError::Open(OpenError::File(error));
            assert_eq!(error.code(), code);
            assert!(!error.is_retryable());
        }
    }

    #[test]
    fn a_busy_database_is_worth_another_try() {
        let busy = WriteError::Store(StoreError::Busy { path: "a.db".into() });
        assert_eq!(
            (busy.kind(), busy.code(), busy.is_retryable()),
            (ErrorKind::System, "busy", true)
        );
    }
}

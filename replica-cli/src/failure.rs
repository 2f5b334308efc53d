//! A command that could not be done: a stable code for programs and a sentence for people.

use std::path::Path;

use farshore_client::Classified;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

/// What was asked for cannot be understood.
pub(crate) const BAD_REQUEST: &str = "bad_request";
/// A JSON value does not fit its column.
pub(crate) const TYPE_MISMATCH: &str = "type_mismatch";

impl Failure {
    /// A failure of this command itself.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A file that cannot be used.
    pub(crate) fn file(path: &Path, error: &dyn std::fmt::Display) -> Self {
        Self::new("file", format!("{}: {error}", path.display()))
    }
}

impl<E: Classified> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: error.code(), message: error.to_string() }
    }
}

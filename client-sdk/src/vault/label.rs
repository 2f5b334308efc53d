//! The name of a vault entry.

use std::fmt;

use thiserror::Error;

/// Longest label, in bytes: it must fit a file name and every platform's keychain.
pub const MAX_LABEL_BYTES: usize = 120;

/// Names one entry of a vault, which is one encrypted database, such as `demo.0190c8a2-...`.
///
/// It stands in file names and in the keychain's list for people to see: build it from ids, never from personal data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VaultLabel(String);

/// The text is no label.
#[derive(Debug, Error)]
#[error(
    "`{0}` is no vault label: 1 to {MAX_LABEL_BYTES} characters of a-z, 0-9, `.`, `_` and `-`, starting with a letter or digit"
)]
pub struct InvalidLabel(String);

impl VaultLabel {
    /// Checks a label: lower case only, since some file systems cannot tell cases apart.
    ///
    /// # Errors
    /// [`InvalidLabel`] says what a label looks like.
    pub fn new(label: impl Into<String>) -> Result<Self, InvalidLabel> {
        let label = label.into();
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let starts_well = label.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if label.len() <= MAX_LABEL_BYTES && starts_well && label.bytes().all(allowed) {
            Ok(Self(label))
        } else {
            Err(InvalidLabel(label))
        }
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VaultLabel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

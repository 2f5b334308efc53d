//! Why the server refused a mutation. A refused mutation is never dropped: it waits in the quarantine.

use std::fmt;
use std::str::FromStr;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// A stable reason code: a number on the wire, a word in the API.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode,
        )]
        #[cbor(index_only)]
        pub enum ReasonCode {
            $($(#[$doc])* #[n($number)] $name,)*
        }

        impl ReasonCode {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word that apps and operators see.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// The device may not write in the row's scope, or not in the one that the row would move to.
    PermissionDenied = 0, "permission_denied";
    /// The tenant's schema has no such collection.
    UnknownCollection = 1, "unknown_collection";
    /// The collection has no such column.
    UnknownColumn = 2, "unknown_column";
    /// The value or the operation does not fit the column's type.
    TypeMismatch = 3, "type_mismatch";
    /// The value is outside the column's `min` and `max`.
    OutOfRange = 4, "out_of_range";
    /// The value, the row or the document is larger than its limit.
    TooLarge = 5, "too_large";
    /// A column group was written in part.
    IncompleteGroup = 6, "incomplete_group";
    /// The row does not exist on the server.
    RowMissing = 7, "row_missing";
    /// The row was deleted; restore it to bring it back.
    RowDeleted = 8, "row_deleted";
    /// A document change builds on one that the server does not have.
    MissingDependency = 9, "missing_dependency";
    /// A document change is damaged.
    BadDocumentChange = 10, "bad_document_change";
    /// A limit of the tenant is used up.
    QuotaExceeded = 11, "quota_exceeded";
    /// The mutation builds on one that was refused.
    DependsOnRefused = 12, "depends_on_refused";
    /// The device lost the right to the scope before the mutation was sent.
    ScopeRevoked = 13, "scope_revoked";
    /// A column of the row's scope is empty, so that the row belongs to no scope.
    NoScope = 14, "no_scope";
    /// The transaction cannot be read.
    Malformed = 15, "malformed";
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ReasonCode {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text).ok_or(UnknownReason)
    }
}

/// A word that is no reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a reason code")]
pub struct UnknownReason;

/// Why a mutation was refused: the code for programs, the sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The stable code.
    pub code: ReasonCode,
    /// What is wrong and where, without the value itself.
    pub message: String,
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(code: ReasonCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

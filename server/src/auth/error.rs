//! Why a token was refused, and what can be wrong with a key.
//!
//! The reasons are for the log and for tests. A caller without a good token learns that it is not signed in, that
//! its token expired or that it is suspended, and nothing else.

use farshore_store::catalog::CatalogError;
use farshore_store::sealing::{SealError, UnsealError};
use farshore_sync_core::wire::FaultCode;
use farshore_sync_core::wire::limits::MAX_TOKEN_BYTES;

/// Why a token was refused.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// There is no token.
    #[error("there is no token")]
    Missing,
    /// It is longer than any token of ours.
    #[error("the token is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// It is not a token, or lacks a claim, or a claim has the wrong type.
    #[error("the token cannot be read")]
    Malformed,
    /// Its key is not known, or not any longer.
    #[error("the token's key is not known")]
    UnknownKey,
    /// It names another algorithm than its key has.
    #[error("the token's algorithm is not that of its key")]
    WrongAlgorithm,
    /// It was not signed by its key, or was altered.
    #[error("the token's signature is not good")]
    BadSignature,
    /// It comes from somebody else than the owner of its key.
    #[error("the token's issuer is not the owner of its key")]
    WrongIssuer,
    /// It is meant for something else.
    #[error("the token is for another purpose")]
    WrongAudience,
    /// Its tenant is not the owner of its key, or not the one that was addressed.
    #[error("the token is for another tenant")]
    WrongTenant,
    /// It is not valid yet.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It is not valid any longer.
    #[error("the token has expired")]
    Expired,
    /// The tenant does not know the device.
    #[error("the token's device is not known")]
    UnknownDevice,
    /// The device belongs to somebody else.
    #[error("the token's user is not the device's")]
    WrongUser,
    /// The device is suspended.
    #[error("the device is suspended")]
    Suspended,
    /// Keys or devices could not be read.
    #[error(transparent)]
    Store(CatalogError),
    /// A key of the tenant is damaged.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl AuthError {
    /// What the sync protocol calls it.
    #[must_use]
    pub const fn fault_code(&self) -> FaultCode {
        match self {
            Self::Suspended => FaultCode::Suspended,
            Self::Store(_) | Self::Key(_) => FaultCode::Internal,
            Self::Missing
            | Self::TooLong
            | Self::Malformed
            | Self::UnknownKey
            | Self::WrongAlgorithm
            | Self::BadSignature
            | Self::WrongIssuer
            | Self::WrongAudience
            | Self::WrongTenant
            | Self::NotYetValid
            | Self::Expired
            | Self::UnknownDevice
            | Self::WrongUser => FaultCode::Unauthenticated,
        }
    }
}

impl From<CatalogError> for AuthError {
    /// A tenant that does not exist, or does not any longer, has no keys; nobody without a token learns more.
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::UnknownTenant { .. } | CatalogError::Erased { .. } => Self::UnknownKey,
            CatalogError::TenantExists { .. }
            | CatalogError::Elsewhere { .. }
            | CatalogError::WrongMasterKey { .. }
            | CatalogError::Store(_) => Self::Store(error),
        }
    }
}

/// What can be wrong with a signing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system could not make one.
    #[error("the system could not make a key")]
    Generate,
    /// The system could not seal it.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The private half does not open.
    #[error("the private half of {kid} does not open: {source}")]
    Unseal {
        /// Which key.
        kid: String,
        /// Why.
        source: UnsealError,
    },
    /// It is not what was stored under this name.
    #[error("the key {kid} is damaged: {detail}")]
    Damaged {
        /// Which key.
        kid: String,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// It could not sign.
    #[error("the key {kid} could not sign")]
    Sign {
        /// Which key.
        kid: String,
    },
}

impl KeyError {
    pub(crate) fn damaged(kid: &str, detail: &'static str) -> Self {
        Self::Damaged { kid: kid.to_owned(), detail }
    }
}

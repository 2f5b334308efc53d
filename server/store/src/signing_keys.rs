//! The keys with which a tenant signs tokens. Private halves are stored sealed with the server's master key.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::StoreError;

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl SigningAlgorithm {
    /// Its name in a JWT header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Rs256, Self::EdDsa].into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

/// One signing key of a tenant.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKeyRecord {
    /// Its public name, bound to this tenant and algorithm.
    pub kid: String,
    /// How it signs.
    pub algorithm: SigningAlgorithm,
    /// The private half, sealed.
    pub sealed_private_key: Vec<u8>,
    /// The public half as a JWK, JSON.
    pub public_jwk: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it stopped signing; tokens that it signed stay valid until they expire.
    pub retired_at_ms: Option<u64>,
}

impl std::fmt::Debug for SigningKeyRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKeyRecord").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// The signing keys of a tenant.
#[async_trait]
pub trait SigningKeyStore: Send + Sync {
    /// All keys, the newest first.
    async fn signing_keys(&self) -> Result<Vec<SigningKeyRecord>, StoreError>;

    /// Adds a key and retires all earlier ones, in one step.
    async fn rotate_signing_key(&self, key: &SigningKeyRecord) -> Result<(), StoreError>;
}

//! The keys with which a tenant signs tokens: their public halves.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a key signs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256: what every library verifies.
    #[default]
    #[serde(rename = "RS256")]
    Rs256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rs256 => "RS256",
            Self::EdDsa => "EdDSA",
        })
    }
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// Its name in tokens and in the key set.
    pub kid: String,
    /// How it signs.
    pub algorithm: SigningAlgorithm,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it stopped signing; what it signed stays valid until it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at_ms: Option<u64>,
}

/// `GET /v1/admin/tenants/{tenant}/keys`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKeyList {
    /// All keys, the newest first.
    pub keys: Vec<SigningKey>,
}

/// `POST /v1/admin/tenants/{tenant}/keys`: a new key signs from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// How the new key signs.
    #[serde(default)]
    pub algorithm: SigningAlgorithm,
}

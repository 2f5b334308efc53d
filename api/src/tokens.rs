//! Tokens with which devices sync.

use std::fmt;

use farshore_sync_core::ids::{DeviceId, UserId};
use farshore_sync_core::wire::Grant;
use serde::{Deserialize, Serialize};

/// `POST /v1/admin/tenants/{tenant}/tokens`: signs a token and makes sure that the device is known and may do
/// at least what the token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MintToken {
    /// The device; a new one where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// Its user; where absent, the one that the device has, or a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// What people call the device; unchanged where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the token is good for.
    pub grants: Vec<Grant>,
    /// After how many seconds it expires; the server's default where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
}

/// A new token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MintedToken {
    /// The token: a secret.
    pub token: String,
    /// The device that it is for.
    pub device: DeviceId,
    /// The device's user.
    pub user: UserId,
    /// When it expires, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

impl fmt::Debug for MintedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MintedToken").field("device", &self.device).finish_non_exhaustive()
    }
}

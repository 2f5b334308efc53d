//! Tenants, as platform operators see them.

use farshore_sync_core::ids::TenantId;
use serde::{Deserialize, Serialize};

use crate::keys::SigningAlgorithm;

/// `POST /v1/admin/tenants`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTenant {
    /// The slug of the new tenant.
    pub tenant: TenantId,
    /// How its first key signs.
    #[serde(default)]
    pub algorithm: SigningAlgorithm,
    /// The cluster in which it is to be; without one it is at home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its slug.
    pub tenant: TenantId,
    /// The `iss` of the tokens that it signs.
    pub issuer: String,
}

/// `GET /v1/admin/tenants`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantList {
    /// All tenants, sorted.
    pub tenants: Vec<Tenant>,
}

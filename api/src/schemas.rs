//! The schema of a tenant. Request and response bodies are the schema itself, see
//! [`farshore_sync_core::schema::Schema`].

use serde::{Deserialize, Serialize};

/// The answer to `PUT /v1/admin/tenants/{tenant}/schema`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaApplied {
    /// What the schema is called.
    pub name: String,
    /// The version that holds now.
    pub version: u32,
}

//! Whether a server is alive, and whether it is ready.

use serde::{Deserialize, Serialize};

/// `GET /healthz` and `GET /readyz`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`; anything else comes as a problem document.
    pub status: String,
    /// The version of the server.
    pub version: String,
}

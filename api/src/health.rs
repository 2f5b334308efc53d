//! Whether a server is alive, and whether it is ready.

use serde::{Deserialize, Serialize};

/// `GET /healthz` and `GET /readyz`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`; anything else comes as a problem document.
    pub status: String,
    /// The version of the server.
    pub version: String,
    /// How the bus between nodes stands, where there is one; in `/readyz` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<BusHealth>,
}

/// How the bus between nodes stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BusHealth {
    /// Nodes tell each other what changed.
    Up,
    /// It is down, and each node looks for itself: what others wrote arrives later.
    Polling,
}

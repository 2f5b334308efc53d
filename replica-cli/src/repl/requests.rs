//! What a line may say.

use serde::Deserialize;
use serde_json::Value as Json;

/// One command. `id` is whatever the caller wants to see again.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Request {
    /// One transaction; its steps are arrays that begin with what to do.
    Txn {
        #[serde(rename = "do")]
        steps: Vec<Json>,
    },
    /// A SELECT.
    Query {
        sql: String,
        #[serde(default)]
        args: Vec<Json>,
    },
    /// Wants a connection.
    Connect,
    /// Wants none.
    Disconnect,
    /// Where the replica stands.
    Status,
    /// What has not synced.
    Outbox {
        #[serde(default = "default_limit")]
        limit: usize,
    },
    /// What the server refused.
    Quarantine,
    /// Writes a quarantined transaction again.
    Resubmit { mutation: u64 },
    /// Gives a quarantined transaction up.
    Discard { mutation: u64 },
    /// The digests of everything held.
    Digest,
    /// Answers when the goal is reached.
    Wait {
        #[serde(rename = "for")]
        goal: Goal,
        #[serde(default = "default_timeout_ms")]
        timeout_ms: u64,
    },
    /// Syncs once; answers when it is over.
    Sync {
        #[serde(default = "default_timeout_ms")]
        timeout_ms: u64,
    },
    /// A SELECT whose results keep coming.
    Watch {
        sql: String,
        #[serde(default)]
        args: Vec<Json>,
    },
    /// Ends a watch, by the id of its command.
    Unwatch { watch: Json },
    /// Brings an access token.
    Token { token: String },
    /// Closes the files.
    Suspend,
    /// Opens them again.
    Resume,
    /// Ends the process.
    Exit,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Goal {
    Synced,
    CaughtUp,
    Connected,
}

/// Transactions that `outbox` shows where nothing is said.
const fn default_limit() -> usize {
    10_000
}

/// How long `wait` and `sync` go on where nothing is said.
const fn default_timeout_ms() -> u64 {
    30_000
}

impl From<Goal> for farshore_client::Goal {
    fn from(goal: Goal) -> Self {
        match goal {
            Goal::Synced => Self::Synced,
            Goal::CaughtUp => Self::CaughtUp,
            Goal::Connected => Self::Connected,
        }
    }
}

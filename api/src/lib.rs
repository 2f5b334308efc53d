//! The HTTP contract that server and clients share: request and response types, problem documents with
//! stable codes, and the envelope of the sync socket. Types and pure functions; no I/O.
//!
//! - [`envelope`]: what a WebSocket message holds: a frame, compressed where that pays.
//! - [`problem`]: errors as RFC 9457 problem documents, each with a stable code.
//! - [`grant`]: scopes with rights as people and tokens write them.
//! - [`tenants`], [`devices`], [`tokens`], [`keys`], [`schemas`], [`integrity`]: one module per resource.
//! - [`health`]: whether a server is alive, and whether it is ready.

pub mod archives;
pub mod clusters;
pub mod devices;
pub mod envelope;
pub mod grant;
pub mod health;
pub mod integrity;
pub mod keys;
pub mod problem;
pub mod schemas;
pub mod tenants;
pub mod tokens;

/// The path of the sync socket; [`farshore_sync_core::wire::SUBPROTOCOL`] is its subprotocol.
pub const SYNC_PATH: &str = "/v1/sync";
/// The folder of everything that platform operators do.
pub const ADMIN_PATH: &str = "/v1/admin";

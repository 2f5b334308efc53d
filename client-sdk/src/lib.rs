//! The device side of Farshore: an encrypted local store that syncs.
//!
//! An app reads and writes its own database, with or without a network; [`Client`] keeps it in step with a server.
//!
//! - [`client`]: the public face: building, reading, writing, connecting, suspending.
//! - [`status`]: where a replica stands and what has not synced.
//! - [`live`]: queries whose results keep coming.
//! - [`users`]: several users on one device.
//! - [`sync`]: the connection, its tokens, and the task that drives the replica.
//! - [`store`]: the encrypted store: typed tables, outbox, quarantine.
//! - [`encrypted_file`]: one encrypted database and its key file.
//! - [`vault`]: where the key of a database rests.
//! - [`environment`]: where time and randomness enter.
//! - [`error`]: kind and stable code of every error.

pub mod client;
pub mod encrypted_file;
pub mod environment;
pub mod error;
mod latest;
pub mod live;
pub mod status;
pub mod store;
pub mod sync;
pub mod users;
pub mod vault;

pub use client::{Client, ClientBuilder, Goal, SyncReport};
pub use error::{Classified, ErrorKind};
pub use live::LiveQuery;
pub use status::{Phase, Status, StatusCause, StatusWatch};
pub use sync::TokenSource;
pub use users::Users;

// What an app meets in signatures, so that it needs no other crate of the house.
pub use farshore_sync_core::replica::RetryPolicy;
pub use farshore_sync_core::{digest, document, ids, reason, schema, value};

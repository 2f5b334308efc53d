//! The edge sync server: devices sync through it, operators run it.
//!
//! Data flows one way: `http` → `app` → `auth`, `sync` → the store. Nothing points back.
//!
//! - [`http`]: one file per resource; extracts, calls `app`, converts.
//! - [`app`]: the use cases, one file per resource.
//! - [`auth`]: who is calling, proven by tokens.
//! - [`sync`]: the sessions of devices and the lane of each tenant.
//! - [`bus`]: what the nodes of a platform tell each other.
//! - [`config`]: everything that can be set, read once.
//! - [`archive`]: a tenant in one file.
//! - [`placement`]: tenants in several databases.
//! - [`telemetry`]: the log and the metrics.
//! - [`run`]: a server from its start to its end.
//! - [`cli`]: the command line `farshore`.
//! - `whole_file`: small files that are there whole or not at all.
//! - [`clock`]: where the server's time comes from.

pub mod app;
pub mod archive;
pub mod auth;
pub mod bus;
pub mod cli;
pub mod clock;
pub mod config;
pub mod http;
pub mod placement;
pub mod run;
pub mod sync;
pub mod telemetry;
#[cfg(test)]
mod testing;
mod whole_file;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

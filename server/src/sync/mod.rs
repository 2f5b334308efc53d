//! The sync service: every connected device, and one lane for each tenant that has any.
//!
//! - [`session`]: one connection as a state machine.
//! - [`lane`]: group commits of a tenant.
//! - [`audience`]: who hears of which commit.
//! - [`pace`]: how much a tenant may push.
//! - [`update`]: a commit on its way to the sessions that it concerns.
//! - [`turns`]: whose turn it is to do large work.
//! - [`page`]: the store's rows as the wire's pages.
//! - [`connection`]: the task that drives one session over a socket.
//! - [`under_way`]: what that task has asked for and waits for.
//! - [`repair`]: finding the rows in which a device differs.
//! - [`service`]: what http hands authenticated sockets to.

mod audience;
mod connection;
mod lane;
mod pace;
mod page;
mod repair;
mod service;
mod session;
#[cfg(test)]
mod tests;
mod turns;
mod under_way;
mod update;

pub use connection::Socket;
pub use service::{SyncLimits, SyncService};

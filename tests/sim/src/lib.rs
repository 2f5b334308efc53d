//! The deterministic simulator: many devices, the server, their stores and the network in one thread under a seed.
//!
//! What runs is what ships: the SDK with its encrypted store and its driver, the server's application with its
//! sessions, lanes and authentication. Time is the paused clock of the runtime; network, the server's disk and every
//! clock are given to them. The same seed gives the same run, message by message.
//!
//! - [`plan`]: what happens, drawn from a seed before anything runs; [`shape`]: the data of a tenant.
//! - [`world`]: carries a plan out. [`device`], [`platform`], [`disk`], [`network`], [`sinks`], [`time`]: what it is
//!   made of.
//! - [`history`]: what apps did; [`oracles`]: what must hold, judged from that alone.
//! - [`causal`]: a workload of its own, on which causal consistency is judged.
//! - [`shrink`]: makes a failing plan smaller. [`campaign`]: many seeds.
//! - `bank` (a feature): how well the harness catches the bugs of the bug bank.
//! - [`resources`]: what runs have to give back.
//!
//! Everything random comes from `test_chance`.

#[cfg(feature = "bugs")]
pub mod bank;
pub mod campaign;
pub mod causal;
pub mod device;
pub mod disk;
pub mod history;
pub mod network;
pub mod oracles;
pub mod plan;
pub mod platform;
pub mod resources;
pub mod shape;
pub mod shrink;
pub mod sinks;
pub mod time;
pub mod world;

//! The harness of the system tests: it starts the real programs, cuts their wires, kills them, and looks.
//!
//! It builds nothing: `cargo xtask test` builds every program first.
//! Nothing here sleeps: whoever waits, waits for a condition and gives up at a deadline.
//!
//! - [`programs`]: where `farshore` and `farshore-replica` are.
//! - [`process`]: one process, ended by its own id at the latest when it is dropped.
//! - [`server`]: a `farshore` server on a directory of its own, and the operator's command line.
//! - [`replica`]: a `farshore-replica repl`, driven over its standard input and output.
//! - [`wire`]: a device that speaks the protocol frame by frame, well or badly.
//! - [`proxy`]: a wire between device and server that can be cut, stalled, slowed and counted.
//! - [`backstage`]: what happens to files while no program has them open.
//! - [`ledger`]: what programs that are killed must agree on.
//! - [`real_faults`]: kills, freezes and partitions of real programs, as many as there is time for.
//! - [`fleet`]: the schema that the tests use, and rows of it.
//! - [`deadline`]: waiting for a condition.
//! - [`seeds`]: chance that can be repeated.
#![expect(
    clippy::unwrap_used,
    reason = "a harness has nobody to report to: what it cannot do fails the test where it happens"
)]

pub mod backstage;
pub mod deadline;
pub mod fleet;
pub mod ledger;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod real_faults;
pub mod replica;
pub mod seeds;
pub mod server;
pub mod wire;

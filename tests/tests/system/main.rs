//! Black-box tests of Farshore: real programs, real sockets, real files.
//!
//! A module for each rule of the protocol (docs/protocol.md), then what crosses the rules: tenants that must not see
//! each other, programs that are killed, and input that is wrong.
#![expect(
    clippy::unwrap_used,
    reason = "the functions that the tests share fail the test in which they are called"
)]

mod backups;
mod bad_frames;
mod bad_replicas;
mod bad_server_starts;
mod convergence_under_faults;
mod first_steps;
mod killed_programs;
mod lagging_standby;
mod pace;
mod placement;
mod real_faults;
mod rule_01_one_round_trip;
mod rule_02_latest_state;
mod rule_03_exactly_once;
mod rule_04_refusals;
mod rule_05_downloads_do_not_wait;
mod rule_06_whole_transactions;
mod rule_07_horizon;
mod rule_08_epoch;
mod rule_09_digest;
mod rule_10_half_open;
mod rule_11_authority;
mod several_nodes;
mod tenant_isolation;

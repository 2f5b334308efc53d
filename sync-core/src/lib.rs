//! The rules of Farshore, without I/O: no clock, no randomness, no socket and no file.
//!
//! Server, SDK and simulator run the same code from here, which is why two devices converge.
//!
//! - [`ids`]: typed identities.
//! - [`hlc`]: the hybrid logical clock that orders conflicting writes.
//! - [`value`]: scalar values and their canonical encoding.
//! - [`schema`]: collections, columns, column groups and scope templates.
//! - [`mutation`]: what one transaction does to rows.
//! - [`row`]: the state of one row, how mutations apply to it and how two states merge.
//! - [`document`]: collaborative documents as hashed change chunks.
//! - [`digest`]: the keyed set hash by which two copies are compared.
//! - [`reason`]: why a mutation was refused.
//! - [`wire`]: the frames of the sync protocol and every cap on them.
//! - [`replica`]: the device's half of the protocol as a state machine.
//! - [`bugs`]: the bug bank, by which the simulator is measured; not in any release.

pub mod bugs;
pub mod digest;
pub mod document;
pub mod hlc;
pub mod ids;
pub mod mutation;
pub mod reason;
pub mod replica;
pub mod row;
pub mod schema;
pub mod value;
pub mod wire;

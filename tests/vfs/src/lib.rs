//! A file system under SQLite, for tests: the stores of the product open on it unchanged.
//!
//! [`install`] puts it in the place of SQLite's own, which it wraps. In folders that a [`Disk`] is attached to, each
//! write, truncation, sync and removal is recorded with its bytes, and the n-th call of a kind can be made to fail.
//! From the record a [`Replay`] makes the files as a power cut at any moment may leave them.
//!
//! - `shim`: the C functions, and all `unsafe` of the workspace.
//! - `disk`: what is recorded and what fails, for one folder.
//! - `replay`: from a record to crash images.
//!
//! Not recorded: the index of the write-ahead log, which is shared memory and is made anew after a crash, and files
//! that the product writes without SQLite.

mod disk;
mod replay;
mod shim;

pub use disk::{Call, Disk, Fault, How, Log, Name, Op, Repeat, Syncs};
pub use replay::{Crash, Image, Replay, SECTORS_BYTES};
pub use shim::{InstallError, install};

//! The real stores on a disk that loses, tears, reorders, refuses and flips.
//!
//! The device's encrypted store and the server's SQLite store run a workload on the file system of [`fault_vfs`], which
//! records what they write and sync. Three campaigns judge them:
//!
//! - [`crashes`]: the files as a power cut may leave them, at every write and every sync.
//! - [`errors`]: the n-th write, sync, truncation or read fails, once or until it is mended.
//! - [`flips`]: a bit of a file that lay still is another one.
//!
//! [`subject`] says what they need of a store; [`device`] (with [`hub`], the server it syncs with) and [`tenant`] are
//! the two stores, [`node`] is the second one with several tenants that share a journal; [`shape`] is the schema of
//! all; [`workload`] records a run.
//!
//! The oracle is what the store itself showed after each acknowledged step: a store that is opened again shows exactly
//! that, for the last acknowledged step or for the one that was under way. Sums are counted anew beside it, and after
//! each crash the store goes on: a device syncs until the server has all of its writes once, a server recognises a
//! resend.

pub mod crashes;
pub mod device;
pub mod errors;
pub mod flips;
pub mod hub;
pub mod node;
pub mod shape;
pub mod subject;
pub mod tenant;
pub mod workload;

/// A file system is the process's: every campaign needs it first.
///
/// # Panics
/// Where SQLite refuses it, so that nothing could be tested.
pub fn install() {
    fault_vfs::install().expect("SQLite takes a file system");
}

//! What the stories share. Each story is a program of its own in `src/bin`; read those first.
//!
//! - [`records`]: the rows of the data files, typed by the schema.
//! - [`trace`]: two people who type into one document, as it once happened.
//! - [`server`]: a real `farshore` process, and its command line as an operator uses it.
//! - [`device`]: a device of a story: the SDK with an encrypted store of its own.
//! - [`wire`]: the wire between a device and the server, which counts what goes through.
//! - [`telling`]: the lines and progress bars that a story shows.
//! - [`outcome`]: how a story ends early.
#![expect(
    clippy::disallowed_methods,
    reason = "a story measures its steps and waits for conditions with deadlines on the steady clock"
)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a story is told to whoever runs it"
)]

pub mod device;
pub mod outcome;
pub mod records;
pub mod server;
pub mod telling;
pub mod trace;
pub mod wire;

/// The schema of all stories, which is also that of `farshore dev`.
pub const SCHEMA: &str = include_str!("../schemas/flights.json");

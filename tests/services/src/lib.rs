//! The services that tests talk to, started from the system's packages on free ports in temporary directories.
//!
//! `cargo xtask test` starts one Postgres for all test programs; a program that runs by itself starts its own. Nothing
//! of it stays: a service ends with the process that started it, however that one ends.
//! It has no dependencies, since xtask is compiled before everything else.
//!
//! - [`packages`]: where the system keeps the programs.
//! - [`keeper`]: a service beside us.
//! - [`postgres`]: a Postgres server, and databases on it.
//! - [`nats`]: a bus.
//! - [`pgbouncer`]: a pooler in front of a database.

use std::fmt;

pub mod keeper;
pub mod nats;
pub mod packages;
pub mod pgbouncer;
pub mod postgres;

/// Why there is no service.
#[derive(Debug)]
pub enum ServiceError {
    /// Its programs are not installed.
    Missing,
    /// A program did not do what it should.
    Failed {
        /// What was being done.
        operation: &'static str,
        /// What went wrong.
        problem: String,
    },
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(packages::INSTALL_HINT),
            Self::Failed { operation, problem } => write!(f, "{operation}: {problem}"),
        }
    }
}

impl std::error::Error for ServiceError {}

//! The services that tests talk to, started from the system's packages on free ports in temporary directories.
//!
//! `cargo xtask test` starts one of each for all test programs; a program that runs by itself starts its own. Nothing
//! of it stays: a service ends with the process that started it, however that one ends.
//! It has no dependencies, since xtask is compiled before everything else.
//!
//! - [`packages`]: where the system keeps the programs.
//! - [`postgres`]: a Postgres server, and databases on it.

pub mod packages;
pub mod postgres;

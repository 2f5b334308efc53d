//! `test`: everything that must hold before a change is merged, the quick checks first.

use crate::failure::Failure;
use crate::{fences, preflight, process};

/// Runs every check and every test; the last lines on the screen are those of `cargo test`.
pub fn run() -> Result<(), Failure> {
    preflight::check(&[preflight::BUILD, preflight::CHECKS])?;

    eprintln!("xtask: formatting");
    process::run(process::cargo(["fmt", "--all", "--check"]))?;

    eprintln!("xtask: fences");
    fences::run()?;

    eprintln!("xtask: lints");
    process::run(process::cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;

    // The end-to-end tests start `farshore` and `farshore-replica`, which `cargo test` alone would
    // not build. With all targets the features are those of the tests, so nothing is built twice.
    eprintln!("xtask: programs and tests");
    process::run(process::cargo(["build", "--workspace", "--all-targets"]))?;
    process::run(process::cargo(["test", "--workspace", "--no-fail-fast"]))
}

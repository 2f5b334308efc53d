//! `test`: everything that must hold before a change is merged, the quick checks first.

use test_services::postgres::URL_VARIABLE;

use crate::failure::Failure;
use crate::{fences, preflight, process, services};

/// The variable that says which store the servers of the system tests have.
const STORE_VARIABLE: &str = "FARSHORE_TEST_STORE";

/// Runs every check and every test; the last lines on the screen are those of `cargo test`.
pub fn run() -> Result<(), Failure> {
    preflight::check(&[preflight::BUILD, preflight::CHECKS])?;
    let postgres = services::postgres()?;

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
    let mut tests = process::cargo(["test", "--workspace", "--no-fail-fast"]);
    tests.env(URL_VARIABLE, postgres.url());
    process::run(tests)?;

    // The same selection of packages as before, or their features and so all programs would be built anew.
    eprintln!("xtask: system tests on Postgres");
    let mut tests = process::cargo(["test", "--workspace", "--test", "system", "--no-fail-fast"]);
    tests.env(URL_VARIABLE, postgres.url()).env(STORE_VARIABLE, "postgres");
    process::run(tests)
}

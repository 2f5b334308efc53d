//! Where the programs are: beside the test executable, where one `cargo build` puts them all.

use std::path::PathBuf;

/// The server and its command line.
pub const SERVER: &str = "farshore";
/// The replica at the command line.
pub const REPLICA: &str = "farshore-replica";

/// The path of a program.
///
/// # Panics
/// Where it has not been built, with the command that builds it.
#[must_use]
pub fn path_of(program: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    // target/PROFILE/deps/system-HASH
    let profile = tests.parent().and_then(|deps| deps.parent()).unwrap();
    let path = profile.join(program).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        path.is_file(),
        "{} has not been built; run `cargo build --workspace --all-targets` first, or `cargo xtask test` for all",
        path.display()
    );
    path
}

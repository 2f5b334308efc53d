//! Where the programs are: beside the test executable or this program, where one `cargo build` puts them all.

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
    let this = std::env::current_exe().unwrap();
    // target/PROFILE/real-faults or target/PROFILE/deps/system-HASH
    let folders = this.ancestors().skip(1).take(2);
    let paths =
        folders.map(|folder| folder.join(program).with_extension(std::env::consts::EXE_EXTENSION));
    let path = paths.reduce(|beside, above| if beside.is_file() { beside } else { above }).unwrap();
    assert!(
        path.is_file(),
        "{} has not been built; run `cargo build --workspace --all-targets` first, or `cargo xtask test` for all",
        path.display()
    );
    path
}

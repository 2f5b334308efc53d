//! `demo`, `bench` and `sim`: build optimised, then run one program beside the ones that it starts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use crate::failure::Failure;
use crate::{preflight, process};

/// The programs that the quickstart and the benchmarks start: `farshore` and `farshore-replica`.
const STARTED: [&str; 2] = ["farshore-server", "farshore-replica"];

/// The profile in which the simulator is built.
pub const SIMULATOR: &str = "sim";

/// Builds and runs the quickstart.
pub fn demo(arguments: &[String]) -> Result<(), Failure> {
    build_and_run(&STARTED, "farshore-examples", "quickstart", Profile::Release, arguments)
}

/// Builds and runs the benchmarks.
pub fn bench(arguments: &[String]) -> Result<(), Failure> {
    build_and_run(&STARTED, "farshore-benches", "farshore-benches", Profile::Dist, arguments)
}

/// Builds and runs the simulator. It is built alone: it wants a clock of the runtime that can be paused, which has no
/// place in programs that ship. It is optimised, and keeps the assertions and overflow checks of a debug build.
///
/// With `--bugs` it holds the bug bank, which no release can.
pub fn sim(arguments: &[String]) -> Result<(), Failure> {
    preflight::check(&[preflight::BUILD])?;
    let mut command = process::cargo(["run", "--profile", SIMULATOR, "--package", "farshore-sim"]);
    if arguments.iter().any(|argument| argument == "--bugs") {
        command.args(["--features", "bugs"]);
    }
    command.arg("--").args(arguments);
    process::run(command)
}

/// All packages are built at once, so that they share their dependencies, and the program is started
/// directly: `cargo run` would build for its package alone, with other features, a second time.
/// It runs in the caller's folder, so that relative paths among its arguments mean what they say.
fn build_and_run(
    started: &[&str],
    package: &str,
    program: &str,
    profile: Profile,
    arguments: &[String],
) -> Result<(), Failure> {
    let packages: Vec<&str> = started.iter().copied().chain([package]).collect();
    let programs = build(&packages, profile)?;
    let mut command = programs.command(package, program)?;
    command.args(arguments);
    process::run(command)
}

/// How programs are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As they ship.
    Dist,
    /// Optimised, in less time than what ships.
    Release,
    /// As tests use them.
    Development,
}

/// Programs that were built, by name.
#[derive(Debug)]
pub struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// A command that starts one of them.
    pub fn command(&self, package: &str, program: &str) -> Result<Command, Failure> {
        let path = self.0.get(program).ok_or_else(|| Failure::NoProgram {
            package: package.to_owned(),
            program: program.to_owned(),
        })?;
        Ok(Command::new(path))
    }
}

/// Builds some packages at once.
pub fn build(packages: &[&str], profile: Profile) -> Result<Programs, Failure> {
    match profile {
        Profile::Dist => build_optimised(packages, "dist"),
        Profile::Release => build_optimised(packages, "release"),
        Profile::Development => build_as(packages, "dev"),
    }
}

fn build_optimised(packages: &[&str], profile: &str) -> Result<Programs, Failure> {
    eprintln!(
        "xtask: building, profile {profile}; the first time includes SQLCipher and takes minutes"
    );
    build_as(packages, profile)
}

/// Builds some packages at once, in a profile of cargo's.
pub fn build_as(packages: &[&str], profile: &str) -> Result<Programs, Failure> {
    preflight::check(&[preflight::BUILD])?;
    let mut build = process::cargo(["build", "--message-format=json-render-diagnostics"]);
    build.args(["--profile", profile]);
    for package in packages {
        build.args(["--package", package]);
    }
    Ok(Programs(programs(&process::output(build)?)?))
}

/// Name and path of each program among cargo's messages.
fn programs(messages: &str) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut programs = BTreeMap::new();
    // A line that does not begin with a brace is the output of a build script or of a macro.
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: serde_json::Value = serde_json::from_str(line).map_err(|error| {
            Failure::Malformed { what: "a message of cargo".to_owned(), problem: error.to_string() }
        })?;
        let name = message["target"]["name"].as_str();
        if let (Some(name), Some(path)) = (name, message["executable"].as_str()) {
            programs.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_the_messages_of_cargo() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"farshore_server"},"executable":null}
a line of a macro
{"reason":"compiler-artifact","target":{"name":"quickstart"},"executable":"/t/release/quickstart"}
{"reason":"build-finished","success":true}
"#;
        let found = programs(messages).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found["quickstart"], PathBuf::from("/t/release/quickstart"));
    }

    #[test]
    fn a_broken_message_is_an_error() {
        assert!(matches!(programs("{\"reason\":"), Err(Failure::Malformed { .. })));
    }
}

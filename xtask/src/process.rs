//! Starting cargo and other programs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;

/// The root of the workspace in which `cargo xtask` was called: where checkouts share a target directory, this program
/// may have been built in another one.
pub fn root() -> PathBuf {
    let here = setting("CARGO_MANIFEST_DIR");
    let here = here.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.parent().expect("xtask is a folder of the workspace").to_owned()
}

/// The cargo that runs us, at the root of the workspace.
pub fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(setting("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// A variable of the environment, where it is set and not empty.
#[expect(clippy::disallowed_methods, reason = "the one place of xtask that reads the environment")]
pub fn setting(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Runs a program to its end; it speaks to the user itself.
pub fn run(mut command: Command) -> Result<(), Failure> {
    let status = command.status();
    let command = described(&command);
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::Ended { command, code: status.code() }),
        Err(source) => Err(Failure::Start { command, source }),
    }
}

/// Runs a program to its end and returns what it printed; what it says on stderr reaches the user.
pub fn output(mut command: Command) -> Result<String, Failure> {
    let output = command.stderr(Stdio::inherit()).output();
    let command = described(&command);
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8(output.stdout).map_err(|error| Failure::Malformed {
                what: format!("the output of `{command}`"),
                problem: error.to_string(),
            })
        }
        Ok(output) => Err(Failure::Ended { command, code: output.status.code() }),
        Err(source) => Err(Failure::Start { command, source }),
    }
}

/// Runs a program to its end and returns what it printed, and whether it succeeded; what it says on stderr reaches the
/// user.
pub fn told(mut command: Command) -> Result<(String, bool), Failure> {
    let output = command.stderr(Stdio::inherit()).output();
    match output {
        Ok(output) => {
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            Ok((printed, output.status.success()))
        }
        Err(source) => Err(Failure::Start { command: described(&command), source }),
    }
}

/// Whether a program runs and succeeds; what it says reaches nobody.
pub fn succeeds(mut command: Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn described(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_described_as_one_would_type_it() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["fmt", "--check"]);
        assert_eq!(described(&command), "cargo fmt --check");
    }

    #[test]
    fn an_exit_code_is_kept_and_a_missing_program_is_named() {
        let failure = run(Command::new("false")).unwrap_err();
        assert!(matches!(failure, Failure::Ended { code: Some(1), .. }), "{failure:?}");
        let failure = run(Command::new("farshore-no-such-program")).unwrap_err();
        assert!(failure.to_string().starts_with("`farshore-no-such-program` did not start"));
    }
}

//! What the machine must have before anything is built, named in one message where it is missing.
//!
//! SQLCipher and OpenSSL are built from source with a C compiler, make and perl.
//! Their own messages come minutes into a build and deep inside a log.

use std::path::Path;
use std::process::Command;

use crate::failure::Failure;
use crate::process::{cargo, setting, succeeds};

/// A tool that the build or the checks start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The C compiler.
    Cc,
    /// make.
    Make,
    /// perl with the modules that OpenSSL's configuration loads, which some systems package apart.
    Perl,
    /// `cargo fmt`.
    Rustfmt,
    /// `cargo clippy`.
    Clippy,
}

/// What building needs.
pub const BUILD: &[Tool] = &[Tool::Cc, Tool::Make, Tool::Perl];
/// What the checks need besides.
pub const CHECKS: &[Tool] = &[Tool::Rustfmt, Tool::Clippy];

/// The modules of perl that OpenSSL's configuration and makefiles load.
const PERL_MODULES: [&str; 5] =
    ["-MFindBin", "-MIPC::Cmd", "-MFile::Compare", "-MFile::Copy", "-MPod::Usage"];

/// A program that installs packages, and the command for each thing that it may have to install.
#[derive(Debug, Clone, Copy)]
struct Manager {
    program: &'static str,
    cc_and_make: &'static str,
    perl: &'static str,
    both: &'static str,
}

const MANAGERS: [Manager; 6] = [
    Manager {
        program: "apt-get",
        cc_and_make: "sudo apt-get install -y build-essential",
        perl: "sudo apt-get install -y perl",
        both: "sudo apt-get install -y build-essential perl",
    },
    Manager {
        program: "dnf",
        cc_and_make: "sudo dnf install -y gcc make",
        perl: "sudo dnf install -y perl",
        both: "sudo dnf install -y gcc make perl",
    },
    Manager {
        program: "zypper",
        cc_and_make: "sudo zypper install -y gcc make",
        perl: "sudo zypper install -y perl",
        both: "sudo zypper install -y gcc make perl",
    },
    Manager {
        program: "pacman",
        cc_and_make: "sudo pacman -S --needed base-devel",
        perl: "sudo pacman -S --needed perl",
        both: "sudo pacman -S --needed base-devel perl",
    },
    Manager {
        program: "apk",
        cc_and_make: "sudo apk add build-base linux-headers",
        perl: "sudo apk add perl",
        both: "sudo apk add build-base linux-headers perl",
    },
    Manager {
        program: "brew",
        cc_and_make: "xcode-select --install",
        perl: "brew install perl",
        both: "xcode-select --install && brew install perl",
    },
];

/// Fails with one message about everything that is missing.
pub fn check(tools: &[&[Tool]]) -> Result<(), Failure> {
    let missing: Vec<Tool> = tools.concat().into_iter().filter(|tool| !is_there(*tool)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let found = MANAGERS.iter().find(|manager| on_path(manager.program));
    Err(Failure::Missing(message(&missing, found)))
}

fn is_there(tool: Tool) -> bool {
    match tool {
        Tool::Cc => match setting("CC") {
            Some(compiler) => compiler
                .to_str()
                .is_none_or(|line| line.split_whitespace().next().is_some_and(on_path)),
            None => on_path("cc"),
        },
        Tool::Make => on_path("make"),
        Tool::Perl => {
            let mut perl = Command::new("perl");
            perl.args(PERL_MODULES).args(["-e", "1"]);
            succeeds(perl)
        }
        Tool::Rustfmt => succeeds(cargo(["fmt", "--version"])),
        Tool::Clippy => succeeds(cargo(["clippy", "--version"])),
    }
}

fn on_path(program: &str) -> bool {
    if Path::new(program).is_absolute() {
        return Path::new(program).is_file();
    }
    let path = setting("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn message(missing: &[Tool], manager: Option<&Manager>) -> String {
    let names: Vec<&str> = missing.iter().map(|tool| name(*tool)).collect();
    let mut lines = vec![format!("this machine lacks {}. Install with:", names.join(", "))];
    match manager {
        Some(manager) => lines.extend(command(missing, manager).map(str::to_owned)),
        None => lines.extend(MANAGERS.iter().filter_map(|manager| {
            command(missing, manager).map(|command| format!("{command}  ({})", manager.program))
        })),
    }
    if missing.contains(&Tool::Rustfmt) || missing.contains(&Tool::Clippy) {
        lines.push("rustup component add rustfmt clippy".to_owned());
    }
    lines.join("\n    ")
}

fn name(tool: Tool) -> &'static str {
    match tool {
        Tool::Cc => "cc (a C compiler)",
        Tool::Make => "make",
        Tool::Perl => "perl (with its core modules)",
        Tool::Rustfmt => "rustfmt",
        Tool::Clippy => "clippy",
    }
}

fn command(missing: &[Tool], manager: &Manager) -> Option<&'static str> {
    let compiler = missing.contains(&Tool::Cc) || missing.contains(&Tool::Make);
    match (compiler, missing.contains(&Tool::Perl)) {
        (true, true) => Some(manager.both),
        (true, false) => Some(manager.cc_and_make),
        (false, true) => Some(manager.perl),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_stands_in_one_message_with_its_command() {
        let text = message(&[Tool::Make, Tool::Perl], MANAGERS.first());
        assert_eq!(
            text,
            "this machine lacks make, perl (with its core modules). Install with:\
             \n    sudo apt-get install -y build-essential perl"
        );
    }

    #[test]
    fn an_unknown_system_gets_the_commands_of_all_known_ones() {
        let text = message(&[Tool::Cc], None);
        for manager in &MANAGERS {
            assert!(text.contains(manager.cc_and_make), "{text}");
        }
        assert!(!text.contains("install -y perl"), "{text}");
    }

    #[test]
    fn missing_components_of_rust_come_from_rustup() {
        let text = message(&[Tool::Clippy], MANAGERS.first());
        assert!(text.ends_with("rustup component add rustfmt clippy"), "{text}");
        assert!(!text.contains("apt-get"), "{text}");
    }

    #[test]
    fn a_program_that_is_not_installed_is_not_found() {
        assert!(!on_path("farshore-no-such-program"));
    }
}

//! Why a command ended early, as the user reads it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::fences::Violation;

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// The arguments make no sense.
    Usage(String),
    /// The machine lacks tools; the text says which and how to install them.
    Missing(String),
    /// A service that the tests need did not start.
    Service(String),
    /// A program did not start.
    Start { command: String, source: io::Error },
    /// A program ended with a failure, which it has described itself.
    Ended { command: String, code: Option<i32> },
    /// A package was expected to build a program and did not.
    NoProgram { package: String, program: String },
    /// A file or folder could not be read.
    Read { path: PathBuf, source: io::Error },
    /// A file or an answer of cargo is not what it should be.
    Malformed { what: String, problem: String },
    /// A file could not be written.
    Write { path: PathBuf, source: io::Error },
    /// Trials of the proof sheet failed.
    Proof { failed: usize },
    /// Mutants live that the page does not list.
    Mutants { unlisted: u64, page: &'static str },
    /// Fences are broken.
    Fences(Vec<Violation>),
}

impl Failure {
    /// The exit code of a program that failed is handed on, so that scripts may tell failures apart.
    pub fn exit_code(&self) -> ExitCode {
        const FAILED: u8 = 1;
        const USAGE: u8 = 2;
        match self {
            Self::Usage(_) => USAGE.into(),
            Self::Ended { code: Some(code), .. } => u8::try_from(*code).unwrap_or(FAILED).into(),
            _ => FAILED.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(problem) => write!(f, "{problem}; see `cargo xtask help`"),
            Self::Missing(message) | Self::Service(message) => f.write_str(message),
            Self::Start { command, source } => write!(f, "`{command}` did not start: {source}"),
            Self::Ended { command, code: Some(code) } => {
                write!(f, "`{command}` failed (exit code {code})")
            }
            Self::Ended { command, code: None } => write!(f, "`{command}` was ended by a signal"),
            Self::NoProgram { package, program } => {
                write!(f, "the package {package} has no program named {program}")
            }
            Self::Read { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Write { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Proof { failed } => write!(f, "{failed} row(s) of the proof sheet failed"),
            Self::Mutants { unlisted, page } => {
                write!(
                    f,
                    "{unlisted} mutant(s) that {page} does not list live: add a test, or list them there"
                )
            }
            Self::Malformed { what, problem } => write!(f, "{what}: {problem}"),
            Self::Fences(violations) => {
                write!(f, "{} broken fence(s)", violations.len())?;
                violations.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
            }
        }
    }
}

//! What can be wrong with a configuration: always one line that says where, which key, and what is expected.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It is the default.
    Default,
    /// In a file.
    File(PathBuf),
    /// In an environment variable.
    Environment(String),
    /// By an option of the command line.
    Option(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the defaults"),
            Self::File(path) => path.display().fmt(f),
            Self::Environment(name) => f.write_str(name),
            Self::Option(name) => f.write_str(name),
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// There is no such key.
    #[error("{origin}: {key}: there is no such key; `farshore config` prints them all")]
    UnknownKey {
        /// Where it was set.
        origin: Origin,
        /// The key, with its section.
        key: String,
    },
    /// The value is not what the key takes.
    #[error("{origin}: {key}: expected {expected}, found {found}")]
    Invalid {
        /// Where it was set.
        origin: Origin,
        /// The key, with its section.
        key: String,
        /// What the key takes.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The value, which may hold a password, is not what the key takes.
    #[error("{origin}: {key}: {problem}")]
    InvalidSecret {
        /// Where it was set.
        origin: Origin,
        /// The key, with its section.
        key: String,
        /// What is wrong with it, without the value.
        problem: String,
    },
}

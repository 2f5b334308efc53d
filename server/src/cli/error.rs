//! What goes to stderr: one line that says what and where.

use std::io;
use std::path::PathBuf;

use farshore_api::problem::Problem;
use farshore_sync_core::ids::TenantId;

use crate::auth::KeyError;
use crate::auth::operator_key::OperatorKeyError;
use crate::config::ConfigError;
use crate::run::StartError;
use crate::run::data_dir::DataDirError;
use crate::run::master_key::MasterKeyError;
use crate::run::server_file::ServerFileError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is no master key, or it cannot be read.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The operators' key cannot be used.
    #[error(transparent)]
    OperatorKey(#[from] OperatorKeyError),
    /// No operator token could be signed.
    #[error(transparent)]
    Sign(#[from] KeyError),
    /// The server did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The process has no threads or no signals.
    #[error("the process could not be set up: {0}")]
    Runtime(io::Error),
    /// The file that leads to the server cannot be read.
    #[error(transparent)]
    ServerFile(#[from] ServerFileError),
    /// Nobody says where the server is.
    #[error(
        "no server is running on {}; start one with `farshore serve` or `farshore dev`, or name it with --url",
        data_dir.display()
    )]
    NoServer {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The server does not answer.
    #[error("no server answers at {url}: {cause}")]
    NoAnswer {
        /// Where it was looked for.
        url: String,
        /// What the network said.
        cause: String,
    },
    /// The server answered what this build does not understand.
    #[error("the server at {url} answered something else than expected (status {status})")]
    Unexpected {
        /// The server.
        url: String,
        /// The status of its answer.
        status: u16,
    },
    /// The server said no.
    #[error("{} ({})", .0.detail, .0.code.as_str())]
    Refused(Box<Problem>),
    /// The name was not given twice.
    #[error("to erase {tenant}, name it again with --confirm {tenant}")]
    NotConfirmed {
        /// The tenant.
        tenant: TenantId,
    },
    /// Two tenants were named.
    #[error(
        "to put the file in the place of {tenant}, name it again with --replace {tenant}, not {named}"
    )]
    OtherTenantNamed {
        /// The tenant.
        tenant: TenantId,
        /// The other one.
        named: TenantId,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody takes what is printed.
    #[error("stdout: {0}")]
    Output(io::Error),
    /// A check of the server's data found something.
    #[error(
        "{buckets} sums differ from their rows: something was altered behind the server's back"
    )]
    Altered {
        /// How many.
        buckets: usize,
    },
}

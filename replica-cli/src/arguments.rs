//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

/// A replica at the command line: reads and writes a local encrypted store, and syncs it.
#[derive(Debug, Parser)]
#[command(name = "farshore-replica", version, about)]
pub(crate) struct Arguments {
    /// The directory of the replica
    #[arg(
        long,
        global = true,
        env = "FARSHORE_REPLICA_DIR",
        default_value = ".",
        value_name = "DIR"
    )]
    pub(crate) dir: PathBuf,
    /// The user, where the directory has several
    #[arg(long, global = true, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a replica, or change the settings of one
    Init(Init),
    /// Write columns of a row, and create it where it does not exist
    Put {
        /// The collection
        collection: String,
        /// The columns as a JSON object; - reads it from stdin
        columns: String,
        /// The row; a new one where left out
        #[arg(long, value_name = "ROW")]
        id: Option<String>,
    },
    /// Show one row
    Get {
        /// The collection
        collection: String,
        /// The row
        row: String,
    },
    /// Run a SELECT
    Query {
        /// The SQL
        sql: String,
        /// The parameters, each as JSON; what is no JSON is text
        args: Vec<String>,
    },
    /// Show where the replica stands
    Status,
    /// Show what has not synced yet
    Outbox {
        /// At most so many transactions
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
    },
    /// Show what the server refused, or do something about it
    Quarantine {
        #[command(subcommand)]
        action: Option<QuarantineAction>,
    },
    /// Connect, send and take in everything, and stop
    Sync {
        /// At most so many seconds
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        timeout: u64,
    },
    /// Run a SELECT again whenever its result changes, until interrupted
    Watch {
        /// The SQL
        sql: String,
        /// The parameters, each as JSON; what is no JSON is text
        args: Vec<String>,
        /// Only watch what this process writes, without connecting
        #[arg(long)]
        offline: bool,
    },
    /// Read one JSON command a line from stdin and answer each with one JSON line
    Repl,
}

/// What to do with a quarantined transaction.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum QuarantineAction {
    /// Write it again, on the rows as they are now
    Resubmit {
        /// Its number in the quarantine
        id: u64,
    },
    /// Give it up
    Discard {
        /// Its number in the quarantine
        id: u64,
    },
}

/// The settings of a replica. What is left out keeps its value where the replica exists.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The schema file
    #[arg(long, value_name = "FILE")]
    pub(crate) schema: Option<PathBuf>,
    /// The server, such as https://sync.example.com; without one the replica stays offline
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// The access token; kept in a file that only its owner can read
    #[arg(long, value_name = "TOKEN", env = "FARSHORE_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// A file with the access token, read again whenever one is needed
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
    /// The device id, where no token says it
    #[arg(long, value_name = "ID")]
    pub(crate) device: Option<String>,
    /// The tenant, where no token says it
    #[arg(long, value_name = "TENANT")]
    pub(crate) tenant: Option<String>,
    /// Where the key of the database is kept
    #[arg(long, value_enum, value_name = "VAULT")]
    pub(crate) vault: Option<Vault>,
    /// The directory of the sealed-file vault [default: DIR/vault]
    #[arg(long, value_name = "DIR")]
    pub(crate) vault_dir: Option<PathBuf>,
    /// The only root certificate to trust, in PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) root_certificate: Option<PathBuf>,
}

/// Where the key of the database is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Vault {
    /// A file that only its owner can read
    #[default]
    SealedFile,
    /// The keychain of the operating system
    OsKeychain,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_make_sense() {
        Arguments::command().debug_assert();
    }
}

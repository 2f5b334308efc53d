//! The command line `farshore`.
//!
//! `serve` and `dev` run a server. Everything else talks to a running one over HTTP, with an operator token that it
//! mints itself: who can read the data directory and the master key is the operator.
//!
//! - [`serve`]: `farshore serve` and `farshore dev`.
//! - [`tenants`], [`tokens`], [`schemas`], [`devices`], [`keys`], [`integrity`]: one file per resource.
//! - [`archives`]: backups, which are commands of a tenant.
//! - [`clusters`]: clusters of databases, and moves between them.
//! - [`operator`]: which server to talk to, and as whom.
//! - [`client`]: HTTP; the only place that names reqwest.
//! - [`duration`]: `30d` and the like.
//! - [`output`]: what goes to stdout.
//! - [`progress`]: how far something long has come.
//! - [`error`]: what goes to stderr: one line.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::settings::DEFAULTS;

mod archives;
mod client;
mod clusters;
mod devices;
mod duration;
mod error;
mod integrity;
mod keys;
mod operator;
mod output;
mod progress;
mod schemas;
mod serve;
mod tenants;
mod tokens;

use error::CliError;

/// The edge sync server of Farshore.
#[derive(Debug, Parser)]
#[command(name = "farshore", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server.
    Serve(serve::ServeArgs),
    /// Run a server for trying things out: makes its own keys, has the tenant `demo`, and says what to do next.
    Dev(serve::DevArgs),
    /// Print the default configuration, with a comment on each key.
    Config,
    /// Create, list, back up, restore, move and erase tenants.
    #[command(subcommand)]
    Tenant(tenants::TenantCommand),
    /// Add, list and remove clusters of Postgres databases, in which tenants may be instead of at home.
    #[command(subcommand)]
    Cluster(clusters::ClusterCommand),
    /// Sign a token with which a device syncs, and make the device known. Prints the token alone.
    Token(tokens::TokenArgs),
    /// Apply and show the schema of a tenant.
    #[command(subcommand)]
    Schema(schemas::SchemaCommand),
    /// List the devices of a tenant, suspend and resume them, and set what they may do.
    #[command(subcommand)]
    Device(devices::DeviceCommand),
    /// List and rotate the keys with which a tenant signs tokens.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Print the sums of a tenant's rows, to compare with those of a device.
    Digest(integrity::DigestArgs),
    /// Recompute a tenant's sums from its rows; fails where something was altered behind the server's back.
    Scrub(integrity::ScrubArgs),
}

/// Runs the command that the process was given.
pub fn main() -> ExitCode {
    let result = run(Cli::parse().command);
    let Err(error) = result else { return ExitCode::SUCCESS };
    // Where nobody reads stderr either, the exit code has to do.
    let _ = writeln!(std::io::stderr(), "farshore: {error}");
    ExitCode::FAILURE
}

fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Serve(args) => serve::serve(args),
        Command::Dev(args) => serve::dev(args),
        Command::Config => output::text(DEFAULTS),
        Command::Tenant(command) => talk(tenants::run(command)),
        Command::Cluster(command) => talk(clusters::run(command)),
        Command::Token(args) => talk(tokens::mint(args)),
        Command::Schema(command) => talk(schemas::run(command)),
        Command::Device(command) => talk(devices::run(command)),
        Command::Keys(command) => talk(keys::run(command)),
        Command::Digest(args) => talk(integrity::digest(args)),
        Command::Scrub(args) => talk(integrity::scrub(args)),
    }
}

/// Runs a command that talks to a server.
fn talk(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(CliError::Runtime)?.block_on(command)
}

#[cfg(test)]
mod tests;

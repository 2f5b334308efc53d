//! One module for each command.

mod init;
mod quarantine;
mod query;
mod rows;
mod sync;
mod watch;

use std::process::ExitCode;

use serde_json::json;

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;
use crate::output::Output;
use crate::{json, repl, session};

/// Does what the command line says.
pub(crate) fn run(arguments: Arguments, output: &Output) -> Result<ExitCode, Failure> {
    let (dir, user) = (arguments.dir, arguments.user);
    if let Command::Init(settings) = arguments.command {
        return init::run(&dir, user.as_deref(), settings, *output);
    }
    let client = session::open(&dir, user.as_deref())?;
    match arguments.command {
        Command::Init(_) => {}
        Command::Put { collection, columns, id } => {
            rows::put(&client, &collection, &columns, id, *output)?;
        }
        Command::Get { collection, row } => rows::get(&client, &collection, &row, *output)?,
        Command::Query { sql, args } => query::run(&client, &sql, &args, *output)?,
        Command::Status => {
            let report = json::status(&client, &client.status());
            output.say(&report, || pretty(&report));
        }
        Command::Outbox { limit } => {
            let report = json::outbox(&client.outbox(limit)?);
            output.say(&report, || pretty(&report));
        }
        Command::Quarantine { action } => quarantine::run(&client, action, *output)?,
        Command::Sync { timeout } => return sync::run(&client, timeout, *output),
        Command::Watch { sql, args, offline } => {
            watch::run(&client, &sql, &args, offline, *output)?;
        }
        Command::Repl => repl::run(&client)?,
    }
    client.close()?;
    Ok(ExitCode::SUCCESS)
}

/// Something for people that has no better form.
fn pretty(report: &serde_json::Value) -> String {
    serde_json::to_string_pretty(report)
        .unwrap_or_else(|error| json!(error.to_string()).to_string())
}

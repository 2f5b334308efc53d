//! `farshore schema apply|show`

use std::fs;
use std::path::PathBuf;

use clap::Subcommand;
use farshore_api::schemas::SchemaApplied;
use farshore_sync_core::ids::TenantId;

use super::error::CliError;
use super::operator::OperatorArgs;
use super::output;

#[derive(Debug, Subcommand)]
pub enum SchemaCommand {
    /// Register a schema. A new version may only add to the one before.
    Apply {
        /// The tenant
        #[arg(long)]
        tenant: TenantId,
        /// The schema, JSON
        file: PathBuf,
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Print the newest version, JSON.
    Show {
        /// The tenant
        #[arg(long)]
        tenant: TenantId,
        #[command(flatten)]
        operator: OperatorArgs,
    },
}

pub async fn run(command: SchemaCommand) -> Result<(), CliError> {
    match command {
        SchemaCommand::Apply { tenant, file, operator } => {
            let text = fs::read_to_string(&file)
                .map_err(|source| CliError::File { path: file, source })?;
            let path = format!("/tenants/{tenant}/schema");
            let applied: SchemaApplied = operator.client()?.put_file(&path, text).await?;
            output::line(format_args!("{tenant} has {} version {}", applied.name, applied.version))
        }
        SchemaCommand::Show { tenant, operator } => {
            let schema: serde_json::Value =
                operator.client()?.get(&format!("/tenants/{tenant}/schema")).await?;
            output::json(&schema)
        }
    }
}

//! `farshore tenant create|list|backup|restore|new-epoch|move|where|erase`

use clap::Subcommand;
use farshore_api::tenants::{CreateTenant, Tenant, TenantList};
use farshore_sync_core::ids::TenantId;
use reqwest::Method;

use super::archives::{self, BackupArgs, NewEpochArgs, RestoreArgs};
use super::clusters::{self, MoveArgs, WhereArgs};
use super::error::CliError;
use super::keys::Algorithm;
use super::operator::OperatorArgs;
use super::output;

#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Create a tenant with a signing key of its own.
    Create {
        /// Its slug: 3 to 40 of a-z, 0-9 and '-'
        tenant: TenantId,
        /// How it signs tokens
        #[arg(long, value_enum, default_value_t = Algorithm::Rs256)]
        algorithm: Algorithm,
        /// The cluster in which it is to be; without one it is at home
        #[arg(long, value_name = "CLUSTER")]
        cluster: Option<String>,
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// List the tenants.
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        operator: OperatorArgs,
    },
    Backup(BackupArgs),
    Restore(RestoreArgs),
    NewEpoch(NewEpochArgs),
    Move(MoveArgs),
    Where(WhereArgs),
    /// Destroy a tenant's key and its data. Its name is not given again; its archives have to be deleted by themselves.
    Erase {
        /// Its slug
        tenant: TenantId,
        /// Its slug again, to be sure
        #[arg(long, value_name = "TENANT")]
        confirm: TenantId,
        #[command(flatten)]
        operator: OperatorArgs,
    },
}

pub async fn run(command: TenantCommand) -> Result<(), CliError> {
    match command {
        TenantCommand::Create { tenant, algorithm, cluster, operator } => {
            let request = CreateTenant { tenant, algorithm: algorithm.into(), cluster };
            let created: Tenant =
                operator.client()?.send(Method::POST, "/tenants", &request).await?;
            output::line(format_args!("created {} (issuer {})", created.tenant, created.issuer))
        }
        TenantCommand::List { json, operator } => {
            let list: TenantList = operator.client()?.get("/tenants").await?;
            if json {
                return output::json(&list);
            }
            list.tenants.iter().try_for_each(|tenant| output::line(&tenant.tenant))
        }
        TenantCommand::Backup(args) => archives::backup(args).await,
        TenantCommand::Restore(args) => archives::restore(args).await,
        TenantCommand::Move(args) => clusters::carry(args).await,
        TenantCommand::Where(args) => clusters::show(args).await,
        TenantCommand::NewEpoch(args) => archives::new_epoch(args).await,
        TenantCommand::Erase { tenant, confirm, operator } => {
            if tenant != confirm {
                return Err(CliError::NotConfirmed { tenant });
            }
            operator.client()?.delete(&format!("/tenants/{tenant}")).await?;
            output::line(format_args!("erased {tenant}"))
        }
    }
}

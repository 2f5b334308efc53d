//! `farshore digest` and `farshore scrub`

use clap::Args;
use farshore_api::integrity::{Digest, DigestRequest, Scrubbed};
use farshore_sync_core::ids::{Scope, TenantId};
use reqwest::Method;

use super::error::CliError;
use super::operator::OperatorArgs;
use super::output;

/// Print the sums of a tenant's rows.
#[derive(Debug, Args)]
pub struct DigestArgs {
    /// The tenant
    #[arg(long)]
    tenant: TenantId,
    /// A scope. May be given several times
    #[arg(long = "scope", value_name = "SCOPE", default_value = "tenant")]
    scopes: Vec<Scope>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Recompute a tenant's sums.
#[derive(Debug, Args)]
pub struct ScrubArgs {
    /// The tenant
    #[arg(long)]
    tenant: TenantId,
    #[command(flatten)]
    operator: OperatorArgs,
}

pub async fn digest(args: DigestArgs) -> Result<(), CliError> {
    let DigestArgs { tenant, scopes, json, operator } = args;
    let path = format!("/tenants/{tenant}/digest");
    let digest: Digest =
        operator.client()?.send(Method::POST, &path, &DigestRequest { scopes }).await?;
    if json {
        return output::json(&digest);
    }
    output::line(format_args!(
        "seq {} horizon {} epoch {}",
        digest.seq, digest.horizon, digest.epoch
    ))?;
    let rows: Vec<_> = digest
        .sums
        .iter()
        .map(|sum| [sum.scope.to_string(), sum.collection.to_string(), sum.sum.clone()])
        .collect();
    output::table(["SCOPE", "COLLECTION", "SUM"], &rows)
}

pub async fn scrub(args: ScrubArgs) -> Result<(), CliError> {
    let ScrubArgs { tenant, operator } = args;
    let path = format!("/tenants/{tenant}/scrub");
    let scrubbed: Scrubbed = operator.client()?.send(Method::POST, &path, &()).await?;
    for bucket in &scrubbed.altered {
        output::line(format_args!(
            "{} {} bucket {}",
            bucket.scope, bucket.collection, bucket.bucket
        ))?;
    }
    match scrubbed.altered.len() {
        0 => output::line(format_args!("{tenant}: every sum matches its rows")),
        buckets => Err(CliError::Altered { buckets }),
    }
}

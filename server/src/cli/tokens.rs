//! `farshore token`

use clap::Args;
use farshore_api::grant::parse_grant;
use farshore_api::tokens::{MintToken, MintedToken};
use farshore_sync_core::ids::{DeviceId, TenantId, UserId};
use farshore_sync_core::wire::Grant;
use reqwest::Method;

use super::duration::Seconds;
use super::error::CliError;
use super::operator::OperatorArgs;
use super::output;

/// Most tokens that one command signs.
const MAX_TOKENS: u16 = 10_000;

/// Sign a token.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// The tenant
    #[arg(long)]
    tenant: TenantId,
    /// The device; a new one by default
    #[arg(long, value_name = "UUID")]
    device: Option<DeviceId>,
    /// The device's user; by default the one that it has, or a new one
    #[arg(long, value_name = "UUID")]
    user: Option<UserId>,
    /// What people call the device
    #[arg(long)]
    name: Option<String>,
    /// What the token is good for; `:rw` to write as well. May be given several times
    #[arg(long = "scope", value_name = "SCOPE[:rw]", value_parser = parse_grant, required = true)]
    scopes: Vec<Grant>,
    /// So many tokens, each for a new device, one a line
    #[arg(
        long,
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_TOKENS)),
        conflicts_with_all = ["device", "json"],
    )]
    count: u16,
    /// How long it is valid, such as 90s, 15m, 12h or 30d; the server's default otherwise
    #[arg(long, value_name = "SPAN")]
    expires_in: Option<Seconds>,
    /// Print JSON: the token, its device and user, and when it expires
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    operator: OperatorArgs,
}

pub async fn mint(args: TokenArgs) -> Result<(), CliError> {
    let TokenArgs { tenant, device, user, name, scopes, count, expires_in, json, operator } = args;
    let expires_in_s = expires_in.map(|span| span.0);
    let request = MintToken { device, user, name, grants: scopes, expires_in_s };
    let path = format!("/tenants/{tenant}/tokens");
    let client = operator.client()?;
    for _ in 0..count {
        let minted: MintedToken = client.send(Method::POST, &path, &request).await?;
        if json { output::json(&minted)? } else { output::line(minted.token)? }
    }
    Ok(())
}

//! `farshore device list|suspend|resume|grant`

use clap::{Args, Subcommand};
use farshore_api::devices::{Device, DeviceList, SetGrants};
use farshore_api::grant::{grant_text, parse_grant};
use farshore_sync_core::ids::{DeviceId, TenantId};
use farshore_sync_core::wire::Grant;
use reqwest::Method;

use super::client::Client;
use super::error::CliError;
use super::operator::OperatorArgs;
use super::output;

#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// List the devices.
    List {
        /// The tenant
        #[arg(long)]
        tenant: TenantId,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Take a device out of service: its connection ends, and no token lets it in.
    Suspend(DeviceArgs),
    /// Put a device back into service.
    Resume(DeviceArgs),
    /// Set what a device may read and write; scopes that are not named are taken from it.
    Grant {
        /// A scope; `:rw` to write as well. May be given several times; none takes everything
        #[arg(long = "scope", value_name = "SCOPE[:rw]", value_parser = parse_grant)]
        scopes: Vec<Grant>,
        #[command(flatten)]
        device: DeviceArgs,
    },
}

/// Which device.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// The tenant
    #[arg(long)]
    tenant: TenantId,
    /// The device
    device: DeviceId,
    #[command(flatten)]
    operator: OperatorArgs,
}

pub async fn run(command: DeviceCommand) -> Result<(), CliError> {
    match command {
        DeviceCommand::List { tenant, json, operator } => {
            list(&operator.client()?, &tenant, json).await
        }
        DeviceCommand::Suspend(device) => change(device, Method::POST, "suspend", &()).await,
        DeviceCommand::Resume(device) => change(device, Method::POST, "resume", &()).await,
        DeviceCommand::Grant { device, scopes } => {
            change(device, Method::PUT, "grants", &SetGrants { grants: scopes }).await
        }
    }
}

async fn list(client: &Client, tenant: &TenantId, json: bool) -> Result<(), CliError> {
    let mut devices = Vec::new();
    let mut query = String::new();
    loop {
        let page: DeviceList = client.get(&format!("/tenants/{tenant}/devices{query}")).await?;
        devices.extend(page.devices);
        let Some(next) = page.next else { break };
        query = format!("?after={next}");
    }
    if json {
        return output::json(&devices);
    }
    let rows: Vec<_> = devices.iter().map(row).collect();
    output::table(["DEVICE", "USER", "STATE", "NAME", "SCOPES"], &rows)
}

async fn change(
    args: DeviceArgs,
    method: Method,
    what: &str,
    body: &impl serde::Serialize,
) -> Result<(), CliError> {
    let DeviceArgs { tenant, device, operator } = args;
    let path = format!("/tenants/{tenant}/devices/{device}/{what}");
    let device: Device = operator.client()?.send(method, &path, body).await?;
    output::table(["DEVICE", "USER", "STATE", "NAME", "SCOPES"], &[row(&device)])
}

fn row(device: &Device) -> [String; 5] {
    let state = if device.suspended { "suspended" } else { "active" };
    let scopes: Vec<_> = device.grants.iter().map(grant_text).collect();
    let Device { id, user, name, .. } = device;
    [id.to_string(), user.to_string(), state.to_owned(), name.clone(), scopes.join(" ")]
}

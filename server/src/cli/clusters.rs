//! `farshore cluster add|list|remove`, and `farshore tenant move|where`

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use farshore_api::clusters::{
    AddCluster, Cluster, ClusterList, MoveTenant, MovedTenant, TenantPlacement,
};
use farshore_sync_core::ids::TenantId;
use reqwest::Method;

use super::client::Client;
use super::error::CliError;
use super::operator::OperatorArgs;
use super::output;

/// Longest URL that is read, in bytes.
const MAX_URL_BYTES: u64 = 8 << 10;
/// Time between two looks at how far a move has come.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Add a cluster of Postgres databases, or change how it is reached. It must have the role that `docs/server.md`
    /// describes; its tables are made.
    Add {
        /// Its name: 1 to 40 of a-z, 0-9 and '-'
        name: String,
        /// The file with its URL; without it the URL is read from stdin, since others can see the command line
        #[arg(long, value_name = "FILE")]
        url_file: Option<PathBuf>,
        /// Most connections of one node to it
        #[arg(long, default_value_t = 32)]
        max_connections: u32,
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// List the clusters.
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Forget a cluster in which no tenant is. Its database stays.
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        operator: OperatorArgs,
    },
}

/// Move a tenant to another database. It takes no writes until it is there; devices keep theirs, and go on with the same
/// cursor. A move that was interrupted goes on with the next start of the server, or with the same command.
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// The tenant
    tenant: TenantId,
    /// `home`, or the name of a cluster. Where the tenant is: takes an unfinished move back
    #[arg(long, value_name = "PLACE")]
    to: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Say in which database a tenant is, and where it is being moved to.
#[derive(Debug, Args)]
pub struct WhereArgs {
    /// The tenant
    tenant: TenantId,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    operator: OperatorArgs,
}

pub async fn run(command: ClusterCommand) -> Result<(), CliError> {
    match command {
        ClusterCommand::Add { name, url_file, max_connections, operator } => {
            let client = operator.client()?;
            let url = read_url(url_file)?;
            let request = AddCluster { name, url, max_connections };
            let added: Cluster = client.send(Method::POST, "/clusters", &request).await?;
            let at = added.url.unwrap_or_default();
            output::line(format_args!("added {} ({at})", added.name))
        }
        ClusterCommand::List { json, operator } => {
            let list: ClusterList = operator.client()?.get("/clusters").await?;
            if json {
                return output::json(&list);
            }
            let unreadable = || "(sealed under another master key)".to_owned();
            let rows: Vec<_> = list
                .clusters
                .into_iter()
                .map(|cluster| {
                    let url = cluster.url.unwrap_or_else(unreadable);
                    [cluster.name, cluster.max_connections.to_string(), url]
                })
                .collect();
            output::table(["NAME", "CONNECTIONS", "URL"], &rows)
        }
        ClusterCommand::Remove { name, operator } => {
            operator.client()?.delete(&format!("/clusters/{name}")).await?;
            output::line(format_args!("removed {name}"))
        }
    }
}

pub async fn carry(args: MoveArgs) -> Result<(), CliError> {
    let MoveArgs { tenant, to, json, operator } = args;
    let client = operator.client()?;
    let path = format!("/tenants/{tenant}/move");
    let request = MoveTenant { to };
    let moving = client.send_long::<MovedTenant>(Method::POST, &path, &request);
    let moved = tokio::select! {
        moved = moving => moved?,
        () = watch(&client, &tenant) => unreachable!("nobody stops watching"),
    };
    if json {
        return output::json(&moved);
    }
    let MovedTenant { from, to, rows, frozen_ms } = moved;
    if from == to {
        return output::line(format_args!("{tenant} stays in {to}"));
    }
    output::line(format_args!(
        "moved {tenant} from {from} to {to}: {rows} rows, no writes for {frozen_ms} ms"
    ))
}

/// Shows how far a move has come, for as long as somebody looks on.
async fn watch(client: &Client, tenant: &TenantId) {
    let is_seen = io::stderr().is_terminal();
    loop {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        let path = format!("/tenants/{tenant}/placement");
        if let (true, Ok(placement)) = (is_seen, client.get::<TenantPlacement>(&path).await)
            && let Some(phase) = placement.phase
        {
            // Where nobody reads stderr any more there is nobody to tell.
            let _ = write!(io::stderr(), "\r\x1b[K{phase}: {} records", placement.records);
            let _ = io::stderr().flush();
        }
    }
}

pub async fn show(args: WhereArgs) -> Result<(), CliError> {
    let WhereArgs { tenant, json, operator } = args;
    let path = format!("/tenants/{tenant}/placement");
    let placement: TenantPlacement = operator.client()?.get(&path).await?;
    if json {
        return output::json(&placement);
    }
    let TenantPlacement { at, moving_to, phase, records, .. } = placement;
    match (moving_to, phase) {
        (None, _) => output::line(at),
        (Some(to), None) => output::line(format_args!("{at}, on its way to {to}")),
        (Some(to), Some(phase)) => {
            output::line(format_args!("{at}, on its way to {to} ({phase}: {records} records)"))
        }
    }
}

fn read_url(file: Option<PathBuf>) -> Result<String, CliError> {
    let mut url = String::new();
    match file {
        Some(path) => {
            let failed = |source| CliError::File { path: path.clone(), source };
            let file = std::fs::File::open(&path).map_err(failed)?;
            file.take(MAX_URL_BYTES).read_to_string(&mut url).map_err(failed)?;
        }
        None => {
            if io::stdin().is_terminal() {
                output::line(
                    "URL, such as postgres://farshore:PASSWORD@db.example.com/farshore, and Ctrl-D:",
                )?;
            }
            let failed = |source| CliError::File { path: PathBuf::from("stdin"), source };
            io::stdin().lock().take(MAX_URL_BYTES).read_to_string(&mut url).map_err(failed)?;
        }
    }
    Ok(url.trim().to_owned())
}

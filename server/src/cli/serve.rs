//! `farshore serve` and `farshore dev`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use clap::Args;
use farshore_store::sealing::MasterKey;
use tokio::runtime::Runtime;

use super::error::CliError;
use super::output;
use crate::app::demo::DEMO_TENANT;
use crate::clock::SystemClock;
use crate::config::{Config, Settings, environment};
use crate::run::data_dir::DataDir;
use crate::run::{Preparation, Server, master_key, signals};
use crate::telemetry::log;

/// How long the end of a server waits for calls of the store that are under way, once everything is drained.
const STORE_END_TIMEOUT: Duration = Duration::from_secs(10);

/// After so many tasks, a thread that has always one to run looks for what came on sockets. Tasks of devices that push
/// much may take a millisecond each.
const TASKS_BETWEEN_LOOKS: u32 = 8;

/// Run a server.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The configuration file, TOML; `farshore config` prints one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory comes from a backup: begin a new epoch, so that devices offer again what the backup lacks
    #[arg(long)]
    restored_from_backup: bool,
}

/// Run a server for trying things out.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where everything is kept, keys included
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// The address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// A configuration file, TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub fn serve(args: ServeArgs) -> Result<(), CliError> {
    let variables = environment::variables();
    let config = Config::load(args.config.as_deref(), variables.iter().cloned())?;
    log::install(&config.log);
    let data_dir = DataDir::lock(&config.store.data_dir)?;
    let master_key = master_key::find(&config.store, &variables)?;
    if master_key::is_beside_data(&config.store, &variables) {
        tracing::warn!("the master key lies beside the data that it seals: keep it elsewhere");
    }
    let preparation = Preparation { demo: false, restored: args.restored_from_backup };
    run(config, data_dir, master_key, preparation, |_| Ok(()))
}

pub fn dev(args: DevArgs) -> Result<(), CliError> {
    let variables = environment::variables();
    let mut settings = Settings::defaults();
    if let Some(file) = &args.config {
        settings.add_file(file)?;
    }
    settings.add_environment(variables.iter().cloned())?;
    if let Some(data_dir) = &args.data_dir {
        settings.add_option("store.data_dir", "--data-dir", data_dir)?;
    }
    if let Some(listen) = &args.listen {
        settings.add_option("server.listen", "--listen", listen)?;
    }
    let config = Config::from_settings(&settings)?;
    log::install(&config.log);
    let data_dir = DataDir::lock(&config.store.data_dir)?;
    let master_key = master_key::find_or_create(&data_dir, &config.store, &variables)?;
    let preparation = Preparation { demo: true, restored: false };
    run(config, data_dir, master_key, preparation, |server| {
        output::text(&what_next(&server.url(), args.data_dir.as_deref()))
    })
}

fn run(
    config: Config,
    data_dir: DataDir,
    master_key: MasterKey,
    preparation: Preparation,
    started: impl FnOnce(&Server) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .event_interval(TASKS_BETWEEN_LOOKS)
        .build()
        .map_err(CliError::Runtime)?;
    runtime.block_on(async {
        let clock = Arc::new(SystemClock);
        let server = Server::start(config, data_dir, master_key, clock, preparation).await?;
        started(&server)?;
        let told = signals::told_to_stop().await;
        server.stop().await;
        told.map_err(CliError::Runtime)
    })?;
    end(runtime);
    // The last lines of the log leave the process before it does.
    io::stderr().flush().map_err(CliError::Output)
}

/// Waits for the threads of the store, because SQLCipher frees what they work with when the process exits. A database
/// that hangs does not keep the process: what was acknowledged is durable.
fn end(runtime: Runtime) {
    let (ended, end) = mpsc::channel::<()>();
    thread::spawn(move || {
        if end.recv_timeout(STORE_END_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            tracing::error!(
                "the store did not end within {STORE_END_TIMEOUT:?}: ending without it"
            );
            process::abort();
        }
    });
    drop(runtime);
    drop(ended);
}

/// What somebody does next who has just started a server.
fn what_next(url: &str, data_dir: Option<&str>) -> String {
    let option = data_dir.map(|dir| format!(" --data-dir {dir}")).unwrap_or_default();
    let replica = |dir: &str, last: &str| {
        format!(
            "\x20 TOKEN=$(farshore token{option} --tenant {DEMO_TENANT} --scope tenant:rw)\n\
             \x20 farshore-replica --dir {dir} init --schema schema.json --server {url} --token \"$TOKEN\"\n\
             {last}\n"
        )
    };
    let writes = "\x20 farshore-replica --dir replica-a put airlines '{\"carrier\":\"FS\",\"name\":\"Farshore Air\"}'\n\
                  \x20 farshore-replica --dir replica-a sync\n";
    let reads = "\x20 farshore-replica --dir replica-b sync\n\
                 \x20 farshore-replica --dir replica-b query \"SELECT carrier, name FROM airlines\"\n";
    format!(
        "Farshore serves the tenant `{DEMO_TENANT}` at {url}. Stop it with Ctrl-C.\n\
         \n\
         In another terminal, one device writes and another one reads:\n\
         \n\
         \x20 farshore schema show{option} --tenant {DEMO_TENANT} > schema.json\n\
         {}{}\
         Health: {url}/readyz   Metrics: {url}/metrics   Keys: {url}/t/{DEMO_TENANT}/.well-known/jwks.json\n",
        replica("replica-a", writes),
        replica("replica-b", reads),
    )
}

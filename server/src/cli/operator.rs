//! Which server to talk to, and as whom.

use std::path::PathBuf;

use clap::Args;

use super::client::Client;
use super::error::CliError;
use crate::auth::operator_key::OperatorKey;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, Settings, environment};
use crate::run::{master_key, server_file};

/// Who the command line is in the server's log.
const SUBJECT: &str = "farshore";

/// The options of every command that talks to a server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct OperatorArgs {
    /// The server's configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The server's data directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the server is; by default the one that runs on the data directory
    #[arg(long)]
    url: Option<String>,
}

impl OperatorArgs {
    /// A client that is signed in as an operator.
    pub fn client(&self) -> Result<Client, CliError> {
        let variables = environment::variables();
        let mut settings = Settings::defaults();
        if let Some(file) = &self.config {
            settings.add_file(file)?;
        }
        settings.add_environment(variables.iter().cloned())?;
        let mut config = Config::from_settings(&settings)?;
        if let Some(data_dir) = &self.data_dir {
            config.store.data_dir.clone_from(data_dir);
        }
        let url = self.url(&config)?;
        let master_key = master_key::find(&config.store, &variables)?;
        let key = OperatorKey::open(&config.store.data_dir, &master_key)?;
        let token = key.mint(SUBJECT, &config.tokens, SystemClock.now_ms())?;
        Ok(Client::new(url, token))
    }

    fn url(&self, config: &Config) -> Result<String, CliError> {
        if let Some(url) = &self.url {
            return Ok(url.trim_end_matches('/').to_owned());
        }
        let data_dir = &config.store.data_dir;
        let running = server_file::read(data_dir)?;
        running
            .map(|running| running.url)
            .ok_or_else(|| CliError::NoServer { data_dir: data_dir.clone() })
    }
}

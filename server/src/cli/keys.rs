//! `farshore keys list|rotate`

use clap::{Subcommand, ValueEnum};
use farshore_api::keys::{RotateKey, SigningAlgorithm, SigningKey, SigningKeyList};
use farshore_sync_core::ids::TenantId;
use reqwest::Method;

use super::error::CliError;
use super::operator::OperatorArgs;
use super::output;

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// List the keys, the newest first.
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
    /// Sign with a new key from now on. Tokens of earlier keys stay valid until they expire.
    Rotate {
        /// The tenant
        #[arg(long)]
        tenant: TenantId,
        /// How the new key signs
        #[arg(long, value_enum, default_value_t = Algorithm::Rs256)]
        algorithm: Algorithm,
        #[command(flatten)]
        operator: OperatorArgs,
    },
}

/// How a key signs.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Algorithm {
    /// RSA with SHA-256: what every library verifies.
    #[value(name = "RS256", alias = "rs256")]
    Rs256,
    /// Ed25519.
    #[value(name = "EdDSA", alias = "eddsa")]
    EdDsa,
}

impl From<Algorithm> for SigningAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Rs256 => Self::Rs256,
            Algorithm::EdDsa => Self::EdDsa,
        }
    }
}

pub async fn run(command: KeysCommand) -> Result<(), CliError> {
    match command {
        KeysCommand::List { tenant, json, operator } => {
            let list: SigningKeyList =
                operator.client()?.get(&format!("/tenants/{tenant}/keys")).await?;
            if json {
                return output::json(&list);
            }
            let rows: Vec<_> = list.keys.iter().map(row).collect();
            output::table(["KEY", "STATE"], &rows)
        }
        KeysCommand::Rotate { tenant, algorithm, operator } => {
            let request = RotateKey { algorithm: algorithm.into() };
            let path = format!("/tenants/{tenant}/keys");
            let key: SigningKey = operator.client()?.send(Method::POST, &path, &request).await?;
            output::line(format_args!("{tenant} signs with {}", key.kid))
        }
    }
}

fn row(key: &SigningKey) -> [String; 2] {
    let state = if key.retired_at_ms.is_some() { "retired" } else { "signing" };
    [key.kid.clone(), state.to_owned()]
}

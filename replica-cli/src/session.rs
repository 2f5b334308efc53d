//! Opening the client that a directory is about.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use farshore_client::ids::{DeviceId, TenantId};
use farshore_client::store::CreateMode;
use farshore_client::vault::{KeyVault, OsKeychain, SealedFile};
use farshore_client::{Client, TokenSource};

use crate::arguments::Vault;
use crate::failure::{BAD_REQUEST, Failure};
use crate::settings::{self, Settings};

/// The service under which the system's keychain lists the keys.
const KEYCHAIN_SERVICE: &str = "farshore-replica";

/// Opens the replica of a directory.
pub(crate) fn open(dir: &Path, user: Option<&str>) -> Result<Client, Failure> {
    let settings = Settings::load(dir, user)?.ok_or_else(|| {
        Failure::new(
            "not_created",
            format!("{}: no replica here; make one with `init`", dir.display()),
        )
    })?;
    build(dir, user, &settings, CreateMode::MustExist)
}

/// Opens or makes the replica that the settings describe.
pub(crate) fn build(
    dir: &Path,
    user: Option<&str>,
    settings: &Settings,
    create: CreateMode,
) -> Result<Client, Failure> {
    let mut builder = Client::builder()
        .dir(dir)
        .create(create)
        .schema(settings::read(&dir.join(&settings.schema))?)
        .vault(vault(dir, settings)?);
    if let Some(user) = user {
        let tenant = settings.tenant.as_deref().ok_or_else(|| {
            Failure::new(BAD_REQUEST, "a replica of a user needs a token or --tenant")
        })?;
        builder = builder.user(parsed::<TenantId>(tenant)?, user);
    }
    if let Some(device) = &settings.device {
        builder = builder.device(parsed::<DeviceId>(device)?);
    }
    if let Some(server) = &settings.server {
        builder = builder.server(server);
    }
    if let Some(file) = &settings.root_certificate {
        builder = builder.root_certificate(settings::read(file)?);
    }
    if let Some(file) = &settings.token_file {
        builder = builder.token(TokenSource::file(dir.join(file)));
    }
    Ok(builder.build()?)
}

/// Where the sealed files of a replica are.
pub(crate) fn vault_dir(dir: &Path, settings: &Settings) -> PathBuf {
    settings.vault_dir.clone().unwrap_or_else(|| dir.join("vault"))
}

fn vault(dir: &Path, settings: &Settings) -> Result<Arc<dyn KeyVault>, Failure> {
    Ok(match settings.vault {
        Vault::SealedFile => Arc::new(SealedFile::new(vault_dir(dir, settings))),
        Vault::OsKeychain => Arc::new(OsKeychain::native(KEYCHAIN_SERVICE)?),
    })
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error| Failure::new(BAD_REQUEST, format!("{error}")))
}

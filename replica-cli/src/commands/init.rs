//! `init`: makes a replica, or changes the settings of one.

use std::fs;
use std::path::{Path, PathBuf, absolute};
use std::process::ExitCode;

use farshore_client::store::CreateMode;
use farshore_client::sync::Claims;
use serde_json::json;

use crate::arguments::{Init, Vault};
use crate::failure::{BAD_REQUEST, Failure};
use crate::output::Output;
use crate::settings::{self, Settings, file_in, write_private};
use crate::{json, session};

pub(super) fn run(
    dir: &Path,
    user: Option<&str>,
    init: Init,
    output: Output,
) -> Result<ExitCode, Failure> {
    make_private_dir(dir)?;
    let before = Settings::load(dir, user)?;
    let settings = merged(dir, user, before, init)?;
    if settings.vault == Vault::SealedFile {
        make_private_dir(&session::vault_dir(dir, &settings))?;
    }
    let client = session::build(dir, user, &settings, CreateMode::CreateIfMissing)?;
    settings.save(dir, user)?;
    let mut report = json::status(&client, &client.status());
    report["dir"] = json!(dir);
    output.say(&report, || format!("replica of device {} in {}", client.device(), dir.display()));
    client.close()?;
    Ok(ExitCode::SUCCESS)
}

/// The settings as they will be: what is given now, else what was there.
fn merged(
    dir: &Path,
    user: Option<&str>,
    before: Option<Settings>,
    init: Init,
) -> Result<Settings, Failure> {
    let schema = match (init.schema, &before) {
        (Some(file), _) => copied(&file, file_in(dir, user, "schema.json"))?,
        (None, Some(before)) => before.schema.clone(),
        (None, None) => return Err(Failure::new(BAD_REQUEST, "a new replica needs --schema FILE")),
    };
    let before = before.unwrap_or_default();
    let token_file = match (&init.token, init.token_file) {
        (Some(token), _) => {
            let path = file_in(dir, user, "token");
            write_private(&path, token)?;
            path.file_name().map(PathBuf::from)
        }
        (None, Some(file)) => Some(full_path(&file)?),
        (None, None) => before.token_file,
    };
    let tenant = match init.tenant.or(before.tenant) {
        None if user.is_some() => {
            token_file.as_ref().map(|file| tenant_of(&dir.join(file))).transpose()?
        }
        known => known,
    };
    let full = |path: Option<PathBuf>| path.map(|path| full_path(&path)).transpose();
    Ok(Settings {
        server: init.server.or(before.server),
        schema,
        token_file,
        device: init.device.or(before.device),
        tenant,
        vault: init.vault.unwrap_or(before.vault),
        vault_dir: full(init.vault_dir)?.or(before.vault_dir),
        root_certificate: full(init.root_certificate)?.or(before.root_certificate),
    })
}

/// The tenant that a token is for: it is part of the names of a user's files.
fn tenant_of(token_file: &Path) -> Result<String, Failure> {
    Ok(Claims::read(settings::read(token_file)?.trim())?.tenant.to_string())
}

/// Keeps a file under another name; the answer is that name alone, so that the directory can be moved.
fn copied(from: &Path, to: PathBuf) -> Result<PathBuf, Failure> {
    write_private(&to, &settings::read(from)?)?;
    Ok(to.file_name().map(PathBuf::from).unwrap_or(to))
}

fn full_path(path: &Path) -> Result<PathBuf, Failure> {
    absolute(path).map_err(|error| Failure::file(path, &error))
}

/// A directory for its owner alone, if it has to be made.
fn make_private_dir(dir: &Path) -> Result<(), Failure> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|error| Failure::file(dir, &error))
}

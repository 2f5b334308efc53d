//! `farshore tenant backup|restore|new-epoch`

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use farshore_api::archives::{NewEpoch, RestoreQuery, Restored};
use farshore_sync_core::ids::TenantId;
use futures_util::stream;
use reqwest::Method;

use super::error::CliError;
use super::operator::OperatorArgs;
use super::output;
use super::progress::Progress;

/// Bytes of a file that are sent at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Write a tenant into one encrypted file. Devices go on meanwhile; what they write after the start is not in it.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The tenant
    tenant: TenantId,
    /// The file to write; it must not exist. Whoever has it and the master key can read the tenant
    file: PathBuf,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Put a tenant back from a file, under a new epoch: devices offer again what the file lacks.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The tenant
    tenant: TenantId,
    /// The file that `farshore tenant backup` wrote
    file: PathBuf,
    /// Put it in the place of the tenant that is there; its slug again, to be sure
    #[arg(long, value_name = "TENANT", conflicts_with = "check")]
    replace: Option<TenantId>,
    /// Only read the file on the server and count everything anew: is it good? Changes nothing
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Begin a new epoch for a tenant that was restored by other means, such as pg_restore: devices offer again what it
/// lacks.
#[derive(Debug, Args)]
pub struct NewEpochArgs {
    /// The tenant
    tenant: TenantId,
    #[command(flatten)]
    operator: OperatorArgs,
}

pub async fn backup(args: BackupArgs) -> Result<(), CliError> {
    let BackupArgs { tenant, file, operator } = args;
    let failed = |source| CliError::File { path: file.clone(), source };
    if file.exists() {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    let partial = partial(&file);
    let done = receive(&tenant, &partial, &operator).await;
    if done.is_err() {
        // What came so far is no archive; where it cannot be removed, its name says so.
        let _ = fs::remove_file(&partial);
    }
    let bytes = done?;
    fs::rename(&partial, &file).and_then(|()| sync_folder(&file)).map_err(failed)?;
    output::line(format_args!("wrote {} ({bytes} bytes)", file.display()))
}

async fn receive(
    tenant: &TenantId,
    partial: &Path,
    operator: &OperatorArgs,
) -> Result<u64, CliError> {
    let failed = |source| CliError::File { path: partial.to_owned(), source };
    let mut answer = operator.client()?.stream(&format!("/tenants/{tenant}/archive")).await?;
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut to = BufWriter::new(options.open(partial).map_err(failed)?);
    let (mut progress, mut bytes) = (Progress::new("received", None), 0);
    while let Some(piece) = answer.next().await? {
        to.write_all(&piece).map_err(failed)?;
        progress.add(piece.len());
        bytes += piece.len() as u64;
    }
    to.flush().map_err(failed)?;
    to.get_ref().sync_all().map_err(failed)?;
    Ok(bytes)
}

pub async fn restore(args: RestoreArgs) -> Result<(), CliError> {
    let RestoreArgs { tenant, file, replace, check, operator } = args;
    if let Some(named) = &replace
        && *named != tenant
    {
        return Err(CliError::OtherTenantNamed { tenant, named: named.clone() });
    }
    let failed = |source| CliError::File { path: file.clone(), source };
    let from = File::open(&file).map_err(failed)?;
    let length = from.metadata().map_err(failed)?.len();
    let query = RestoreQuery { replace: replace.is_some(), check };
    let path = format!("/tenants/{tenant}/archive?replace={}&check={}", query.replace, query.check);
    let progress = Progress::new("sent", Some(length));
    let pieces = stream::unfold(Some((from, progress)), |state| async {
        let (mut from, mut progress) = state?;
        let mut piece = vec![0; PIECE_BYTES];
        match from.read(&mut piece) {
            Ok(0) => {
                progress.then("all sent; the server verifies");
                None
            }
            Ok(length) => {
                piece.truncate(length);
                progress.add(length);
                Some((Ok(Bytes::from(piece)), Some((from, progress))))
            }
            Err(error) => Some((Err(error), None)),
        }
    });
    let restored: Restored = operator.client()?.upload(Method::PUT, &path, pieces).await?;
    let Restored { rows, records, digest, epoch } = restored;
    match epoch {
        Some(epoch) => output::line(format_args!(
            "restored {tenant}: {rows} rows, {records} records, epoch {epoch}; devices offer what it lacks"
        )),
        None => output::line(format_args!(
            "{} is good: {rows} rows, {records} records, digest {digest}",
            file.display()
        )),
    }
}

pub async fn new_epoch(args: NewEpochArgs) -> Result<(), CliError> {
    let NewEpochArgs { tenant, operator } = args;
    let path = format!("/tenants/{tenant}/epoch");
    let begun: NewEpoch = operator.client()?.send(Method::POST, &path, &()).await?;
    output::line(format_args!("{tenant} is in epoch {}; devices offer what it lacks", begun.epoch))
}

fn partial(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Makes the new name durable.
fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    if cfg!(unix) { File::open(folder.unwrap_or(Path::new(".")))?.sync_all() } else { Ok(()) }
}

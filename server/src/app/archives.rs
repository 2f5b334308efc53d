//! Backups: a tenant as one file, and back.

use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::rand;
use bytes::Bytes;
use farshore_api::archives::{NewEpoch, Restored};
use farshore_store::StoreError;
use farshore_store::catalog::CatalogError;
use farshore_store::copy::{Arrival, Arriving, CopyError, Record, RecordSink, verify};
use farshore_store::scope::TenantScope;
use farshore_sync_core::ids::TenantId;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::App;
use super::error::AccessError;
use crate::archive::{ArchiveError, ArchiveWriter, Contents, Step};
use crate::auth::{KeyError, OperatorPrincipal};

/// Frames of an archive that wait for a slow reader.
const FRAMES_AHEAD: usize = 2;

/// The bytes of an archive as they are made. An error ends them early.
pub type ArchiveBytes = mpsc::Receiver<Result<Bytes, ArchiveEnded>>;

/// An archive could not be finished; the server's log says why.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the archive could not be finished")]
pub struct ArchiveEnded;

/// Why a tenant was not restored. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The archive cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive is another tenant's.
    #[error("the archive is one of {found}, not of {tenant}")]
    OtherTenant {
        /// The tenant to be restored.
        tenant: TenantId,
        /// Whose archive it is.
        found: String,
    },
    /// There is such a tenant, and it was not said that it is to be replaced.
    #[error(
        "the tenant {tenant} is there; to put the archive in its place, say so with --replace {tenant}"
    )]
    Exists {
        /// The tenant.
        tenant: TenantId,
    },
    /// The archive did not come to its end.
    #[error("the archive stopped coming")]
    Stalled,
    /// The archive is not what it was when it was made, or was bad then.
    #[error(transparent)]
    Copy(CopyError),
    /// The system has no randomness to give.
    #[error(transparent)]
    Entropy(#[from] KeyError),
    /// The store failed.
    #[error(transparent)]
    Access(AccessError),
}

/// What to do with an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restoration {
    /// Restore a tenant that is not there.
    New,
    /// Restore a tenant in the place of what is there, if anything is.
    Replace,
    /// Read it and count everything anew, and change nothing.
    Check,
}

impl From<CopyError> for RestoreError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Catalog(error) => error.into(),
            error @ CopyError::Differs { .. } => Self::Copy(error),
        }
    }
}

impl From<CatalogError> for RestoreError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::TenantExists { tenant } => Self::Exists { tenant },
            error => Self::Access(error.into()),
        }
    }
}

impl From<StoreError> for RestoreError {
    fn from(error: StoreError) -> Self {
        Self::Access(error.into())
    }
}

/// Begins to make an archive of a tenant as it is now. Devices go on meanwhile.
///
/// # Errors
/// Where there is no such tenant, or the store fails.
pub async fn backup(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
) -> Result<ArchiveBytes, AccessError> {
    let scope = app.auth().scope(operator, tenant);
    let store = app.store(&scope).await?;
    let tenant = scope.tenant().clone();
    let begun = app.auth().begin_archive(&tenant);
    let (writer, preamble) =
        begun.map_err(|error| StoreError::database("make an archive", error))?;
    let (bytes, waiting) = mpsc::channel(FRAMES_AHEAD);
    let subject = operator.subject().to_owned();
    tokio::spawn(async move {
        let mut frames = Frames { writer, bytes: bytes.clone() };
        let made = async {
            frames.send(preamble).await?;
            store.copy_out(&mut frames).await?;
            frames.finish().await
        };
        match made.await {
            Ok(Contents { rows, records, .. }) => {
                tracing::info!(%tenant, operator = subject, rows, records, "archive made");
            }
            Err(error) => {
                tracing::error!(%tenant, %error, "an archive could not be finished");
                // Whoever reads it sees that it ends early; perhaps nobody reads it any more.
                let _ = bytes.send(Err(ArchiveEnded)).await;
            }
        }
    });
    Ok(waiting)
}

/// Makes frames of records, and hands them on.
struct Frames {
    writer: ArchiveWriter,
    bytes: mpsc::Sender<Result<Bytes, ArchiveEnded>>,
}

impl Frames {
    async fn send(&self, bytes: Vec<u8>) -> Result<(), StoreError> {
        let sent = self.bytes.send(Ok(bytes.into())).await;
        sent.map_err(|_| StoreError::database("make an archive", "nobody reads it any more"))
    }

    async fn finish(self) -> Result<Contents, StoreError> {
        let Self { writer, bytes } = self;
        let (last, contents) = writer.finish();
        let sent = bytes.send(Ok(last.into())).await;
        sent.map_err(|_| StoreError::database("make an archive", "nobody reads it any more"))?;
        Ok(contents)
    }
}

#[async_trait]
impl RecordSink for Frames {
    async fn take(&mut self, records: Vec<Record>) -> Result<(), StoreError> {
        let frame = self.writer.frame(&records);
        self.send(frame).await
    }
}

/// Restores a tenant from an archive, under a new epoch: devices compare digests and offer again what it lacks.
///
/// # Errors
/// See [`RestoreError`]; what was there is as it was then.
pub async fn restore<E: Send>(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
    restoration: Restoration,
    bytes: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
) -> Result<Restored, RestoreError> {
    let scope = app.auth().scope(operator, tenant);
    let mut arrival = receive(app, &scope, restoration).await?;
    let contents = read(app, &scope, &mut *arrival, bytes).await?;
    verify(&*arrival, scope.tenant(), None, contents.digest).await?;
    let Contents { rows, records, digest } = contents;
    let mut restored = Restored { rows, records, digest: digest.to_string(), epoch: None };
    if restoration == Restoration::Check {
        return Ok(restored);
    }
    let epoch = arrival.store().begin_epoch(entropy()?).await?;
    restored.epoch = Some(epoch);
    arrival.finish().await?;
    begin_anew(app, scope.tenant());
    tracing::warn!(
        tenant = %scope.tenant(), operator = operator.subject(), rows, epoch,
        "tenant restored from an archive: devices offer what it lacks"
    );
    Ok(restored)
}

/// Begins a new epoch for one tenant, whose data was restored by other means, such as `pg_restore`.
///
/// # Errors
/// See [`RestoreError`].
pub async fn begin_epoch(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
) -> Result<NewEpoch, RestoreError> {
    let scope = app.auth().scope(operator, tenant);
    let store = app.store(&scope).await.map_err(RestoreError::Access)?;
    let epoch = store.begin_epoch(entropy()?).await?;
    begin_anew(app, scope.tenant());
    tracing::warn!(tenant = %scope.tenant(), operator = operator.subject(), epoch, "new epoch");
    Ok(NewEpoch { epoch })
}

fn begin_anew(app: &App, tenant: &TenantId) {
    app.auth().keys_changed(tenant);
    app.sync().begun_anew(tenant);
}

fn entropy() -> Result<u64, KeyError> {
    let mut entropy = [0; 8];
    rand::fill(&mut entropy).map_err(|_| KeyError::Generate)?;
    Ok(u64::from_le_bytes(entropy))
}

async fn receive(
    app: &App,
    scope: &TenantScope,
    restoration: Restoration,
) -> Result<Box<dyn Arrival>, RestoreError> {
    let new = app.catalog().receive(scope, Arriving::New).await;
    match (new, restoration) {
        (Err(CatalogError::TenantExists { .. }), Restoration::Replace | Restoration::Check) => {
            Ok(app.catalog().receive(scope, Arriving::Replacing).await?)
        }
        (new, _) => Ok(new?),
    }
}

/// Reads an archive to its end into an arrival.
async fn read<E: Send>(
    app: &App,
    scope: &TenantScope,
    arrival: &mut dyn Arrival,
    mut bytes: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
) -> Result<Contents, RestoreError> {
    let patience = Duration::from_millis(app.config().server.request_timeout_ms);
    let mut reader = app.auth().archive_reader();
    let mut contents = None;
    while let Some(piece) =
        timeout(patience, bytes.next()).await.map_err(|_| RestoreError::Stalled)?
    {
        reader.push(&piece.map_err(|_| RestoreError::Stalled)?);
        loop {
            match reader.step()? {
                Step::More => break,
                Step::Label(label) if label.tenant != scope.tenant().as_str() => {
                    let (tenant, found) = (scope.tenant().clone(), label.tenant);
                    return Err(RestoreError::OtherTenant { tenant, found });
                }
                Step::Label(_) => {}
                Step::Records(records) => arrival.put(records).await?,
                Step::End(found) => contents = Some(found),
            }
        }
    }
    reader.finish()?;
    contents.ok_or(RestoreError::Stalled)
}

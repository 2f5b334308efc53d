//! A device of a story: the SDK with an encrypted store of its own, and a wire to the server.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use farshore_client::store::SqlValue;
use farshore_client::vault::SealedFile;
use farshore_client::{Client, Status, TokenSource};
use farshore_sync_core::ids::{CollectionId, RowId};
use farshore_sync_core::replica::RetryPolicy;

use crate::SCHEMA;
use crate::outcome::{Outcome, ensure};
use crate::records::Records;
use crate::server::Server;
use crate::telling::Progress;
use crate::wire::Wire;

/// Rows that an import writes in one transaction.
pub const ROWS_PER_TRANSACTION: usize = 100;
/// How long to wait for anything that the server has a part in.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Soon, so that a story does not take long after a crash; an app would keep the default.
const RETRY: RetryPolicy = RetryPolicy { first_ms: 100, most_ms: 1_000 };

/// One device.
pub struct Device {
    /// What people call it.
    pub name: &'static str,
    /// Its replica.
    pub client: Client,
    dir: PathBuf,
    wire: Wire,
}

impl Device {
    /// Makes a device: a token from the operator, a directory, a key vault, an encrypted store. It does not connect.
    ///
    /// # Errors
    /// What the operator's command line or the SDK says.
    pub fn set_up(home: &Path, name: &'static str, server: &Server) -> Outcome<Self> {
        let token = server.token(name)?;
        let dir = home.join(name);
        let keys = dir.join("keys");
        fs::create_dir_all(&keys)?;
        let wire = Wire::to(server.address())?;
        let client = Client::builder()
            .dir(&dir)
            .schema(SCHEMA)
            .vault(Arc::new(SealedFile::new(keys)))
            .server(wire.url())
            .token(TokenSource::fixed(&token)?)
            .retry(RETRY)
            .build()?;
        Ok(Self { name, client, dir, wire })
    }

    /// Writes rows, [`ROWS_PER_TRANSACTION`] at a time.
    ///
    /// # Errors
    /// What the SDK says.
    pub fn import(&self, records: &Records, progress: &Progress) -> Outcome {
        let rows: Vec<_> = records.rows().collect();
        for batch in rows.chunks(ROWS_PER_TRANSACTION) {
            self.client.write(|transaction| {
                for row in batch {
                    transaction.insert(records.collection, None, row)?;
                }
                Ok(())
            })?;
            progress.advance(batch.len() as u64);
        }
        Ok(())
    }

    /// The id of the one row that a SELECT of ids gives.
    ///
    /// # Errors
    /// Where it gives none, or several.
    pub fn id(&self, select: &str, params: &[SqlValue]) -> Outcome<RowId> {
        let found = self.client.query(select, params)?;
        match found.rows.as_slice() {
            [row] => match row.as_slice() {
                [SqlValue::Bytes(id)] => Ok(RowId::from_bytes(id.as_slice().try_into()?)),
                _ => Err(format!("`{select}` gives no ids").into()),
            },
            rows => Err(format!("`{select}` gives {} rows on {}", rows.len(), self.name).into()),
        }
    }

    /// The one value that a SELECT gives.
    ///
    /// # Errors
    /// Where it gives something else.
    pub fn value(&self, select: &str, params: &[SqlValue]) -> Outcome<SqlValue> {
        let mut found = self.client.query(select, params)?;
        let value = found.rows.pop().and_then(|mut row| row.pop());
        value.ok_or_else(|| format!("`{select}` gives nothing on {}", self.name).into())
    }

    /// How many rows a collection has.
    ///
    /// # Errors
    /// Where there is no such collection.
    pub fn count(&self, collection: &str) -> Outcome<i64> {
        match self.value(&format!("SELECT count(*) FROM {collection}"), &[])? {
            SqlValue::Int(count) => Ok(count),
            other => Err(format!("{other:?} is no count").into()),
        }
    }

    /// Waits until the status is as wished.
    ///
    /// # Errors
    /// After [`PATIENCE`], with where the device stands.
    pub fn wait_until(&self, wish: &str, is_met: impl Fn(&Status) -> bool) -> Outcome<Status> {
        let started = Instant::now();
        let mut watch = self.client.watch_status();
        loop {
            let left = PATIENCE.saturating_sub(started.elapsed());
            if let Some(status) = watch.next_within(left)
                && is_met(&status)
            {
                return Ok(status);
            }
            ensure(!left.is_zero(), || {
                let status = self.client.status();
                let cause = status.cause.map(|cause| format!(": {}", cause.message));
                let cause = cause.unwrap_or_default();
                format!("{}: {wish}: not within {PATIENCE:?}{cause}", self.name)
            })?;
        }
    }

    /// The sum over the rows of each collection, as far as the server has confirmed them.
    ///
    /// # Errors
    /// What the SDK says.
    pub fn digest(&self) -> Outcome<Vec<(CollectionId, u128)>> {
        let sums = self.client.digests()?;
        Ok(sums.into_iter().map(|(_, collection, sum)| (collection, sum.0)).collect())
    }

    /// Bytes sent and received.
    #[must_use]
    pub fn wire_bytes(&self) -> (u64, u64) {
        self.wire.bytes()
    }

    /// Bytes of all its files.
    ///
    /// # Errors
    /// Where they cannot be looked at.
    pub fn disk_bytes(&self) -> Outcome<u64> {
        bytes_below(&self.dir)
    }
}

/// Bytes of all files below a directory.
///
/// # Errors
/// Where they cannot be looked at.
pub fn bytes_below(dir: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { bytes_below(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}

//! A tenant as a stream of records, the same for every back-end: what a backup holds and what a move carries.
//!
//! The order of the records is canonical, and nothing in them depends on the back-end, so that the digest of a copy
//! tells whether two stores hold the same. Five tables look the same in every back-end and are copied as they are
//! ([`PLAIN_TABLES`]); where a tenant stands, its rows, their document changes and their sums have records of their own
//! ([`Record`]).
//!
//! A copy arrives beside what is there ([`Arrival`]) and becomes the tenant in one step, once it was verified.

use std::fmt;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use farshore_sync_core::ids::TenantId;

use crate::catalog::CatalogError;
use crate::{SharedTenantStore, StoreError};

mod plain_table;
mod record;

pub use plain_table::{PLAIN_TABLES, PlainTable};
pub use record::{ChangeRecord, ChunkRecord, Record, RecordError, StandingRecord, SumsRecord};

/// Bytes of records after which a batch is full.
pub const BATCH_BYTES: usize = 1 << 20;
/// Most records of a batch.
pub const MAX_BATCH_RECORDS: usize = 2_048;

/// Records on their way to a sink, in batches.
#[derive(Debug, Default)]
pub struct Batcher {
    records: Vec<Record>,
    bytes: usize,
}

impl Batcher {
    /// Adds a record; gives a batch where one is full.
    pub fn add(&mut self, record: Record) -> Option<Vec<Record>> {
        self.bytes += record.weight();
        self.records.push(record);
        let is_full = self.bytes >= BATCH_BYTES || self.records.len() >= MAX_BATCH_RECORDS;
        is_full.then(|| self.take())
    }

    /// The last batch, which may be empty.
    #[must_use]
    pub fn finish(mut self) -> Vec<Record> {
        self.take()
    }

    fn take(&mut self) -> Vec<Record> {
        self.bytes = 0;
        std::mem::take(&mut self.records)
    }
}

/// Where the records of a copy go.
#[async_trait]
pub trait RecordSink: Send {
    /// Takes the next records. An error ends the copy.
    async fn take(&mut self, records: Vec<Record>) -> Result<(), StoreError>;
}

/// A store that can be copied.
#[async_trait]
pub trait CopyOut: Send + Sync {
    /// Everything of the tenant as it is in one snapshot, in the canonical order.
    async fn copy_out(&self, sink: &mut dyn RecordSink) -> Result<(), StoreError>;
}

/// What a copy may find where it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arriving {
    /// There is no such tenant.
    New,
    /// The tenant is there, and is replaced in one step.
    Replacing,
    /// The tenant is registered here and is elsewhere: what arrives stays out of sight until the registry says that it
    /// is here.
    Returning,
}

/// A copy that arrives beside the tenant. Dropped before it was finished, it leaves nothing that counts; the next one
/// clears it away.
#[async_trait]
pub trait Arrival: Send + Sync {
    /// Takes the next records, in the order in which [`CopyOut`] gives them.
    async fn put(&mut self, records: Vec<Record>) -> Result<(), StoreError>;

    /// What has arrived, as a store that nobody else has.
    fn store(&self) -> SharedTenantStore;

    /// Makes it the tenant, durably and in one step. What was there before is gone then, and its open stores say
    /// [`StoreError::BegunAnew`].
    async fn finish(self: Box<Self>) -> Result<SharedTenantStore, CatalogError>;
}

/// How much a copy holds, and what it adds up to.
#[derive(Clone)]
pub struct Tally {
    digest: Context,
    /// Living rows.
    pub rows: u64,
    /// All records.
    pub records: u64,
    /// Bytes of all records, encoded.
    pub bytes: u64,
}

/// The SHA-256 of the records of a copy, each behind its length.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CopyDigest(pub [u8; 32]);

impl Default for Tally {
    fn default() -> Self {
        Self { digest: Context::new(&SHA256), rows: 0, records: 0, bytes: 0 }
    }
}

impl Tally {
    /// Counts a record with its bytes.
    pub fn count(&mut self, record: &Record, bytes: &[u8]) {
        self.digest.update(&(bytes.len() as u64).to_le_bytes());
        self.digest.update(bytes);
        self.records += 1;
        self.bytes += bytes.len() as u64;
        self.rows += u64::from(matches!(record, Record::Change(change) if change.kind == 0));
    }

    /// What the records add up to so far.
    #[must_use]
    pub fn digest(&self) -> CopyDigest {
        let digest = self.digest.clone().finish();
        CopyDigest(digest.as_ref().try_into().expect("a SHA-256 digest is 32 bytes long"))
    }
}

#[async_trait]
impl RecordSink for Tally {
    async fn take(&mut self, records: Vec<Record>) -> Result<(), StoreError> {
        records.iter().for_each(|record| self.count(record, &record.to_bytes()));
        Ok(())
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, records, bytes, .. } = self;
        write!(f, "Tally {{ {rows} rows, {records} records, {bytes} bytes }}")
    }
}

impl fmt::Debug for CopyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for CopyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a copy is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// What arrived adds up to something else than what was sent.
    #[error(
        "the copy of {tenant} adds up to {arrived}, and what was sent to {sent}: nothing was changed"
    )]
    Differs {
        /// The tenant.
        tenant: TenantId,
        /// The digest of what was sent.
        sent: CopyDigest,
        /// The digest of what arrived.
        arrived: CopyDigest,
    },
    /// The rows do not add up to their sums: they were altered behind the store they come from.
    #[error(
        "{buckets} buckets of {tenant} do not add up to the sums that came with them: rows were altered behind \
         the store; nothing was changed"
    )]
    Altered {
        /// The tenant.
        tenant: TenantId,
        /// How many buckets differ.
        buckets: usize,
    },
    /// The place where it arrives refuses or fails.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl From<StoreError> for CopyError {
    fn from(error: StoreError) -> Self {
        Self::Catalog(error.into())
    }
}

/// Reads what arrived back, and counts its sums anew.
///
/// # Errors
/// Where it is not what was sent.
pub async fn verify(
    arrival: &dyn Arrival,
    tenant: &TenantId,
    sent: CopyDigest,
) -> Result<(), CopyError> {
    let store = arrival.store();
    let mut tally = Tally::default();
    store.copy_out(&mut tally).await?;
    let arrived = tally.digest();
    if arrived != sent {
        return Err(CopyError::Differs { tenant: tenant.clone(), sent, arrived });
    }
    match store.scrub().await?.len() {
        0 => Ok(()),
        buckets => Err(CopyError::Altered { tenant: tenant.clone(), buckets }),
    }
}

#[cfg(test)]
mod tests;

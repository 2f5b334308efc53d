//! A tenant as a stream of records, the same for every back-end: what a backup holds and what a move carries.
//!
//! The order of the records is canonical, and nothing in them depends on the back-end, so that the digest of a copy
//! tells whether two stores hold the same. Five tables look the same in every back-end and are copied as they are
//! ([`PLAIN_TABLES`]); where a tenant stands, its rows, their document changes and their sums have records of their own
//! ([`Record`]).
//!
//! A copy arrives beside what is there ([`Arrival`]) and becomes the tenant in one step, once it was verified. It can be
//! brought up to date before that, by what has changed since ([`CopyOut::copy_since`]).

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use farshore_sync_core::digest::{Buckets, DigestKey, Sum, bucket_of, row_sum};
use farshore_sync_core::ids::{CollectionId, Scope, TenantId};

use crate::catalog::CatalogError;
use crate::sync::RowKey;
use crate::{SharedTenantStore, StoreError};

mod plain_table;
mod record;

pub use plain_table::{PLAIN_TABLES, PlainTable};
pub use record::{
    ChangeRecord, ChunkRecord, ForgetRecord, Record, RecordError, StandingRecord, SumsRecord,
};

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

    /// What makes of a copy up to `seq` one of the tenant as it is now: where it stands, all plain tables, each row that
    /// changed since behind a [`Record::Forget`], by collection and row, and all sums. The order is canonical too.
    ///
    /// It has to be the same epoch, and the horizon may not have passed `seq`: a row that was purged leaves no trace.
    async fn copy_since(&self, seq: u64, sink: &mut dyn RecordSink) -> Result<(), StoreError>;
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
    /// Takes the next records, in the order in which [`CopyOut`] gives them: everything, and then perhaps what has
    /// changed since, several times.
    ///
    /// The sums are counted from the rows that come. Those that were sent have to be the same
    /// ([`StoreError::Damaged`]).
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

/// What rows that arrive or are forgotten change in the sums.
#[derive(Debug, Default)]
pub struct SumChanges(BTreeMap<(Scope, CollectionId), BTreeMap<u8, Sum>>);

impl SumChanges {
    /// A living row comes.
    pub fn add(&mut self, key: &DigestKey, scope: Scope, row: RowKey, state: &[u8]) {
        self.bucket(scope, row).add(row_sum(key, row.0, row.1, state));
    }

    /// A living row goes.
    pub fn remove(&mut self, key: &DigestKey, scope: Scope, row: RowKey, state: &[u8]) {
        self.bucket(scope, row).remove(row_sum(key, row.0, row.1, state));
    }

    fn bucket(&mut self, scope: Scope, row: RowKey) -> &mut Sum {
        self.0.entry((scope, row.0)).or_default().entry(bucket_of(row.1)).or_default()
    }

    /// The changes so far, which begin anew.
    pub fn take(&mut self) -> BTreeMap<(Scope, CollectionId), BTreeMap<u8, Sum>> {
        std::mem::take(&mut self.0)
    }
}

impl SumsRecord {
    /// The record of some sums; none where nothing is counted, since not every store keeps such sums.
    #[must_use]
    pub fn new(scope: &str, collection: CollectionId, buckets: &Buckets) -> Option<Self> {
        (*buckets != Buckets::default()).then(|| Self {
            scope: scope.to_owned(),
            collection: collection.0,
            buckets: buckets.to_bytes(),
        })
    }

    /// Whether the rows that came add up to these sums.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where they do not.
    pub fn check(&self, counted: &Buckets) -> Result<(), StoreError> {
        let damaged = |detail| StoreError::Damaged { operation: "take a copy in", detail };
        let sent = Buckets::from_bytes(&self.buckets);
        let sent = sent.ok_or_else(|| damaged("the sums have another length".to_owned()))?;
        match sent.differing(counted).count() {
            0 => Ok(()),
            buckets => Err(damaged(format!(
                "{buckets} buckets of collection {} in {} do not add up to the sums that came with them: rows were \
                 altered behind the store",
                self.collection, self.scope
            ))),
        }
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
    /// The place where it arrives refuses or fails.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl From<StoreError> for CopyError {
    fn from(error: StoreError) -> Self {
        Self::Catalog(error.into())
    }
}

/// Reads what arrived back: everything, or what brought it up to date from a seq.
///
/// # Errors
/// Where it is not what was sent.
pub async fn verify(
    arrival: &dyn Arrival,
    tenant: &TenantId,
    since: Option<u64>,
    sent: CopyDigest,
) -> Result<(), CopyError> {
    let mut tally = Tally::default();
    copy(&arrival.store(), since, &mut tally).await?;
    let arrived = tally.digest();
    if arrived == sent {
        return Ok(());
    }
    Err(CopyError::Differs { tenant: tenant.clone(), sent, arrived })
}

/// Everything of a tenant, or what has changed since a seq.
///
/// # Errors
/// Where the store or the sink fails.
pub async fn copy(
    store: &SharedTenantStore,
    since: Option<u64>,
    sink: &mut dyn RecordSink,
) -> Result<(), StoreError> {
    match since {
        None => store.copy_out(sink).await,
        Some(seq) => store.copy_since(seq, sink).await,
    }
}

#[cfg(test)]
mod tests;

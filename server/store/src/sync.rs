//! The hot path of a tenant's store: group commits, pages of changes, digests.

use std::collections::BTreeMap;

use async_trait::async_trait;
use farshore_sync_core::digest::{Buckets, DigestKey, Sum, Totals};
use farshore_sync_core::hlc::Stamp;
use farshore_sync_core::ids::{CollectionId, ColumnId, DeviceId, RowId, Scope};
use farshore_sync_core::wire::{Grant, PushOutcome};

use crate::StoreError;
use crate::placement::MoveToken;
use crate::pushed::PushedTransaction;

/// A row's place: collection and identity.
pub type RowKey = (CollectionId, RowId);

/// Where a tenant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The newest seq.
    pub seq: u64,
    /// Tombstones up to here were purged: a cursor below is too old for increments.
    pub horizon: u64,
    /// Changes when the store was restored from a backup; never 0.
    pub epoch: u64,
}

impl Head {
    /// The epoch that entropy gives: never 0 and never the present one.
    #[must_use]
    pub const fn next_epoch(self, entropy: u64) -> u64 {
        let mut epoch = entropy;
        while epoch == 0 || epoch == self.epoch {
            epoch = epoch.wrapping_add(1);
        }
        epoch
    }
}

/// What one device pushes in a group commit.
#[derive(Debug, Clone)]
pub struct DevicePush {
    /// Who pushes.
    pub device: DeviceId,
    /// The epoch that the device was told. In another one it has to compare digests first.
    pub epoch: u64,
    /// What it may write.
    pub grants: Vec<Grant>,
    /// The transaction up to which it has recorded the answers: they need not be kept.
    pub settled: u64,
    /// Its transactions in the order of their numbers.
    pub transactions: Vec<PushedTransaction>,
}

/// Pushes of several devices that commit together. One device appears once.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The server's wall clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// The pushes, in the order in which they apply.
    pub pushes: Vec<DevicePush>,
}

/// What became of one device's push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushResult {
    /// The answer to each transaction.
    Answered(Vec<PushOutcome>),
    /// A number came with other content than before: two replicas use one device id. Transactions before that
    /// number were answered.
    Forked {
        /// The answers up to the fork.
        answered: Vec<PushOutcome>,
        /// The number that came twice.
        number: u64,
    },
}

/// A durable group commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Where the tenant stood before.
    pub seq_before: u64,
    /// Where it stands now.
    pub seq: u64,
    /// One result for each push, in their order.
    pub results: Vec<PushResult>,
    /// The rows that changed, in the order of their seq.
    pub rows: Vec<ChangedRow>,
    /// The sums that changed, as the change of each total.
    pub totals: Vec<((Scope, CollectionId), Sum)>,
    /// Whether document changes became visible to readers that are not in `rows`, because their row came into
    /// another scope or back to life: readers then take a page instead of `rows`.
    pub documents_came_anew: bool,
}

/// A row as readers get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedRow {
    /// Its place in the tenant's order.
    pub seq: u64,
    /// The scope that it is in, or has left.
    pub scope: Scope,
    /// Its collection.
    pub collection: CollectionId,
    /// Its identity.
    pub row: RowId,
    /// What became of it.
    pub change: RowChange,
    /// The document changes that came with it, in an order in which each follows what it builds on.
    pub chunks: Vec<Chunk>,
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChange {
    /// It lives; these are its canonical bytes.
    State(Vec<u8>),
    /// It was deleted.
    Deleted(Stamp),
    /// It left the scope.
    Departed,
}

/// One change of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The document column.
    pub column: ColumnId,
    /// The bytes of the change chunk.
    pub bytes: Vec<u8>,
}

/// From where on one scope is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeRead {
    /// The scope.
    pub scope: Scope,
    /// The seq up to which its rows are held.
    pub after: u64,
    /// The seq up to which document changes are held of whatever row comes: the last checkpoint, or 0.
    ///
    /// Within a catch-up of several pages it lies below `after`: a row that changes meanwhile moves to a later page,
    /// and its earlier document changes have not come with any page before.
    pub changes_after: u64,
}

impl ScopeRead {
    /// Reads on from a checkpoint.
    #[must_use]
    pub const fn from_checkpoint(scope: Scope, seq: u64) -> Self {
        Self { scope, after: seq, changes_after: seq }
    }
}

/// What a device wants to read: each scope from after a seq.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// The scopes, each with what is already held.
    pub scopes: Vec<ScopeRead>,
    /// The page ends with the row that reaches this many bytes.
    pub target_bytes: usize,
    /// The page ends with this many rows.
    pub max_rows: usize,
}

/// A page of changes, read in one database snapshot.
#[derive(Debug, Clone)]
pub struct PageRead {
    /// Where the tenant stood at the snapshot.
    pub head: Head,
    /// The changes: scope after scope in the order of the request, by seq within a scope.
    pub rows: Vec<ChangedRow>,
    /// Where each requested scope stands after this page, in the order of the request.
    pub positions: Vec<u64>,
    /// Whether nothing is left: every position is the head, and `rows` complete a consistent state.
    pub complete: bool,
    /// The totals of the requested scopes at the snapshot, where the page is complete.
    pub totals: Totals,
}

/// A live row of one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketRow {
    /// Its identity.
    pub row: RowId,
    /// Its canonical bytes.
    pub state: Vec<u8>,
}

/// What the store knows of a device's transactions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceProgress {
    /// The highest number that was answered; 0 before the first.
    pub high_water: u64,
    /// The number up to which the device recorded the answers.
    pub settled: u64,
}

/// What has to be known of a tenant before a device is greeted.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// Where the tenant stands.
    pub head: Head,
    /// What is known of the device's transactions.
    pub progress: DeviceProgress,
    /// The tenant's digest key.
    pub digest_key: DigestKey,
    /// The version of the tenant's schema; 0 before the first.
    pub schema_version: u32,
}

/// The hot path.
#[async_trait]
pub trait SyncStore: Send + Sync {
    /// Where the tenant stands.
    async fn head(&self) -> Result<Head, StoreError>;

    /// The tenant's digest key.
    async fn digest_key(&self) -> Result<DigestKey, StoreError>;

    /// Applies pushes in one database transaction and returns when it is durable. [`StoreError::BegunAnew`] where a
    /// push is for another epoch.
    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError>;

    /// Reads changes after the given positions, in one snapshot.
    async fn page(&self, request: PageRequest) -> Result<PageRead, StoreError>;

    /// What the store knows of a device's transactions.
    async fn device_progress(&self, device: DeviceId) -> Result<DeviceProgress, StoreError>;

    /// What has to be known before a device is greeted.
    async fn greeting(&self, device: DeviceId) -> Result<Greeting, StoreError>;

    /// The sums of every collection in the given scopes.
    async fn buckets(
        &self,
        scopes: &[Scope],
    ) -> Result<BTreeMap<(Scope, CollectionId), Buckets>, StoreError>;

    /// The live rows of one bucket.
    async fn bucket_rows(
        &self,
        scope: &Scope,
        collection: CollectionId,
        bucket: u8,
    ) -> Result<Vec<BucketRow>, StoreError>;

    /// All changes of the documents of one row, in an order in which each follows what it builds on.
    async fn chunks(&self, key: RowKey) -> Result<Vec<Chunk>, StoreError>;

    /// Recomputes every sum from the stored rows and returns the collections whose stored sums differ: what
    /// was altered behind the store's back.
    async fn scrub(&self) -> Result<Vec<(Scope, CollectionId, u8)>, StoreError>;

    /// Removes tombstones and departures that are older than a wall-clock time and moves the horizon behind
    /// them, in one transaction. Returns how many were removed.
    async fn purge(&self, older_than_ms: u64) -> Result<u64, StoreError>;

    /// Whether the database may be replaced by one that lacks commits, as by a standby that was promoted: a new epoch
    /// then begins by itself, which whoever serves the tenant has to look for.
    fn may_begin_anew(&self) -> bool {
        false
    }

    /// Takes no more writes, on any node, while the tenant is moved: they fail with [`StoreError::Frozen`]. Whoever
    /// freezes it again takes over.
    async fn freeze(&self, by: MoveToken) -> Result<(), StoreError>;

    /// Takes writes again, unless another one has frozen it meanwhile.
    async fn thaw(&self, by: MoveToken) -> Result<(), StoreError>;

    /// Starts a new epoch, as after a restore from a backup. Returns it.
    async fn begin_epoch(&self, entropy: u64) -> Result<u64, StoreError>;
}

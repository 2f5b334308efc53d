//! The pure half of a commit: authorise, validate, clamp, merge, number.
//!
//! A back-end runs one database transaction: [`prepare`] says what to load, [`plan`] says what to write, and
//! nothing else decides. So memory, SQLite and Postgres cannot differ in what they accept.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use farshore_sync_core::digest::{DigestKey, Sum};
use farshore_sync_core::document::ChangeHash;
use farshore_sync_core::hlc::Hlc;
use farshore_sync_core::ids::{CollectionId, ColumnId, DeviceId, Scope};
use farshore_sync_core::schema::Schema;
use farshore_sync_core::wire::PushOutcome;

use crate::sync::{Committed, Head, RowKey};

mod decide;
mod prepare;
mod record;
#[cfg(test)]
mod tests;
mod validate;

pub use decide::plan;
pub use prepare::{Prepared, prepare};

/// What a commit has to load before it can be planned.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// Rows, where they exist.
    pub rows: BTreeSet<RowKey>,
    /// The marks of the pushing devices, where they exist.
    pub devices: BTreeSet<DeviceId>,
    /// Outcomes of the pushed numbers, where they are still kept.
    pub outcomes: BTreeSet<(DeviceId, u64)>,
    /// Document changes of which it matters whether the store has them.
    pub changes: BTreeSet<ChangeKey>,
}

/// One change of one document.
pub type ChangeKey = (RowKey, ColumnId, ChangeHash);

/// What was loaded.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The rows that exist.
    pub rows: HashMap<RowKey, StoredRow>,
    /// The devices that pushed before.
    pub devices: HashMap<DeviceId, DeviceMark>,
    /// The outcomes that are kept.
    pub outcomes: HashMap<(DeviceId, u64), StoredOutcome>,
    /// The changes that the store has.
    pub changes: HashSet<ChangeKey>,
}

/// A row as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// The scope that it is in.
    pub scope: Scope,
    /// Its canonical bytes; a deleted row keeps its values, for a restore.
    pub state: Vec<u8>,
}

/// What is remembered of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceMark {
    /// The highest number that was answered.
    pub high_water: u64,
    /// The number up to which the device recorded the answers.
    pub settled: u64,
    /// The last stamp under which something of it was stored.
    pub last_stamp: Hlc,
}

impl DeviceMark {
    /// The number up to which answers are to be forgotten: those that the device recorded, except the newest.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.settled.min(self.high_water.saturating_sub(1))
    }
}

/// The answer to a transaction, kept until the device has recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredOutcome {
    /// The first 16 bytes of the BLAKE3 hash of the transaction's bytes.
    pub content: [u8; 16],
    /// The answer.
    pub outcome: PushOutcome,
}

impl StoredOutcome {
    /// The answer as bytes, to store.
    #[must_use]
    pub fn answer_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(&self.outcome).expect("writing to memory cannot fail")
    }

    /// Reads what was stored; `None` where it is not that.
    #[must_use]
    pub fn from_stored(content: &[u8], answer: &[u8]) -> Option<Self> {
        let content = content.try_into().ok()?;
        Some(Self { content, outcome: minicbor::decode(answer).ok()? })
    }
}

/// Under what a commit is planned.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The tenant's schema.
    pub schema: &'a Schema,
    /// Where the tenant stands.
    pub head: Head,
    /// The tenant's digest key.
    pub digest_key: &'a DigestKey,
    /// The server's wall clock, in milliseconds since 1970.
    pub now_ms: u64,
}

/// What a commit writes. [`Plan::committed`] is what the caller gets once that is durable.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The answer.
    pub committed: Committed,
    /// Rows to insert or replace.
    pub rows: Vec<RowWrite>,
    /// Departures to insert: the row left the scope at that seq. An earlier departure of the row from the same
    /// scope is replaced; a departure from the scope in which the row now is, is removed.
    pub departures: Vec<Departure>,
    /// Document changes to insert.
    pub chunks: Vec<ChunkWrite>,
    /// Rows whose stored document changes all get this seq, because the row came into another scope or back to
    /// life: readers of that scope may have none of them.
    pub resequenced: Vec<(RowKey, u64)>,
    /// What to add to stored bucket sums, wrapping.
    pub digests: BTreeMap<(Scope, CollectionId), BTreeMap<u8, Sum>>,
    /// The marks of the devices that pushed.
    pub devices: Vec<(DeviceId, DeviceMark)>,
    /// Answers to keep. Those at or below the device's [`DeviceMark::forgotten`] are to be deleted.
    pub outcomes: Vec<(DeviceId, StoredOutcome)>,
}

/// A row to insert or replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowWrite {
    /// Which row.
    pub key: RowKey,
    /// The scope that it is in now.
    pub scope: Scope,
    /// Its place in the tenant's order.
    pub seq: u64,
    /// Its canonical bytes.
    pub state: Vec<u8>,
    /// Whether it is deleted.
    pub deleted: bool,
    /// When this was written, in milliseconds since 1970: the age of a tombstone.
    pub written_at_ms: u64,
}

/// A row that left a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// The scope that it left.
    pub scope: Scope,
    /// Which row.
    pub key: RowKey,
    /// Its place in the tenant's order.
    pub seq: u64,
    /// When it left, in milliseconds since 1970.
    pub written_at_ms: u64,
}

/// A document change to insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkWrite {
    /// Which change of which document.
    pub key: ChangeKey,
    /// Its place in the tenant's order; of two with one seq the earlier in this list comes first.
    pub seq: u64,
    /// The bytes of the change chunk.
    pub bytes: Vec<u8>,
}

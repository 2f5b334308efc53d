//! What one tenant holds in memory, and how a plan is written into it.

use std::collections::BTreeMap;
use std::sync::Arc;

use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::digest::DigestKey;
use farshore_sync_core::document::ChangeHash;
use farshore_sync_core::ids::{ColumnId, DeviceId, Scope};
use farshore_sync_core::schema::Schema;

use crate::devices::DeviceRecord;
use crate::placement::MoveToken;
use crate::plan::{
    ChunkWrite, Departure, DeviceMark, Loaded, Needs, Plan, RowWrite, StoredOutcome, StoredRow,
};
use crate::scrub::AllBuckets;
use crate::signing_keys::SigningKeyRecord;
use crate::sync::{Chunk, Committed, Head, RowKey};

/// Everything of one tenant.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub head: Head,
    pub digest_key: DigestKey,
    pub rows: BTreeMap<RowKey, RowWrite>,
    /// The rows that left a scope, by scope and row.
    pub departures: BTreeMap<(Scope, RowKey), Departure>,
    /// Rows and departures by scope and seq. A seq is given once, so the row's own seq tells which it is.
    pub order: BTreeMap<(Scope, u64), RowKey>,
    pub chunks: BTreeMap<RowKey, Vec<StoredChunk>>,
    pub sums: AllBuckets,
    pub marks: BTreeMap<DeviceId, DeviceMark>,
    pub outcomes: BTreeMap<(DeviceId, u64), StoredOutcome>,
    pub devices: BTreeMap<DeviceId, DeviceRecord>,
    pub signing_keys: Vec<SigningKeyRecord>,
    /// Every version of the schema, with the time at which it was registered, in milliseconds since 1970.
    pub schemas: Vec<(Arc<Schema>, u64)>,
    /// In milliseconds since 1970.
    pub created_at_ms: u64,
    /// Who moves the tenant.
    pub frozen_by: Option<MoveToken>,
}

/// One change of a document of a row.
#[derive(Debug, Clone)]
pub(super) struct StoredChunk {
    pub hash: ChangeHash,
    pub seq: u64,
    pub chunk: Chunk,
}

impl State {
    pub fn new(digest_key: DigestKey, entropy: u64, created_at_ms: u64) -> Self {
        let unborn = Head { seq: 0, horizon: 0, epoch: 0 };
        Self {
            head: Head { epoch: unborn.next_epoch(entropy), ..unborn },
            digest_key,
            rows: BTreeMap::new(),
            departures: BTreeMap::new(),
            order: BTreeMap::new(),
            chunks: BTreeMap::new(),
            sums: BTreeMap::new(),
            marks: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            devices: BTreeMap::new(),
            signing_keys: Vec::new(),
            schemas: Vec::new(),
            created_at_ms,
            frozen_by: None,
        }
    }

    /// The newest version of the schema.
    pub fn schema(&self) -> Option<&Arc<Schema>> {
        self.schemas.last().map(|(schema, _)| schema)
    }

    pub fn load(&self, needs: &Needs) -> Loaded {
        let row = |key: &RowKey| {
            let row = self.rows.get(key)?;
            Some((*key, StoredRow { scope: row.scope.clone(), state: row.state.clone() }))
        };
        let outcome = |key: &(DeviceId, u64)| Some((*key, self.outcomes.get(key)?.clone()));
        let mark = |device: &DeviceId| Some((*device, *self.marks.get(device)?));
        Loaded {
            rows: needs.rows.iter().filter_map(row).collect(),
            devices: needs.devices.iter().filter_map(mark).collect(),
            outcomes: needs.outcomes.iter().filter_map(outcome).collect(),
            changes: needs
                .changes
                .iter()
                .filter(|(row, column, hash)| self.has_change(row, *column, hash))
                .copied()
                .collect(),
        }
    }

    fn has_change(&self, row: &RowKey, column: ColumnId, hash: &ChangeHash) -> bool {
        let stored = self.chunks.get(row).into_iter().flatten();
        stored.into_iter().any(|stored| stored.chunk.column == column && stored.hash == *hash)
    }

    pub fn write(&mut self, plan: Plan) -> Committed {
        if bugs::planted(Bug::AnsweredAndLost) && plan.committed.seq.is_multiple_of(7) {
            return plan.committed;
        }
        plan.departures.into_iter().for_each(|departure| self.depart(departure));
        plan.rows.into_iter().for_each(|row| self.put(row));
        for (row, seq) in plan.resequenced {
            self.chunks.entry(row).or_default().iter_mut().for_each(|stored| stored.seq = seq);
        }
        plan.chunks.into_iter().for_each(|chunk| self.add_chunk(chunk));
        for (place, changes) in plan.digests {
            let sums = self.sums.entry(place).or_default();
            changes.into_iter().for_each(|(bucket, change)| sums.bucket_mut(bucket).add(change));
        }
        for (device, outcome) in plan.outcomes {
            if bugs::planted(Bug::AnswerForgotten) {
                continue;
            }
            self.outcomes.insert((device, outcome.outcome.number), outcome);
        }
        for (device, mark) in plan.devices {
            self.outcomes.retain(|(of, number), _| *of != device || *number > mark.forgotten());
            if !bugs::planted(Bug::MarkNotStored) {
                self.marks.insert(device, mark);
            }
        }
        self.head.seq = plan.committed.seq;
        plan.committed
    }

    fn depart(&mut self, departure: Departure) {
        let place = (departure.scope.clone(), departure.key);
        self.order.insert((departure.scope.clone(), departure.seq), departure.key);
        if let Some(earlier) = self.departures.insert(place, departure) {
            self.order.remove(&(earlier.scope, earlier.seq));
        }
    }

    fn put(&mut self, row: RowWrite) {
        if let Some(departure) = self.departures.remove(&(row.scope.clone(), row.key)) {
            self.order.remove(&(departure.scope, departure.seq));
        }
        self.order.insert((row.scope.clone(), row.seq), row.key);
        if let Some(before) = self.rows.insert(row.key, row) {
            self.order.remove(&(before.scope, before.seq));
        }
    }

    fn add_chunk(&mut self, write: ChunkWrite) {
        let (row, column, hash) = write.key;
        let chunk = Chunk { column, bytes: write.bytes };
        self.chunks.entry(row).or_default().push(StoredChunk { hash, seq: write.seq, chunk });
    }

    /// Removes old tombstones and departures and moves the horizon behind them.
    pub fn purge(&mut self, older_than_ms: u64) -> u64 {
        let old_rows =
            self.rows.values().filter(|row| row.deleted && row.written_at_ms < older_than_ms);
        let old_rows: Vec<_> = old_rows.map(|row| (row.key, row.scope.clone(), row.seq)).collect();
        let departures =
            self.departures.extract_if(.., |_, gone| gone.written_at_ms < older_than_ms);
        let departures: Vec<_> = departures.map(|(_, gone)| (gone.scope, gone.seq)).collect();
        let purged = old_rows.len() + departures.len();
        for (key, scope, seq) in old_rows {
            self.rows.remove(&key);
            self.chunks.remove(&key);
            self.forget(scope, seq);
        }
        departures.into_iter().for_each(|(scope, seq)| self.forget(scope, seq));
        purged as u64
    }

    fn forget(&mut self, scope: Scope, seq: u64) {
        self.order.remove(&(scope, seq));
        if !bugs::planted(Bug::PurgeWithoutHorizon) {
            self.head.horizon = self.head.horizon.max(seq);
        }
    }
}

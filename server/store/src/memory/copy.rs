//! Copies of a tenant in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use farshore_sync_core::digest::{DigestKey, bucket_of, row_sum};
use farshore_sync_core::document::ChangeHash;
use farshore_sync_core::hlc::Hlc;
use farshore_sync_core::ids::{CollectionId, ColumnId, DeviceId, RowId, Scope, TenantId, UserId};
use farshore_sync_core::schema::Schema;

use super::state::{State, StoredChunk};
use super::{Held, MemoryTenant, Tenants, check_arrival, lock};
use crate::catalog::CatalogError;
use crate::copy::{
    Arrival, Arriving, Batcher, ChangeRecord, ChunkRecord, CopyOut, ForgetRecord, PLAIN_TABLES,
    Record, RecordSink, StandingRecord, SumsRecord,
};
use crate::devices::DeviceRecord;
use crate::plan::{Departure, DeviceMark, RowWrite, StoredOutcome};
use crate::signing_keys::{SigningAlgorithm, SigningKeyRecord};
use crate::sql::{SqlRow, SqlValue};
use crate::sync::{Chunk, Head, RowKey};
use crate::{SharedTenantStore, StoreError};

const OPERATION: &str = "copy a tenant";

#[async_trait]
impl CopyOut for MemoryTenant {
    async fn copy_out(&self, sink: &mut dyn RecordSink) -> Result<(), StoreError> {
        hand_on(self.with(|state| state.records())?, sink).await
    }

    async fn copy_since(&self, seq: u64, sink: &mut dyn RecordSink) -> Result<(), StoreError> {
        hand_on(self.with(|state| state.records_since(seq))?, sink).await
    }
}

async fn hand_on(records: Vec<Record>, sink: &mut dyn RecordSink) -> Result<(), StoreError> {
    let mut batcher = Batcher::default();
    for record in records {
        if let Some(batch) = batcher.add(record) {
            sink.take(batch).await?;
        }
    }
    sink.take(batcher.finish()).await
}

/// A copy that arrives.
pub(super) struct MemoryArrival {
    pub tenants: Arc<Mutex<Tenants>>,
    pub tenant: TenantId,
    pub arriving: Arriving,
    pub store: Arc<MemoryTenant>,
    /// The copy of each tenant that began to arrive last.
    pub arrivals: Arc<Mutex<BTreeMap<TenantId, Weak<MemoryTenant>>>>,
}

impl MemoryArrival {
    fn is_the_last(&self) -> Result<(), StoreError> {
        let last = lock(&self.arrivals).get(&self.tenant).and_then(Weak::upgrade);
        let is_ours = last.is_some_and(|last| Arc::ptr_eq(&last, &self.store));
        is_ours.then_some(()).ok_or(StoreError::PushedAside)
    }
}

#[async_trait]
impl Arrival for MemoryArrival {
    async fn put(&mut self, records: Vec<Record>) -> Result<(), StoreError> {
        self.is_the_last()?;
        self.store.with(|state| records.into_iter().try_for_each(|record| state.take(record)))?
    }

    fn store(&self) -> SharedTenantStore {
        Arc::<MemoryTenant>::clone(&self.store)
    }

    async fn finish(self: Box<Self>) -> Result<SharedTenantStore, CatalogError> {
        let mut tenants = lock(&self.tenants);
        self.is_the_last()?;
        check_arrival(&tenants, &self.tenant, self.arriving)?;
        let before = tenants.insert(self.tenant, Some(Arc::clone(&self.store)));
        if let Some(before) = before.flatten() {
            before.end(Held::BegunAnew);
        }
        Ok(self.store)
    }
}

impl State {
    /// Everything, in the canonical order.
    fn records(&self) -> Vec<Record> {
        let mut records = self.records_before_rows();
        records.extend(self.order.iter().map(|((scope, seq), key)| self.change(scope, *seq, key)));
        for (key, chunks) in self.chunks.iter().filter(|(key, _)| self.rows.contains_key(*key)) {
            records.extend(chunks.iter().map(|stored| chunk_record(key, stored)));
        }
        records.extend(self.sums_records());
        records
    }

    /// What has changed since a seq, in the canonical order.
    fn records_since(&self, since: u64) -> Vec<Record> {
        let mut changed: BTreeMap<RowKey, Vec<(&Scope, u64)>> = BTreeMap::new();
        for ((_, seq), key) in &self.order {
            let is_living = self.rows.get(key).is_some_and(|row| row.seq == *seq && !row.deleted);
            if *seq > since || !is_living && *seq <= self.head.horizon {
                changed.entry(*key).or_default();
            }
        }
        for ((scope, seq), key) in &self.order {
            if let Some(places) = changed.get_mut(key) {
                places.push((scope, *seq));
            }
        }
        let mut records = self.records_before_rows();
        for (key, places) in &changed {
            let forget = ForgetRecord { collection: key.0.0, id: *key.1.as_bytes() };
            records.push(Record::Forget(forget));
            records.extend(places.iter().map(|(scope, seq)| self.change(scope, *seq, key)));
        }
        for key in changed.keys().filter(|key| self.rows.contains_key(*key)) {
            let chunks = self.chunks.get(key).into_iter().flatten();
            records.extend(chunks.map(|stored| chunk_record(key, stored)));
        }
        records.extend(self.sums_records());
        records
    }

    /// Where the tenant stands, and the rows of the plain tables.
    fn records_before_rows(&self) -> Vec<Record> {
        let Head { seq, horizon, epoch } = self.head;
        let (digest_key, created_at_ms) = (self.digest_key.0, self.created_at_ms);
        let standing = StandingRecord { seq, horizon, epoch, digest_key, created_at_ms };
        let mut records = vec![Record::Standing(standing)];
        for (place, rows) in (0..).zip(self.plain_tables()) {
            records.extend(rows.into_iter().map(|row| Record::Plain(place, SqlRow(row))));
        }
        records
    }

    fn sums_records(&self) -> impl Iterator<Item = Record> {
        self.sums.iter().filter_map(|((scope, collection), sums)| {
            SumsRecord::new(scope.as_str(), *collection, sums).map(Record::Sums)
        })
    }

    /// The rows of [`PLAIN_TABLES`], in their order.
    fn plain_tables(&self) -> [Vec<Vec<SqlValue>>; PLAIN_TABLES.len()] {
        let before = std::iter::once(0)
            .chain(self.schemas.iter().map(|(schema, _)| u64::from(schema.version)));
        let schemas = self.schemas.iter().zip(before).map(|((schema, at_ms), follows)| {
            let json = SqlValue::Text(schema.to_json());
            vec![u64::from(schema.version).into(), follows.into(), json, (*at_ms).into()]
        });
        let keys = (1_u64..).zip(&self.signing_keys).map(|(generation, key)| {
            vec![
                generation.into(),
                key.kid.as_str().into(),
                key.algorithm.as_str().into(),
                key.sealed_private_key.as_slice().into(),
                key.public_jwk.as_str().into(),
                key.created_at_ms.into(),
                key.retired_at_ms.into(),
            ]
        });
        let devices = self.devices.values().map(|device| {
            let grants = serde_json::to_string(&device.grants).expect("grants are plain");
            vec![
                device.id.as_bytes().into(),
                device.user.as_bytes().into(),
                device.name.as_str().into(),
                SqlValue::Text(grants),
                device.suspended.into(),
                device.created_at_ms.into(),
            ]
        });
        let marks = self.marks.iter().map(|(device, mark)| {
            let DeviceMark { high_water, settled, last_stamp } = *mark;
            vec![device.as_bytes().into(), high_water.into(), settled.into(), last_stamp.0.into()]
        });
        let outcomes = self.outcomes.iter().map(|((device, number), stored)| {
            let answer = SqlValue::Bytes(stored.answer_bytes());
            vec![device.as_bytes().into(), (*number).into(), (&stored.content).into(), answer]
        });
        [schemas.collect(), keys.collect(), devices.collect(), marks.collect(), outcomes.collect()]
    }

    fn change(&self, scope: &Scope, seq: u64, key: &RowKey) -> Record {
        let row = self.rows.get(key).filter(|row| row.seq == seq);
        let departed = self.departures.get(&(scope.clone(), *key));
        let written_at_ms = row.map(|row| row.written_at_ms);
        let written_at_ms = written_at_ms.or(departed.map(|departure| departure.written_at_ms));
        Record::Change(ChangeRecord {
            scope: scope.as_str().to_owned(),
            seq,
            kind: row.map_or(2, |row| row.deleted.into()),
            collection: key.0.0,
            id: *key.1.as_bytes(),
            written_at_ms: written_at_ms.unwrap_or_default(),
            has_chunks: row.is_some() && self.chunks.contains_key(key),
            state: row.map(|row| row.state.clone()).unwrap_or_default(),
        })
    }

    /// Takes a record of a copy in.
    fn take(&mut self, record: Record) -> Result<(), StoreError> {
        match record {
            Record::Standing(at) => {
                self.head = Head { seq: at.seq, horizon: at.horizon, epoch: at.epoch };
                self.digest_key = DigestKey(at.digest_key);
                self.created_at_ms = at.created_at_ms;
                self.forget_out_of_date();
            }
            Record::Forget(row) => {
                let key = (CollectionId(row.collection), RowId::from_bytes(row.id));
                self.forget_row(key);
            }
            Record::Plain(table, row) => self.take_plain(table, row)?,
            Record::Change(change) => self.take_change(change)?,
            Record::Chunk(chunk) => {
                let row = (CollectionId(chunk.collection), RowId::from_bytes(chunk.id));
                let stored = StoredChunk {
                    hash: ChangeHash(chunk.hash),
                    seq: chunk.seq,
                    chunk: Chunk { column: ColumnId(chunk.column), bytes: chunk.bytes },
                };
                self.chunks.entry(row).or_default().push(stored);
            }
            Record::Sums(sums) => {
                let place = (scope(&sums.scope)?, CollectionId(sums.collection));
                sums.check(self.sums.entry(place).or_default())?;
            }
        }
        Ok(())
    }

    /// Forgets what comes again after where the tenant stands, and what was purged.
    fn forget_out_of_date(&mut self) {
        self.schemas.clear();
        self.signing_keys.clear();
        self.devices.clear();
        self.marks.clear();
        self.outcomes.clear();
        let horizon = self.head.horizon;
        for row in self.rows.extract_if(.., |_, row| row.deleted && row.seq <= horizon) {
            self.order.remove(&(row.1.scope, row.1.seq));
            self.chunks.remove(&row.0);
        }
        for (_, gone) in self.departures.extract_if(.., |_, gone| gone.seq <= horizon) {
            self.order.remove(&(gone.scope, gone.seq));
        }
    }

    fn forget_row(&mut self, key: RowKey) {
        for (_, gone) in self.departures.extract_if(.., |(_, of), _| *of == key) {
            self.order.remove(&(gone.scope, gone.seq));
        }
        self.chunks.remove(&key);
        let Some(row) = self.rows.remove(&key) else { return };
        if !row.deleted {
            let sum = row_sum(&self.digest_key, key.0, key.1, &row.state);
            let sums = self.sums.entry((row.scope.clone(), key.0)).or_default();
            sums.bucket_mut(bucket_of(key.1)).remove(sum);
        }
        self.order.remove(&(row.scope, row.seq));
    }

    fn take_plain(&mut self, table: u8, mut row: SqlRow) -> Result<(), StoreError> {
        let row = &mut row;
        match PLAIN_TABLES[usize::from(table)].name {
            "schemas" => {
                let json: String = row.take(OPERATION, 2)?;
                let schema = Schema::parse(&json).map_err(|error| damaged(error.to_string()))?;
                self.schemas.push((Arc::new(schema), row.take(OPERATION, 3)?));
            }
            "signing_keys" => {
                let algorithm: String = row.take(OPERATION, 2)?;
                let algorithm = SigningAlgorithm::from_name(&algorithm);
                self.signing_keys.push(SigningKeyRecord {
                    kid: row.take(OPERATION, 1)?,
                    algorithm: algorithm.ok_or_else(|| damaged("an unknown algorithm"))?,
                    sealed_private_key: row.take(OPERATION, 3)?,
                    public_jwk: row.take(OPERATION, 4)?,
                    created_at_ms: row.take(OPERATION, 5)?,
                    retired_at_ms: row.take(OPERATION, 6)?,
                });
            }
            "devices" => {
                let grants: String = row.take(OPERATION, 3)?;
                let device = DeviceRecord {
                    id: DeviceId::from_bytes(row.take(OPERATION, 0)?),
                    user: UserId::from_bytes(row.take(OPERATION, 1)?),
                    name: row.take(OPERATION, 2)?,
                    grants: serde_json::from_str(&grants)
                        .map_err(|error| damaged(error.to_string()))?,
                    suspended: row.take(OPERATION, 4)?,
                    created_at_ms: row.take(OPERATION, 5)?,
                };
                self.devices.insert(device.id, device);
            }
            "marks" => {
                let mark = DeviceMark {
                    high_water: row.take(OPERATION, 1)?,
                    settled: row.take(OPERATION, 2)?,
                    last_stamp: Hlc(row.take(OPERATION, 3)?),
                };
                self.marks.insert(DeviceId::from_bytes(row.take(OPERATION, 0)?), mark);
            }
            "outcomes" => {
                let (content, answer): (Vec<u8>, Vec<u8>) =
                    (row.take(OPERATION, 2)?, row.take(OPERATION, 3)?);
                let stored = StoredOutcome::from_stored(&content, &answer);
                let stored = stored.ok_or_else(|| damaged("an answer that cannot be read"))?;
                let device = DeviceId::from_bytes(row.take(OPERATION, 0)?);
                self.outcomes.insert((device, row.take(OPERATION, 1)?), stored);
            }
            other => return Err(damaged(format!("a row of {other}"))),
        }
        Ok(())
    }

    fn take_change(&mut self, change: ChangeRecord) -> Result<(), StoreError> {
        let key = (CollectionId(change.collection), RowId::from_bytes(change.id));
        let (scope, seq, written_at_ms) = (scope(&change.scope)?, change.seq, change.written_at_ms);
        self.order.insert((scope.clone(), seq), key);
        if change.kind == 2 {
            let departure = Departure { scope: scope.clone(), key, seq, written_at_ms };
            self.departures.insert((scope, key), departure);
        } else {
            let (state, deleted) = (change.state, change.kind == 1);
            if !deleted {
                let sum = row_sum(&self.digest_key, key.0, key.1, &state);
                let sums = self.sums.entry((scope.clone(), key.0)).or_default();
                sums.bucket_mut(bucket_of(key.1)).add(sum);
            }
            let row = RowWrite { key, scope, seq, state, deleted, written_at_ms };
            self.rows.insert(key, row);
        }
        Ok(())
    }
}

fn chunk_record(key: &RowKey, stored: &StoredChunk) -> Record {
    Record::Chunk(ChunkRecord {
        collection: key.0.0,
        id: *key.1.as_bytes(),
        column: stored.chunk.column.0,
        seq: stored.seq,
        hash: stored.hash.0,
        bytes: stored.chunk.bytes.clone(),
    })
}

fn scope(name: &str) -> Result<Scope, StoreError> {
    name.parse().map_err(|error| damaged(format!("{error}")))
}

fn damaged(detail: impl Into<String>) -> StoreError {
    StoreError::Damaged { operation: OPERATION, detail: detail.into() }
}

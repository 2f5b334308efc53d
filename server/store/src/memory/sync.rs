//! The hot path in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::digest::{Buckets, DigestKey, Totals, bucket_of};
use farshore_sync_core::ids::{CollectionId, DeviceId, RowId, Scope};

use super::MemoryTenant;
use super::state::State;
use crate::StoreError;
use crate::page::{PageFill, Room, deletion_stamp};
use crate::placement::MoveToken;
use crate::plan::{Context, plan, prepare};
use crate::scrub::Recount;
use crate::sync::{
    Batch, BucketRow, ChangedRow, Chunk, Committed, DeviceProgress, Greeting, Head, PageRead,
    PageRequest, RowChange, RowKey, ScopeRead, SyncStore,
};

#[async_trait]
impl SyncStore for MemoryTenant {
    async fn head(&self) -> Result<Head, StoreError> {
        self.with(|state| state.head)
    }

    async fn digest_key(&self) -> Result<DigestKey, StoreError> {
        self.with(|state| state.digest_key.clone())
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        let now_ms = batch.now_ms;
        let prepared = prepare(batch);
        self.change(|state| {
            let loaded = state.load(prepared.needs());
            let context = Context {
                schema: state.schema().map(Arc::as_ref).ok_or(StoreError::NoSchema)?,
                head: state.head,
                digest_key: &state.digest_key,
                now_ms,
            };
            let plan = plan(prepared, loaded, &context)?;
            Ok(state.write(plan))
        })?
    }

    async fn page(&self, request: PageRequest) -> Result<PageRead, StoreError> {
        self.with(|state| state.page(&request))?
    }

    async fn device_progress(&self, device: DeviceId) -> Result<DeviceProgress, StoreError> {
        self.with(|state| {
            let mark = state.marks.get(&device).copied().unwrap_or_default();
            DeviceProgress { high_water: mark.high_water, settled: mark.settled }
        })
    }

    async fn greeting(&self, device: DeviceId) -> Result<Greeting, StoreError> {
        let progress = self.device_progress(device).await?;
        self.with(|state| Greeting {
            head: state.head,
            progress,
            digest_key: state.digest_key.clone(),
            schema_version: state.schema().map_or(0, |schema| schema.version),
        })
    }

    async fn buckets(
        &self,
        scopes: &[Scope],
    ) -> Result<BTreeMap<(Scope, CollectionId), Buckets>, StoreError> {
        self.with(|state| {
            let sums = scopes.iter().flat_map(|scope| state.sums_of(scope));
            sums.map(|(place, sums)| (place.clone(), sums.clone())).collect()
        })
    }

    async fn bucket_rows(
        &self,
        scope: &Scope,
        collection: CollectionId,
        bucket: u8,
    ) -> Result<Vec<BucketRow>, StoreError> {
        let first = (collection, RowId::from_bytes([0; 16]));
        let last = (collection, RowId::from_bytes([u8::MAX; 16]));
        self.with(|state| {
            let rows = state.rows.range(first..=last).map(|(_, row)| row);
            rows.filter(|row| !row.deleted && row.scope == *scope && bucket_of(row.key.1) == bucket)
                .map(|row| BucketRow { row: row.key.1, state: row.state.clone() })
                .collect()
        })
    }

    async fn chunks(&self, key: RowKey) -> Result<Vec<Chunk>, StoreError> {
        self.with(|state| state.chunks_after(&key, 0))
    }

    async fn scrub(&self) -> Result<Vec<(Scope, CollectionId, u8)>, StoreError> {
        self.with(|state| {
            let mut recount = Recount::new(state.digest_key.clone());
            for row in state.rows.values().filter(|row| !row.deleted) {
                recount.count(row.scope.clone(), row.key, &row.state);
            }
            recount.differing(&state.sums)
        })
    }

    async fn purge(&self, older_than_ms: u64) -> Result<u64, StoreError> {
        self.change(|state| state.purge(older_than_ms))
    }

    async fn freeze(&self, by: MoveToken) -> Result<(), StoreError> {
        self.with(|state| state.frozen_by = Some(by))
    }

    async fn thaw(&self, by: MoveToken) -> Result<(), StoreError> {
        self.with(|state| {
            state.frozen_by.take_if(|frozen_by| *frozen_by == by);
        })
    }

    async fn begin_epoch(&self, entropy: u64) -> Result<u64, StoreError> {
        self.change(|state| {
            state.head.epoch = state.head.next_epoch(entropy);
            state.head.epoch
        })
    }
}

impl State {
    fn page(&self, request: &PageRequest) -> Result<PageRead, StoreError> {
        let mut page = PageFill::new(request, self.head);
        'scopes: for ScopeRead { scope, after, changes_after } in &request.scopes {
            let skipped = u64::from(*after > 0 && bugs::planted(Bug::PageSkipsRow));
            let first = (scope.clone(), after.saturating_add(1 + skipped));
            for ((_, seq), key) in self.order.range(first..=(scope.clone(), u64::MAX)) {
                if page.room() == Room::Full {
                    break 'scopes;
                }
                page.push(self.changed_row(scope, *seq, key, *changes_after)?);
            }
            page.exhausted();
        }
        let scopes = request.scopes.iter().map(|read| &read.scope);
        let sums = scopes.flat_map(|scope| self.sums_of(scope));
        let totals: Totals = sums.map(|(place, sums)| (place.clone(), sums.total())).collect();
        Ok(page.finish(totals))
    }

    fn changed_row(
        &self,
        scope: &Scope,
        seq: u64,
        key: &RowKey,
        changes_after: u64,
    ) -> Result<ChangedRow, StoreError> {
        let (change, chunks) = match self.rows.get(key).filter(|row| row.seq == seq) {
            None => (RowChange::Departed, Vec::new()),
            Some(row) if row.deleted => {
                (RowChange::Deleted(deletion_stamp(&row.state)?), Vec::new())
            }
            Some(row) => {
                (RowChange::State(row.state.clone()), self.chunks_after(key, changes_after))
            }
        };
        Ok(ChangedRow { seq, scope: scope.clone(), collection: key.0, row: key.1, change, chunks })
    }

    fn chunks_after(&self, key: &RowKey, after: u64) -> Vec<Chunk> {
        let stored = self.chunks.get(key).into_iter().flatten();
        stored.filter(|stored| stored.seq > after).map(|stored| stored.chunk.clone()).collect()
    }

    fn sums_of(&self, scope: &Scope) -> impl Iterator<Item = (&(Scope, CollectionId), &Buckets)> {
        let first = (scope.clone(), CollectionId(0));
        self.sums.range(first..=(scope.clone(), CollectionId(u16::MAX)))
    }
}

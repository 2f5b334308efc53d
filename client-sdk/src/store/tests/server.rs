//! A server as small as it can be: latest states by seq, applied with the functions that the real one uses.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use farshore_sync_core::digest::{Buckets, DigestKey, Sum, bucket_of, root, row_sum};
use farshore_sync_core::document::inspect;
use farshore_sync_core::hlc::{Hlc, Stamp, clamp};
use farshore_sync_core::ids::{CollectionId, ColumnId, DeviceId, RowId, Scope};
use farshore_sync_core::mutation::{Op, Transaction};
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::replica::Standing;
use farshore_sync_core::row::RowState;
use farshore_sync_core::schema::Schema;
use farshore_sync_core::wire::{
    BucketListing, Checkpoint, ChunkEntry, Grant, Page, PositionUpdate, PushOutcome, Refill,
    RefusedMutation, Repair, Rights, RowEntry, RowPayload, SumsEntry, Welcome, scopes_hash,
    sorted_grants,
};

use super::harness::{NOW, SCHEMA};

type RowKey = (CollectionId, RowId);

#[derive(Debug, Clone)]
pub struct ServerRow {
    pub scope: Scope,
    pub state: RowState,
    pub seq: u64,
    pub chunks: Vec<(ColumnId, Vec<u8>)>,
}

#[derive(Debug, Clone, Default)]
struct DeviceMark {
    high_water: u64,
    last_stamp: Hlc,
    outcomes: BTreeMap<u64, PushOutcome>,
}

/// The server. A clone of it is a backup.
#[derive(Debug, Clone)]
pub struct Server {
    pub schema: Schema,
    pub seq: u64,
    pub epoch: u64,
    pub grants: Vec<Grant>,
    pub rows: BTreeMap<RowKey, ServerRow>,
    departures: BTreeMap<(Scope, RowKey), u64>,
    marks: BTreeMap<DeviceId, DeviceMark>,
    /// Transactions that it refuses whatever they hold.
    pub refuse: BTreeMap<(DeviceId, u64), ReasonCode>,
    /// What it answers the next greeting with.
    pub refill: Refill,
    pub key: DigestKey,
    pub rows_per_page: usize,
    pub now_ms: u64,
}

impl Server {
    pub fn new() -> Self {
        let grant = |scope: &str, rights| Grant { scope: scope.parse().unwrap(), rights };
        Self {
            schema: Schema::parse(SCHEMA).unwrap(),
            seq: 0,
            epoch: 7,
            grants: vec![
                grant("tenant", Rights::Write),
                grant("site/a", Rights::Write),
                grant("site/b", Rights::Write),
            ],
            rows: BTreeMap::new(),
            departures: BTreeMap::new(),
            marks: BTreeMap::new(),
            refuse: BTreeMap::new(),
            refill: Refill::No,
            key: DigestKey([3; 32]),
            rows_per_page: 1_000,
            now_ms: NOW,
        }
    }

    pub fn welcome(&self, device: DeviceId, standing: &Standing) -> Welcome {
        let granted = sorted_grants(self.grants.clone());
        let known_epoch = standing.epoch == 0 || standing.epoch == self.epoch;
        Welcome {
            server_time_ms: self.now_ms,
            epoch: self.epoch,
            head: self.seq,
            high_water: self.marks.get(&device).map_or(0, |mark| mark.high_water),
            schema_version: self.schema.version,
            grants: (scopes_hash(&granted) != standing.scopes_hash).then_some(granted),
            digest_key: (standing.epoch == 0).then_some(self.key.0.into()),
            refill: if known_epoch { self.refill } else { Refill::NewEpoch },
        }
    }

    pub fn push(&mut self, device: DeviceId, transactions: &[(u64, Vec<u8>)]) -> Vec<PushOutcome> {
        transactions
            .iter()
            .map(|(number, bytes)| self.transaction(device, *number, bytes))
            .collect()
    }

    fn transaction(&mut self, device: DeviceId, number: u64, bytes: &[u8]) -> PushOutcome {
        let mut mark = self.marks.get(&device).cloned().unwrap_or_default();
        if number <= mark.high_water {
            return mark.outcomes[&number].clone();
        }
        let transaction = Transaction::decode(bytes).unwrap();
        assert_eq!(transaction.number, number);
        assert_eq!(transaction.encode(), bytes, "the outbox holds canonical bytes");
        let latest_of_rows = || {
            let rows = transaction.mutations.iter();
            let latest = rows.filter_map(|mutation| {
                self.rows.get(&(mutation.collection, mutation.row))?.state.latest_hlc()
            });
            latest.max().unwrap_or(Hlc::ZERO)
        };
        let hlc = clamp(transaction.stamp, mark.last_stamp, latest_of_rows, self.now_ms);
        let refused = match self.apply(device, &transaction, Stamp { hlc, device }) {
            Ok(()) => {
                mark.last_stamp = hlc;
                None
            }
            Err((index, code)) => {
                Some(RefusedMutation { index: index as u32, code, message: "no".to_owned() })
            }
        };
        let corrected = (hlc != transaction.stamp).then_some(hlc);
        let outcome = PushOutcome { number, seq: self.seq, refused, corrected };
        mark.high_water = number;
        mark.outcomes.insert(number, outcome.clone());
        self.marks.insert(device, mark);
        outcome
    }

    fn apply(
        &mut self,
        device: DeviceId,
        transaction: &Transaction,
        stamp: Stamp,
    ) -> Result<(), (usize, ReasonCode)> {
        if let Some(code) = self.refuse.get(&(device, transaction.number)) {
            return Err((0, *code));
        }
        let mut draft: BTreeMap<RowKey, ServerRow> = BTreeMap::new();
        for (index, mutation) in transaction.mutations.iter().enumerate() {
            let key = (mutation.collection, mutation.row);
            let before = draft.get(&key).or_else(|| self.rows.get(&key)).cloned();
            let mut chunks = before.as_ref().map_or_else(Vec::new, |row| row.chunks.clone());
            let mut op = mutation.op.clone();
            let mut new_change = None;
            match &mut op {
                Op::Document { column, change } => {
                    let known = |hash| {
                        chunks
                            .iter()
                            .any(|(at, bytes)| at == column && inspect(bytes).unwrap().hash == hash)
                    };
                    let inspected =
                        inspect(change).map_err(|_| (index, ReasonCode::BadDocumentChange))?;
                    let genesis = self.genesis(key.0, *column);
                    if !inspected
                        .deps
                        .iter()
                        .all(|dependency| known(*dependency) || Some(*dependency) == genesis)
                    {
                        return Err((index, ReasonCode::MissingDependency));
                    }
                    new_change = (!known(inspected.hash)).then_some(inspected.hash);
                    if new_change.is_some() {
                        chunks.push((*column, change.clone()));
                    }
                }
                Op::Offer { state } => state.documents.clear(),
                _ => {}
            }
            let state = RowState::apply(
                before.as_ref().map(|row| row.state.clone()),
                op,
                stamp,
                new_change.as_ref(),
            )
            .map_err(|error| (index, error.into()))?;
            let scope = self.scope_of(key.0, &state).ok_or((index, ReasonCode::NoScope))?;
            let may_write = self
                .grants
                .iter()
                .any(|grant| grant.scope == scope && grant.rights == Rights::Write);
            if !may_write {
                return Err((index, ReasonCode::PermissionDenied));
            }
            draft.insert(key, ServerRow { scope, state, seq: 0, chunks });
        }
        for (key, row) in draft {
            self.put(key, row);
        }
        Ok(())
    }

    /// Writes a row as if another device had: the state is merged from an operation under a stamp of its own.
    pub fn edit(&mut self, device: DeviceId, stamp_ms: u64, mutation: (RowKey, Op)) {
        let (key, op) = mutation;
        let before = self.rows.get(&key).cloned();
        let stamp = Stamp { hlc: Hlc::from_wall_ms(stamp_ms), device };
        let state =
            RowState::apply(before.as_ref().map(|row| row.state.clone()), op, stamp, None).unwrap();
        let scope = self.scope_of(key.0, &state).unwrap();
        let chunks = before.map_or_else(Vec::new, |row| row.chunks);
        self.put(key, ServerRow { scope, state, seq: 0, chunks });
    }

    fn put(&mut self, key: RowKey, mut row: ServerRow) {
        let same = |before: &&ServerRow| {
            before.scope == row.scope && before.state == row.state && before.chunks == row.chunks
        };
        if self.rows.get(&key).filter(same).is_some() {
            return;
        }
        let left = self
            .rows
            .get(&key)
            .map(|before| before.scope.clone())
            .filter(|scope| *scope != row.scope);
        self.seq += 1;
        row.seq = self.seq;
        self.departures.remove(&(row.scope.clone(), key));
        self.rows.insert(key, row);
        if let Some(left) = left {
            self.seq += 1;
            self.departures.insert((left, key), self.seq);
        }
    }

    /// Forgets deleted rows and departures, as after the retention.
    pub fn purge(&mut self) {
        self.rows.retain(|_, row| !row.state.is_deleted());
        self.departures.clear();
    }

    fn scope_of(&self, collection: CollectionId, state: &RowState) -> Option<Scope> {
        let collection = self.schema.collection(collection)?;
        collection.scope.resolve(|name| {
            let column = collection.column_named(name)?;
            let value = state.value(column.column_id()).map(Cow::Borrowed);
            Some(value.unwrap_or_else(|| Cow::Owned(column.default_value())))
        })
    }

    fn genesis(
        &self,
        collection: CollectionId,
        column: ColumnId,
    ) -> Option<farshore_sync_core::document::ChangeHash> {
        let root = &self.schema.collection(collection)?.column(column)?.root;
        farshore_sync_core::document::genesis(root).map(|change| change.hash)
    }

    /// Everything after where the device stands; the last page has the checkpoint.
    pub fn pages(&self, standing: &Standing) -> Vec<Page> {
        let granted = sorted_grants(self.grants.clone());
        let position = |scope: &Scope| {
            let explicit = standing.positions.iter().find(|position| position.scope == *scope);
            explicit.map_or(standing.cursor, |position| position.seq)
        };
        let mut pages = vec![Page::default()];
        for (index, grant) in granted.iter().enumerate() {
            let index = index as u16;
            for (seq, entry, chunks) in self.after(&grant.scope, position(&grant.scope), index) {
                if pages.last().unwrap().rows.len() >= self.rows_per_page {
                    pages.push(Page::default());
                }
                let page = pages.last_mut().unwrap();
                page.rows.push(entry);
                page.chunks.extend(chunks);
                page.positions.retain(|update| update.scope != index);
                page.positions.push(PositionUpdate { scope: index, seq });
            }
        }
        pages.last_mut().unwrap().checkpoint =
            Some(Checkpoint { seq: self.seq, root: self.root() });
        pages
    }

    fn after(
        &self,
        scope: &Scope,
        position: u64,
        index: u16,
    ) -> Vec<(u64, RowEntry, Vec<ChunkEntry>)> {
        let mut found = Vec::new();
        for (key, row) in
            self.rows.iter().filter(|(_, row)| row.scope == *scope && row.seq > position)
        {
            let (payload, chunks) = match row.state.life {
                Some(life) if life.deleted => (RowPayload::Deleted(life.stamp), Vec::new()),
                _ => (RowPayload::State(row.state.encode().into()), Self::chunks_of(*key, row)),
            };
            let entry = RowEntry { scope: index, collection: key.0, row: key.1, payload };
            found.push((row.seq, entry, chunks));
        }
        for ((_, key), seq) in
            self.departures.iter().filter(|((left, _), seq)| left == scope && **seq > position)
        {
            let entry = RowEntry {
                scope: index,
                collection: key.0,
                row: key.1,
                payload: RowPayload::Departed,
            };
            found.push((*seq, entry, Vec::new()));
        }
        found.sort_by_key(|(seq, ..)| *seq);
        found
    }

    fn chunks_of(key: RowKey, row: &ServerRow) -> Vec<ChunkEntry> {
        let entry = |(column, bytes): &(ColumnId, Vec<u8>)| ChunkEntry {
            collection: key.0,
            row: key.1,
            column: *column,
            change: bytes.clone().into(),
        };
        row.chunks.iter().map(entry).collect()
    }

    /// The buckets of everything granted, computed from the rows.
    pub fn buckets(&self) -> BTreeMap<(Scope, CollectionId), Buckets> {
        let granted: BTreeSet<&Scope> = self.grants.iter().map(|grant| &grant.scope).collect();
        let mut buckets: BTreeMap<(Scope, CollectionId), Buckets> = BTreeMap::new();
        for (key, row) in &self.rows {
            if granted.contains(&row.scope) && !row.state.is_deleted() {
                let sum = row_sum(&self.key, key.0, key.1, &row.state.encode());
                buckets
                    .entry((row.scope.clone(), key.0))
                    .or_default()
                    .bucket_mut(bucket_of(key.1))
                    .add(sum);
            }
        }
        buckets
    }

    pub fn root(&self) -> Sum {
        root(
            self.buckets()
                .iter()
                .map(|((scope, collection), buckets)| (scope, *collection, buckets.total())),
        )
    }

    /// The answer to a comparison.
    pub fn sums(&self) -> Vec<SumsEntry> {
        let buckets = self.buckets().into_iter();
        buckets
            .map(|((scope, collection), buckets)| SumsEntry {
                scope,
                collection,
                buckets: buckets.to_bytes().into(),
            })
            .collect()
    }

    /// The answer to bucket listings.
    pub fn repair(&self, listings: &[BucketListing]) -> Repair {
        let granted = sorted_grants(self.grants.clone());
        let mut repair =
            Repair { rows: Vec::new(), chunks: Vec::new(), unknown: Vec::new().into() };
        let mut unknown = Vec::new();
        for listing in listings {
            let index =
                granted.iter().position(|grant| grant.scope == listing.scope).unwrap() as u16;
            let mut held: BTreeSet<Vec<u8>> =
                listing.hashes.chunks_exact(8).map(<[u8]>::to_vec).collect();
            for (key, row) in &self.rows {
                let here = row.scope == listing.scope
                    && key.0 == listing.collection
                    && bucket_of(key.1) == listing.bucket;
                if !here || row.state.is_deleted() {
                    continue;
                }
                let bytes = row.state.encode();
                let short = row_sum(&self.key, key.0, key.1, &bytes).short().to_le_bytes().to_vec();
                if !held.remove(&short) {
                    let payload = RowPayload::State(bytes.into());
                    repair.rows.push(RowEntry {
                        scope: index,
                        collection: key.0,
                        row: key.1,
                        payload,
                    });
                    repair.chunks.extend(Self::chunks_of(*key, row));
                }
            }
            unknown.extend(held.into_iter().flatten());
        }
        repair.unknown = unknown.into();
        repair
    }
}

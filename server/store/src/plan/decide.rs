//! Deciding what a batch does, transaction by transaction, and what is written for it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::digest::{Sum, bucket_of, row_sum};
use farshore_sync_core::document::{self, Change, ChangeHash};
use farshore_sync_core::hlc::{Hlc, MAX_FUTURE_DRIFT_MS, Stamp, clamp};
use farshore_sync_core::ids::{CollectionId, ColumnId, DeviceId, Scope};
use farshore_sync_core::mutation::{Mutation, Op, Transaction};
use farshore_sync_core::reason::{ReasonCode, Refusal};
use farshore_sync_core::row::RowState;
use farshore_sync_core::schema::Collection;
use farshore_sync_core::wire::limits::{MAX_ROW_BYTES, MAX_SENTENCE_BYTES, MAX_SET_ELEMENTS};
use farshore_sync_core::wire::{Grant, PushOutcome, RefusedMutation, Rights};

use super::prepare::Prepared;
use super::validate::{trusted_part, validate};
use super::{
    ChangeKey, ChunkWrite, Context, Departure, DeviceMark, Loaded, Plan, RowWrite, StoredOutcome,
};
use crate::StoreError;
use crate::pushed::{PushedTransaction, ReadTransaction};
use crate::sync::{ChangedRow, Chunk, Committed, DevicePush, PushResult, RowChange, RowKey};

/// Most changes of one document.
pub const MAX_DOCUMENT_CHANGES: u32 = 1_000_000;

/// Decides a batch.
///
/// # Errors
/// [`StoreError::Damaged`] where a loaded row cannot be read, and [`StoreError::BegunAnew`] where a device was told
/// another epoch; nothing is to be written then.
pub fn plan(prepared: Prepared, loaded: Loaded, context: &Context<'_>) -> Result<Plan, StoreError> {
    if prepared.pushes.iter().any(|push| push.epoch != context.head.epoch) {
        return Err(StoreError::BegunAnew);
    }
    let mut planner = Planner::new(loaded, prepared.needs().rows.len(), *context)?;
    let results = prepared.pushes.into_iter().map(|push| planner.push(push)).collect();
    Ok(planner.finish(results))
}

/// A row as the batch has changed it so far.
#[derive(Debug, Clone)]
struct Working {
    scope: Scope,
    state: RowState,
    chunks: Vec<(ColumnId, Change)>,
}

struct Planner<'a> {
    context: Context<'a>,
    before: HashMap<RowKey, (Scope, RowState, Vec<u8>)>,
    /// The changed rows in the order in which they were first changed.
    rows: Vec<(RowKey, Working)>,
    /// Where each of them is.
    places: HashMap<RowKey, usize>,
    changes: HashSet<ChangeKey>,
    marks: HashMap<DeviceId, DeviceMark>,
    outcomes: HashMap<(DeviceId, u64), StoredOutcome>,
    answered: Vec<(DeviceId, u64)>,
    pushed: Vec<DeviceId>,
    geneses: HashMap<(CollectionId, ColumnId), Option<ChangeHash>>,
}

impl<'a> Planner<'a> {
    /// `rows` are as many as the batch touches.
    fn new(loaded: Loaded, rows: usize, context: Context<'a>) -> Result<Self, StoreError> {
        let mut before = HashMap::with_capacity(loaded.rows.len());
        for (key, row) in loaded.rows {
            let state = RowState::decode(&row.state).map_err(|error| StoreError::Damaged {
                operation: "plan a commit",
                detail: format!("row {} of collection {}: {error}", key.1, key.0),
            })?;
            before.insert(key, (row.scope, state, row.state));
        }
        Ok(Self {
            context,
            before,
            rows: Vec::with_capacity(rows),
            places: HashMap::with_capacity(rows),
            changes: loaded.changes,
            marks: loaded.devices,
            outcomes: loaded.outcomes,
            answered: Vec::new(),
            pushed: Vec::new(),
            geneses: HashMap::new(),
        })
    }

    fn push(&mut self, mut push: DevicePush) -> PushResult {
        let transactions = std::mem::take(&mut push.transactions);
        let mut mark = self.marks.get(&push.device).copied().unwrap_or_default();
        // A store may take its time to delete an answer.
        let forgotten = mark.forgotten();
        mark.settled = mark.settled.max(push.settled.min(mark.high_water));
        let mut answered = Vec::with_capacity(transactions.len());
        let mut fork = None;
        for transaction in transactions {
            let (number, content) = (transaction.number(), transaction.content());
            if number <= mark.high_water {
                match self.outcomes.get(&(push.device, number)) {
                    Some(kept) if kept.content == content && number > forgotten => {
                        answered.push(kept.outcome.clone());
                    }
                    _ => {
                        fork = Some(number);
                        break;
                    }
                }
                continue;
            }
            let outcome = self.transaction(&push, &mut mark, transaction);
            mark.high_water = number;
            self.outcomes
                .insert((push.device, number), StoredOutcome { content, outcome: outcome.clone() });
            self.answered.push((push.device, number));
            answered.push(outcome);
        }
        self.marks.insert(push.device, mark);
        self.pushed.push(push.device);
        match fork {
            Some(number) => PushResult::Forked { answered, number },
            None => PushResult::Answered(answered),
        }
    }

    /// One new transaction: all of its mutations apply, or it is refused for the first that does not.
    ///
    /// Rows that are offered together have nothing to do with each other: the others apply, since what was written after
    /// the offer may be on its way already.
    fn transaction(
        &mut self,
        push: &DevicePush,
        mark: &mut DeviceMark,
        pushed: PushedTransaction,
    ) -> PushOutcome {
        // The seq is filled in when the batch is numbered.
        let number = pushed.number();
        let mut outcome = PushOutcome { number, seq: 0, refused: None, corrected: None };
        let read = match pushed.body {
            Ok(read) => read,
            Err(error) => {
                outcome.refused = Some(refused(0, Refusal::new(ReasonCode::Malformed, error)));
                return outcome;
            }
        };
        let latest_of_rows = || self.latest_of_rows(&read.transaction);
        let (sent, now_ms) = (read.transaction.stamp, self.context.now_ms);
        let hlc = clamp(sent, mark.last_stamp, latest_of_rows, now_ms);
        outcome.corrected = (hlc != read.transaction.stamp).then_some(hlc);
        let stamp = Stamp { hlc, device: push.device };
        let mut draft = Draft { first_new: self.rows.len(), ..Draft::default() };
        match self.mutations(&mut draft, &push.grants, stamp, read) {
            Ok(refused_offer) => {
                mark.last_stamp = hlc;
                self.changes.extend(draft.changes);
                outcome.refused = refused_offer.map(|(index, refusal)| refused(index, refusal));
            }
            Err((index, refusal)) => {
                self.take_back(draft);
                outcome.refused = Some(refused(index, refusal));
            }
        }
        outcome
    }

    /// The first refused offer where it is a transaction of offers; an error where nothing of it may be kept.
    fn mutations(
        &mut self,
        draft: &mut Draft,
        grants: &[Grant],
        stamp: Stamp,
        read: ReadTransaction,
    ) -> Result<Option<(usize, Refusal)>, (usize, Refusal)> {
        let is_offer = |mutation: &Mutation| matches!(mutation.op, Op::Offer { .. });
        let are_offers = read.transaction.mutations.iter().all(is_offer);
        let mut refused_offer = None;
        let mutations = read.transaction.mutations.into_iter().zip(read.changes);
        for (index, (mutation, change)) in mutations.enumerate() {
            let change = change.transpose().map_err(|error| {
                (index, Refusal::new(ReasonCode::BadDocumentChange, error.to_string()))
            })?;
            match self.mutation(draft, grants, stamp, mutation, change) {
                Ok(()) => {}
                Err(_) if index > 0 && bugs::planted(Bug::TransactionInPart) => break,
                Err(refusal) if are_offers => {
                    refused_offer.get_or_insert((index, refusal));
                }
                Err(refusal) => return Err((index, refusal)),
            }
        }
        Ok(refused_offer)
    }

    fn mutation(
        &mut self,
        draft: &mut Draft,
        grants: &[Grant],
        stamp: Stamp,
        mutation: Mutation,
        change: Option<Change>,
    ) -> Result<(), Refusal> {
        let collection = validate(self.context.schema, &mutation)?;
        let key = (mutation.collection, mutation.row);
        let place = self.places.get(&key).copied();
        if let Some((scope, _)) = self.current(&key, place) {
            authorise_existing(grants, scope, &mutation.op)?;
        }
        let new_change = match &change {
            Some(change) => self.new_change(draft, collection, &mutation, change)?,
            None => None,
        };
        let op = match mutation.op {
            Op::Offer { state } => {
                Op::Offer { state: Box::new(trusted_part(&state, self.latest_stamp())) }
            }
            op => op,
        };
        let op = match self.before_transaction(draft, &key, place) {
            Some(before) => before.not_done_yet(op, stamp),
            None => op,
        };
        let document_column = match &op {
            Op::Document { column, .. } => Some(*column),
            _ => None,
        };
        let before = self.current(&key, place).map(|(_, state)| state.clone());
        let state = RowState::apply(before, op, stamp, new_change.as_ref())
            .map_err(|error| Refusal::new(error.into(), format!("{}: {error}", collection.name)))?;
        check_size(collection, &state)?;
        let scope = scope_of(collection, &state)?;
        if !may_write(grants, &scope) {
            let message = format!("{}: no right to write in the scope {scope}", collection.name);
            return Err(Refusal::new(ReasonCode::PermissionDenied, message));
        }
        let mut chunks = place.map(|place| self.rows[place].1.chunks.clone()).unwrap_or_default();
        if let (Some(hash), Some(change), Some(column)) = (new_change, change, document_column) {
            draft.changes.insert((key, column, hash));
            chunks.push((column, change));
        }
        self.put(draft, key, place, Working { scope, state, chunks });
        Ok(())
    }

    fn put(&mut self, draft: &mut Draft, key: RowKey, place: Option<usize>, row: Working) {
        match place {
            None => {
                self.places.insert(key, self.rows.len());
                self.rows.push((key, row));
            }
            Some(place) => {
                let before = std::mem::replace(&mut self.rows[place].1, row);
                if place < draft.first_new {
                    draft.replaced.entry(place).or_insert(before);
                }
            }
        }
    }

    /// Makes undone what a refused transaction did.
    fn take_back(&mut self, draft: Draft) {
        for (place, before) in draft.replaced {
            self.rows[place].1 = before;
        }
        for (key, _) in self.rows.drain(draft.first_new..) {
            self.places.remove(&key);
        }
    }

    /// The hash of a document change that the store does not have yet; `None` where it has it.
    fn new_change(
        &mut self,
        draft: &Draft,
        collection: &Collection,
        mutation: &Mutation,
        change: &Change,
    ) -> Result<Option<ChangeHash>, Refusal> {
        let Op::Document { column, .. } = &mutation.op else { return Ok(None) };
        let key = (mutation.collection, mutation.row);
        let known = |planner: &Self, hash: &ChangeHash| {
            let change_key = (key, *column, *hash);
            planner.changes.contains(&change_key) || draft.changes.contains(&change_key)
        };
        if known(self, &change.hash) {
            return Ok(None);
        }
        for dependency in &change.deps {
            if !known(self, dependency) && self.genesis(collection, *column) != Some(*dependency) {
                let message =
                    format!("{}: the document lacks the change {dependency}", collection.name);
                return Err(Refusal::new(ReasonCode::MissingDependency, message));
            }
        }
        Ok(Some(change.hash))
    }

    fn genesis(&mut self, collection: &Collection, column: ColumnId) -> Option<ChangeHash> {
        *self.geneses.entry((collection.collection_id(), column)).or_insert_with(|| {
            let root = &collection.column(column)?.root;
            document::genesis(root).map(|change| change.hash)
        })
    }

    /// The latest stamp of the rows that a transaction changes.
    fn latest_of_rows(&self, transaction: &Transaction) -> Hlc {
        let rows = transaction.mutations.iter().filter_map(|mutation| {
            let key = (mutation.collection, mutation.row);
            self.current(&key, self.places.get(&key).copied())?.1.latest_hlc()
        });
        rows.max().unwrap_or(Hlc::ZERO)
    }

    fn latest_stamp(&self) -> Hlc {
        Hlc::from_wall_ms(self.context.now_ms.saturating_add(MAX_FUTURE_DRIFT_MS))
    }

    /// A row without what the transaction under way does to it; `place` is where the batch has changed it.
    fn before_transaction<'p>(
        &'p self,
        draft: &'p Draft,
        key: &RowKey,
        place: Option<usize>,
    ) -> Option<&'p RowState> {
        let place = place.filter(|place| *place < draft.first_new);
        match place.and_then(|place| draft.replaced.get(&place)) {
            Some(replaced) => Some(&replaced.state),
            None => self.current(key, place).map(|(_, state)| state),
        }
    }

    /// A row as the batch found it or has changed it so far; `place` is where it has changed it.
    fn current(&self, key: &RowKey, place: Option<usize>) -> Option<(&Scope, &RowState)> {
        match place {
            Some(place) => self.rows.get(place).map(|(_, row)| (&row.scope, &row.state)),
            None => self.before.get(key).map(|(scope, state, _)| (scope, state)),
        }
    }

    fn finish(mut self, results: Vec<PushResult>) -> Plan {
        let seq_before = self.context.head.seq;
        let mut writer = Writer::new(self.context, self.rows.len());
        for (key, row) in self.rows {
            writer.row(key, self.before.get(&key), row);
        }
        let seq = writer.seq;
        let answered: BTreeSet<_> = self.answered.iter().copied().collect();
        let number_outcome = |device, mut outcome: PushOutcome| {
            if answered.contains(&(device, outcome.number)) {
                outcome.seq = seq;
            }
            outcome
        };
        let number_all = |device, outcomes: Vec<PushOutcome>| {
            outcomes.into_iter().map(|outcome| number_outcome(device, outcome)).collect()
        };
        let results = results.into_iter().zip(&self.pushed).map(|(result, device)| match result {
            PushResult::Answered(outcomes) => PushResult::Answered(number_all(*device, outcomes)),
            PushResult::Forked { answered, number } => {
                PushResult::Forked { answered: number_all(*device, answered), number }
            }
        });
        let results = results.collect();
        let mut outcomes = Vec::with_capacity(self.answered.len());
        for key in &self.answered {
            if let Some(kept) = self.outcomes.remove(key) {
                let outcome = number_outcome(key.0, kept.outcome);
                outcomes.push((key.0, StoredOutcome { content: kept.content, outcome }));
            }
        }
        let devices: BTreeSet<_> = self.pushed.iter().copied().collect();
        let devices = devices
            .into_iter()
            .filter_map(|device| Some((device, *self.marks.get(&device)?)))
            .collect();
        writer.into_plan(seq_before, results, devices, outcomes)
    }
}

/// What one transaction has done so far, to take it back where a mutation of it is refused.
#[derive(Debug, Default)]
struct Draft {
    /// Where the rows begin that the batch had not changed before it.
    first_new: usize,
    /// Rows that the batch had changed before it, as they were then, by their place.
    replaced: HashMap<usize, Working>,
    changes: HashSet<ChangeKey>,
}

/// Numbers what changed and turns it into writes.
struct Writer<'a> {
    context: Context<'a>,
    seq: u64,
    rows: Vec<RowWrite>,
    departures: Vec<Departure>,
    chunks: Vec<ChunkWrite>,
    resequenced: Vec<(RowKey, u64)>,
    digests: BTreeMap<(Scope, CollectionId), BTreeMap<u8, Sum>>,
    changed: Vec<ChangedRow>,
}

impl<'a> Writer<'a> {
    fn new(context: Context<'a>, rows: usize) -> Self {
        Self {
            context,
            seq: context.head.seq,
            rows: Vec::with_capacity(rows),
            departures: Vec::new(),
            chunks: Vec::new(),
            resequenced: Vec::new(),
            digests: BTreeMap::new(),
            changed: Vec::with_capacity(rows),
        }
    }

    fn row(&mut self, key: RowKey, before: Option<&(Scope, RowState, Vec<u8>)>, row: Working) {
        let state = row.state.encode();
        let unchanged =
            before.is_some_and(|(scope, _, bytes)| *scope == row.scope && *bytes == state);
        if unchanged {
            return;
        }
        let deleted = row.state.is_deleted();
        if let Some((scope, old, bytes)) = before {
            let moves = *scope != row.scope && bugs::planted(Bug::DigestNotMoved);
            if !old.is_deleted() && !moves {
                let sum = row_sum(self.context.digest_key, key.0, key.1, bytes);
                self.sum_mut(scope, key).remove(sum);
            }
            if *scope != row.scope && !bugs::planted(Bug::DepartureNotTold) {
                self.depart(key, scope.clone());
            }
            let comes_anew = *scope != row.scope || (old.is_deleted() && !deleted);
            let kept = bugs::planted(Bug::ChangesNotResequenced);
            if comes_anew && !kept && !old.documents.is_empty() {
                self.resequenced.push((key, self.seq + 1));
            }
        }
        if !deleted {
            let sum = row_sum(self.context.digest_key, key.0, key.1, &state);
            self.sum_mut(&row.scope, key).add(sum);
        }
        self.seq += 1;
        let change = match row.state.life {
            Some(life) if life.deleted => RowChange::Deleted(life.stamp),
            _ => RowChange::State(state.clone()),
        };
        let chunks = row
            .chunks
            .iter()
            .map(|(column, change)| Chunk { column: *column, bytes: change.bytes.clone() });
        self.changed.push(ChangedRow {
            seq: self.seq,
            scope: row.scope.clone(),
            collection: key.0,
            row: key.1,
            change,
            chunks: chunks.collect(),
        });
        for (column, change) in row.chunks {
            self.chunks.push(ChunkWrite {
                key: (key, column, change.hash),
                seq: self.seq,
                bytes: change.bytes,
            });
        }
        let written_at_ms = self.context.now_ms;
        self.rows.push(RowWrite {
            key,
            scope: row.scope,
            seq: self.seq,
            state,
            deleted,
            written_at_ms,
        });
    }

    fn depart(&mut self, key: RowKey, scope: Scope) {
        self.seq += 1;
        self.changed.push(ChangedRow {
            seq: self.seq,
            scope: scope.clone(),
            collection: key.0,
            row: key.1,
            change: RowChange::Departed,
            chunks: Vec::new(),
        });
        self.departures.push(Departure {
            scope,
            key,
            seq: self.seq,
            written_at_ms: self.context.now_ms,
        });
    }

    fn sum_mut(&mut self, scope: &Scope, key: RowKey) -> &mut Sum {
        let buckets = self.digests.entry((scope.clone(), key.0)).or_default();
        buckets.entry(bucket_of(key.1)).or_default()
    }

    fn into_plan(
        self,
        seq_before: u64,
        results: Vec<PushResult>,
        devices: Vec<(DeviceId, DeviceMark)>,
        outcomes: Vec<(DeviceId, StoredOutcome)>,
    ) -> Plan {
        let totals = self.digests.iter().map(|(place, buckets)| {
            (place.clone(), Sum(buckets.values().fold(0, |total, sum| total.wrapping_add(sum.0))))
        });
        Plan {
            committed: Committed {
                seq_before,
                seq: self.seq,
                results,
                totals: totals.collect(),
                rows: self.changed,
                documents_came_anew: !self.resequenced.is_empty(),
            },
            rows: self.rows,
            departures: self.departures,
            chunks: self.chunks,
            resequenced: self.resequenced,
            digests: self.digests,
            devices,
            outcomes,
        }
    }
}

fn refused(index: usize, refusal: Refusal) -> RefusedMutation {
    let mut message = refusal.message;
    let end = (0..=MAX_SENTENCE_BYTES.min(message.len()))
        .rev()
        .find(|end| message.is_char_boundary(*end));
    message.truncate(end.unwrap_or_default());
    RefusedMutation { index: u32::try_from(index).unwrap_or(u32::MAX), code: refusal.code, message }
}

fn may_write(grants: &[Grant], scope: &Scope) -> bool {
    bugs::planted(Bug::WriteNotAuthorised)
        || grants.iter().any(|grant| grant.rights == Rights::Write && grant.scope == *scope)
}

/// A row that the device may not even read looks to it as if it were not there.
fn authorise_existing(grants: &[Grant], scope: &Scope, op: &Op) -> Result<(), Refusal> {
    if may_write(grants, scope) {
        return Ok(());
    }
    let readable = grants.iter().any(|grant| grant.scope == *scope);
    if readable || matches!(op, Op::Insert { .. } | Op::Offer { .. }) {
        Err(Refusal::new(ReasonCode::PermissionDenied, "no right to write in the row's scope"))
    } else {
        Err(Refusal::new(ReasonCode::RowMissing, "the row does not exist"))
    }
}

fn scope_of(collection: &Collection, state: &RowState) -> Result<Scope, Refusal> {
    let value_of = |name: &str| {
        let column = collection.column_named(name)?;
        let value = state.value(column.column_id()).map(Cow::Borrowed);
        Some(value.unwrap_or_else(|| Cow::Owned(column.default_value())))
    };
    collection.scope.resolve(value_of).ok_or_else(|| {
        let message = format!(
            "{}: the columns of the scope {} do not make one",
            collection.name, collection.scope
        );
        Refusal::new(ReasonCode::NoScope, message)
    })
}

fn check_size(collection: &Collection, state: &RowState) -> Result<(), Refusal> {
    let too_large = |problem: &str| {
        Err(Refusal::new(ReasonCode::TooLarge, format!("{}: {problem}", collection.name)))
    };
    if state.sets.values().any(|entries| entries.len() > MAX_SET_ELEMENTS) {
        return too_large("the set remembers too many elements");
    }
    if state.documents.values().any(|document| document.changes > MAX_DOCUMENT_CHANGES) {
        return too_large("the document has too many changes");
    }
    if approximate_bytes(state) > MAX_ROW_BYTES && state.encode().len() > MAX_ROW_BYTES {
        return too_large("the row is too large");
    }
    Ok(())
}

/// An upper bound that costs no encoding: most rows are far below the limit.
fn approximate_bytes(state: &RowState) -> usize {
    use farshore_sync_core::value::Value;
    let of = |value: &Value| match value {
        Value::Text(text) | Value::Json(text) => 64 + text.len(),
        Value::Bytes(bytes) => 64 + bytes.len(),
        _ => 64,
    };
    let cells: usize = state.cells.iter().map(|cell| of(&cell.value)).sum();
    let counters: usize = state.counters.values().map(|totals| 64 * totals.len()).sum();
    let sets = state.sets.values().flatten();
    let sets: usize = sets.map(|(element, adds)| of(element) + 64 * adds.len()).sum();
    256 + cells + counters + sets + 64 * state.documents.len()
}

//! Writing a plan, in one statement.
//!
//! Its parts see the tables as they were before all of them, and none touches a row that another one writes: a row
//! that departs leaves a new row behind, a new document change has its seq already, and an answer that is forgotten is
//! older than those that are kept.

use std::collections::{BTreeMap, HashMap, HashSet};

use farshore_store::plan::{ChunkWrite, Departure, DeviceMark, Plan, RowWrite, StoredOutcome};
use farshore_store::sync::RowKey;
use farshore_store::sync_core::ids::DeviceId;

use super::load::Documents;
use super::sums::{self, Part, PartKey};
use crate::database::Transaction;
use crate::failure::Failure;
use crate::names::Names;
use crate::query::{Parts, Query};

// What goes or changes is looked up by itself for each of the values, see `load`.
const REMOVE_DEPARTURES: &str = "no_departures AS (DELETE FROM main.changes WHERE ctid = ANY(ARRAY( \
    SELECT c.ctid FROM unnest($1::text[], $2::integer[], $3::bytea[]) AS n(scope, collection, id), \
    LATERAL (SELECT c.ctid FROM main.changes c WHERE c.kind = 2 AND c.collection = n.collection \
        AND c.id = n.id AND c.scope = n.scope OFFSET 0) c)))";
const DEPARTURES: &str = "departures AS (INSERT INTO main.changes \
    (scope, seq, kind, collection, id, written_at_ms, state) \
    SELECT n.scope, n.seq, 2, n.collection, n.id, n.written_at_ms, '' \
    FROM unnest($1::text[], $2::bigint[], $3::integer[], $4::bytea[], $5::bigint[]) \
        AS n(scope, seq, collection, id, written_at_ms))";
const ROWS: &str = "written AS (INSERT INTO main.changes \
    (scope, seq, kind, collection, id, written_at_ms, document, state) \
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::smallint[], $4::integer[], $5::bytea[], \
        $6::bigint[], $7::bigint[], $8::bytea[]) \
    ON CONFLICT (collection, id) WHERE kind < 2 DO UPDATE SET scope = excluded.scope, \
    seq = excluded.seq, kind = excluded.kind, written_at_ms = excluded.written_at_ms, \
    document = excluded.document, state = excluded.state)";
const RESEQUENCE: &str = "resequenced AS (UPDATE main.chunks k SET seq = n.seq \
    FROM unnest($1::bigint[], $2::bigint[]) AS n(document, seq), \
    LATERAL (SELECT o.ctid FROM main.chunks o WHERE o.document = n.document OFFSET 0) o \
    WHERE k.ctid = o.ctid)";
const CHUNKS: &str = "chunks AS (INSERT INTO main.chunks \
    (document, seq, born, position, column_id, hash, bytes) \
    SELECT n.document, n.seq, $1, n.position, n.column_id, n.hash, n.bytes \
    FROM unnest($2::bigint[], $3::bigint[], $4::integer[], $5::integer[], $6::bytea[], $7::bytea[]) \
        AS n(document, seq, position, column_id, hash, bytes))";
const OUTCOMES: &str = "kept AS (INSERT INTO main.outcomes (device, number, content, answer) \
    SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bytea[]))";
const FORGET: &str = "forgotten AS (DELETE FROM main.outcomes WHERE ctid = ANY(ARRAY( \
    SELECT o.ctid FROM unnest($1::bytea[], $2::bigint[]) AS n(device, number), \
    LATERAL (SELECT o.ctid FROM main.outcomes o WHERE o.device = n.device AND o.number <= n.number \
        OFFSET 0) o)))";
const MARKS: &str = "marks AS (INSERT INTO main.marks (device, high_water, settled, last_stamp) \
    SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[]) \
    ON CONFLICT (device) DO UPDATE SET high_water = excluded.high_water, \
    settled = excluded.settled, last_stamp = excluded.last_stamp)";

/// Answers of a device that are deleted together: a statement that deletes some takes longer to plan.
const FORGOTTEN_TOGETHER: u64 = 16;

/// What was there before.
#[derive(Debug)]
pub(super) struct Known {
    /// The numbers under which the document changes of rows lie.
    pub documents: Documents,
    /// The marks of the devices that pushed before.
    pub devices: HashMap<DeviceId, DeviceMark>,
}

pub(super) async fn write(
    names: &Names,
    transaction: &mut Transaction,
    known: &Known,
    plan: &Plan,
    sums: &BTreeMap<PartKey, Part>,
) -> Result<(), Failure> {
    let documents = documents(&known.documents, plan);
    let mut parts = Parts::new(", ");
    departures(&mut parts, plan);
    rows(&mut parts, &documents, &plan.rows);
    resequence(&mut parts, &documents, &plan.resequenced);
    chunks(&mut parts, &documents, plan);
    if !sums.is_empty() {
        sums::put(&mut parts, Some("sums"), sums);
    }
    outcomes(&mut parts, &plan.outcomes);
    forget(&mut parts, &known.devices, &plan.devices);
    marks(&mut parts, &plan.devices);
    let mut query = parts.into_query();
    let seq = plan.committed.seq;
    query.text = match query.text.as_str() {
        "" => return Ok(()),
        with => names.qualify(&format!("WITH {with} UPDATE main.standing SET seq = {seq}")),
    };
    let moved = transaction.execute(query).await?;
    assert_eq!(moved, 1, "a tenant stands in one place");
    Ok(())
}

pub(super) async fn set_epoch(
    names: &Names,
    transaction: &mut Transaction,
    epoch: u64,
) -> Result<(), Failure> {
    let set = Query::new(names.qualify("UPDATE main.standing SET epoch = $1"));
    let changed = transaction.execute(set.bind(epoch.cast_signed())).await?;
    assert_eq!(changed, 1, "a tenant stands in one place");
    Ok(())
}

/// Leaves a departure where a row goes, and takes away the one that it left there or where it comes to.
fn departures(parts: &mut Parts, plan: &Plan) {
    if plan.departures.is_empty() {
        return;
    }
    let arrivals: HashMap<RowKey, &str> =
        plan.rows.iter().map(|row| (row.key, row.scope.as_str())).collect();
    let (mut scopes, mut collections, mut ids) = (Vec::new(), Vec::<i32>::new(), Vec::new());
    for Departure { scope, key, .. } in &plan.departures {
        for scope in [Some(&scope.as_str()), arrivals.get(key)].into_iter().flatten() {
            scopes.push(*scope);
            collections.push(key.0.0.into());
            ids.push(&key.1.as_bytes()[..]);
        }
    }
    parts.part(REMOVE_DEPARTURES).bind(scopes).bind(collections).bind(ids);

    let departures = || plan.departures.iter();
    let scopes: Vec<&str> = departures().map(|departure| departure.scope.as_str()).collect();
    let seqs: Vec<i64> = departures().map(|departure| departure.seq.cast_signed()).collect();
    let collections: Vec<i32> = departures().map(|departure| departure.key.0.0.into()).collect();
    let ids: Vec<&[u8]> = departures().map(|departure| &departure.key.1.as_bytes()[..]).collect();
    let written: Vec<i64> =
        departures().map(|departure| departure.written_at_ms.cast_signed()).collect();
    parts.part(DEPARTURES).bind(scopes).bind(seqs).bind(collections).bind(ids).bind(written);
}

/// The numbers for the documents of the written rows. A row gets one with its first document change: the seq of
/// that write, which no other row ever has.
fn documents(known: &Documents, plan: &Plan) -> Documents {
    let chunked: HashSet<RowKey> = plan.chunks.iter().map(|chunk| chunk.key.0).collect();
    let document = |row: &RowWrite| {
        let known = known.get(&row.key).copied();
        let new = chunked.contains(&row.key).then(|| row.seq.cast_signed());
        Some((row.key, known.or(new)?))
    };
    plan.rows.iter().filter_map(document).collect()
}

fn rows(parts: &mut Parts, documents: &Documents, rows: &[RowWrite]) {
    if rows.is_empty() {
        return;
    }
    let scopes: Vec<&str> = rows.iter().map(|row| row.scope.as_str()).collect();
    let seqs: Vec<i64> = rows.iter().map(|row| row.seq.cast_signed()).collect();
    let kinds: Vec<i16> = rows.iter().map(|row| row.deleted.into()).collect();
    let collections: Vec<i32> = rows.iter().map(|row| row.key.0.0.into()).collect();
    let ids: Vec<&[u8]> = rows.iter().map(|row| &row.key.1.as_bytes()[..]).collect();
    let written: Vec<i64> = rows.iter().map(|row| row.written_at_ms.cast_signed()).collect();
    let documents: Vec<Option<i64>> =
        rows.iter().map(|row| documents.get(&row.key).copied()).collect();
    let states: Vec<&[u8]> = rows.iter().map(|row| row.state.as_slice()).collect();
    let part = parts.part(ROWS).bind(scopes).bind(seqs).bind(kinds).bind(collections);
    part.bind(ids).bind(written).bind(documents).bind(states);
}

fn resequence(parts: &mut Parts, documents: &Documents, resequenced: &[(RowKey, u64)]) {
    let known = resequenced.iter().filter_map(|(key, seq)| Some((*documents.get(key)?, seq)));
    let (documents, seqs): (Vec<i64>, Vec<i64>) =
        known.map(|(document, seq)| (document, seq.cast_signed())).unzip();
    if !documents.is_empty() {
        parts.part(RESEQUENCE).bind(documents).bind(seqs);
    }
}

fn chunks(parts: &mut Parts, documents: &Documents, plan: &Plan) {
    let chunks = &plan.chunks;
    if chunks.is_empty() {
        return;
    }
    let document = |chunk: &ChunkWrite| {
        *documents.get(&chunk.key.0).expect("a document change comes with its row")
    };
    let numbers: Vec<i64> = chunks.iter().map(document).collect();
    let seqs: Vec<i64> = chunks.iter().map(|chunk| chunk.seq.cast_signed()).collect();
    let positions: Vec<i32> = (0..).take(chunks.len()).collect();
    let columns: Vec<i32> = chunks.iter().map(|chunk| chunk.key.1.0.into()).collect();
    let hashes: Vec<&[u8]> = chunks.iter().map(|chunk| &chunk.key.2.0[..]).collect();
    let bytes: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.bytes.as_slice()).collect();
    let part = parts.part(CHUNKS).bind(plan.committed.seq.cast_signed());
    part.bind(numbers).bind(seqs).bind(positions).bind(columns).bind(hashes).bind(bytes);
}

fn outcomes(parts: &mut Parts, outcomes: &[(DeviceId, StoredOutcome)]) {
    if outcomes.is_empty() {
        return;
    }
    let devices: Vec<&[u8]> = outcomes.iter().map(|(device, _)| &device.as_bytes()[..]).collect();
    let numbers: Vec<i64> =
        outcomes.iter().map(|(_, stored)| stored.outcome.number.cast_signed()).collect();
    let contents: Vec<[u8; 16]> = outcomes.iter().map(|(_, stored)| stored.content).collect();
    let answers: Vec<Vec<u8>> = outcomes.iter().map(|(_, stored)| stored.answer_bytes()).collect();
    parts.part(OUTCOMES).bind(devices).bind(numbers).bind(contents).bind(answers);
}

/// Deletes answers that are forgotten.
fn forget(
    parts: &mut Parts,
    before: &HashMap<DeviceId, DeviceMark>,
    marks: &[(DeviceId, DeviceMark)],
) {
    let part = |mark: &DeviceMark| mark.forgotten() / FORGOTTEN_TOGETHER;
    let part_before = |device: &DeviceId| before.get(device).map_or(0, part);
    let more = marks.iter().filter(|(device, mark)| part(mark) > part_before(device));
    let devices: Vec<&[u8]> = more.clone().map(|(device, _)| &device.as_bytes()[..]).collect();
    let numbers: Vec<i64> = more.map(|(_, mark)| mark.forgotten().cast_signed()).collect();
    if !devices.is_empty() {
        parts.part(FORGET).bind(devices).bind(numbers);
    }
}

fn marks(parts: &mut Parts, marks: &[(DeviceId, DeviceMark)]) {
    if marks.is_empty() {
        return;
    }
    let devices: Vec<&[u8]> = marks.iter().map(|(device, _)| &device.as_bytes()[..]).collect();
    let numbers = |number: fn(&DeviceMark) -> u64| -> Vec<i64> {
        marks.iter().map(|(_, mark)| number(mark).cast_signed()).collect()
    };
    let part = parts.part(MARKS).bind(devices);
    part.bind(numbers(|mark| mark.high_water))
        .bind(numbers(|mark| mark.settled))
        .bind(numbers(|mark| mark.last_stamp.0));
}

//! Writing a plan.

use std::collections::{BTreeMap, HashMap, HashSet};

use farshore_store::plan::{ChunkWrite, DeviceMark, Plan, RowWrite, StoredOutcome};
use farshore_store::sync::RowKey;
use farshore_store::sync_core::ids::DeviceId;
use rusqlite::{Connection, params};

use super::load::Known;
use super::standing;
use super::unwritten::Unwritten;
use crate::failure::Failure;
use crate::place::Place;
use crate::scope_numbers::{Interner, ScopeNumbers};

/// The numbers under which the document changes of rows lie.
type Documents = HashMap<RowKey, i64>;

/// Writes a plan, except for what is left unwritten.
pub(super) fn write(
    scopes: &ScopeNumbers,
    transaction: &Connection,
    known: &Known,
    plan: &Plan,
    unwritten: &mut Unwritten,
) -> Result<(), Failure> {
    let mut scopes = Interner::new(transaction, scopes);
    departures(transaction, &mut scopes, plan)?;
    let documents = documents(known, plan);
    rows(transaction, &mut scopes, known, &documents, &plan.rows)?;
    resequence(transaction, &documents, &plan.resequenced)?;
    chunks(transaction, &documents, &plan.chunks)?;
    unwritten.add(transaction, &mut scopes, plan)?;
    if plan.committed.seq != plan.committed.seq_before {
        standing::set_seq(transaction, plan.committed.seq)?;
    }
    Ok(())
}

/// Leaves a departure where a row goes, and takes away the one that it left where it comes to.
fn departures(
    database: &Connection,
    scopes: &mut Interner<'_>,
    plan: &Plan,
) -> Result<(), Failure> {
    if plan.departures.is_empty() {
        return Ok(());
    }
    let arrivals: HashMap<RowKey, _> = plan.rows.iter().map(|row| (row.key, &row.scope)).collect();
    let insert = "INSERT INTO changes (place, kind, collection, id, written_at_ms, state) \
        VALUES (?1, 2, ?2, ?3, ?4, x'')";
    for departure in &plan.departures {
        let key = departure.key;
        let left = scopes.number(&departure.scope)?;
        remove_departure(database, key, left)?;
        database.prepare_cached(insert)?.execute(params![
            Place::new(left, departure.seq)?,
            key.0.0,
            key.1.as_bytes(),
            departure.written_at_ms.cast_signed(),
        ])?;
        if let Some(scope) = arrivals.get(&key) {
            remove_departure(database, key, scopes.number(scope)?)?;
        }
    }
    Ok(())
}

fn remove_departure(database: &Connection, key: RowKey, scope: i64) -> Result<(), Failure> {
    let delete = "DELETE FROM changes WHERE collection = ?1 AND id = ?2 AND kind = 2 \
        AND place BETWEEN ?3 AND ?4";
    let all = Place::after(scope, 0)?;
    let place = params![key.0.0, key.1.as_bytes(), all.start(), all.end()];
    database.prepare_cached(delete)?.execute(place)?;
    Ok(())
}

/// The numbers for the documents of the written rows. A row gets one with its first document change: the seq of
/// that write, which no other row ever has.
fn documents(known: &Known, plan: &Plan) -> Documents {
    let chunked: HashSet<RowKey> = plan.chunks.iter().map(|chunk| chunk.key.0).collect();
    let document = |row: &RowWrite| {
        let known = known.get(&row.key).and_then(|row| row.document);
        let new = chunked.contains(&row.key).then(|| row.seq.cast_signed());
        Some((row.key, known.or(new)?))
    };
    plan.rows.iter().filter_map(document).collect()
}

fn rows(
    database: &Connection,
    scopes: &mut Interner<'_>,
    known: &Known,
    documents: &Documents,
    rows: &[RowWrite],
) -> Result<(), Failure> {
    let insert = "INSERT INTO changes \
        (place, kind, collection, id, written_at_ms, document, state) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let update = "UPDATE changes SET place = ?1, kind = ?2, written_at_ms = ?3, document = ?4, \
        state = ?5 WHERE place = ?6";
    let (mut insert, mut update) =
        (database.prepare_cached(insert)?, database.prepare_cached(update)?);
    for row in rows {
        let RowWrite { key, scope, seq, state, deleted, written_at_ms } = row;
        let place = Place::new(scopes.number(scope)?, *seq)?;
        let document = documents.get(key);
        let at_ms = written_at_ms.cast_signed();
        let written = match known.get(key) {
            Some(known) => {
                update.execute(params![place, deleted, at_ms, document, state, known.place])?
            }
            None => {
                let (collection, id) = (key.0.0, key.1.as_bytes());
                insert.execute(params![place, deleted, collection, id, at_ms, document, state])?
            }
        };
        assert_eq!(written, 1, "a row is in one place");
    }
    Ok(())
}

fn resequence(
    database: &Connection,
    documents: &Documents,
    resequenced: &[(RowKey, u64)],
) -> Result<(), Failure> {
    let update = "UPDATE chunks SET seq = ?2 WHERE document = ?1";
    for (key, seq) in resequenced {
        if let Some(document) = documents.get(key) {
            let numbers = params![document, seq.cast_signed()];
            database.prepare_cached(update)?.execute(numbers)?;
        }
    }
    Ok(())
}

fn chunks(
    database: &Connection,
    documents: &Documents,
    chunks: &[ChunkWrite],
) -> Result<(), Failure> {
    let insert = "INSERT INTO chunks (document, seq, column_id, hash, bytes) \
        VALUES (?1, ?2, ?3, ?4, ?5)";
    for ChunkWrite { key: (row, column, hash), seq, bytes } in chunks {
        let document = documents.get(row).expect("a document change comes with its row");
        let values = params![document, seq.cast_signed(), column.0, hash.0, bytes];
        database.prepare_cached(insert)?.execute(values)?;
    }
    Ok(())
}

pub(super) fn outcomes(
    database: &Connection,
    outcomes: &BTreeMap<(DeviceId, u64), StoredOutcome>,
) -> Result<(), Failure> {
    let insert = "INSERT INTO outcomes (device, number, content, answer) VALUES (?1, ?2, ?3, ?4)";
    for ((device, number), stored) in outcomes {
        let number = number.cast_signed();
        let values = params![device.as_bytes(), number, stored.content, stored.answer_bytes()];
        database.prepare_cached(insert)?.execute(values)?;
    }
    Ok(())
}

/// Writes the marks of devices, and forgets the answers that they say nobody wants.
pub(super) fn marks(
    database: &Connection,
    marks: &HashMap<DeviceId, DeviceMark>,
) -> Result<(), Failure> {
    let forget = "DELETE FROM outcomes WHERE device = ?1 AND number <= ?2";
    let put = "INSERT OR REPLACE INTO marks (device, high_water, settled, last_stamp) \
        VALUES (?1, ?2, ?3, ?4)";
    for (device, mark) in marks {
        let forgotten = mark.forgotten().cast_signed();
        database.prepare_cached(forget)?.execute(params![device.as_bytes(), forgotten])?;
        database.prepare_cached(put)?.execute(params![
            device.as_bytes(),
            mark.high_water.cast_signed(),
            mark.settled.cast_signed(),
            mark.last_stamp.0.cast_signed(),
        ])?;
    }
    Ok(())
}

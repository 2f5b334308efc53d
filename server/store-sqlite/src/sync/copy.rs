//! A tenant as records.

use async_trait::async_trait;
use farshore_store::StoreError;
use farshore_store::copy::{
    Batcher, ChangeRecord, ChunkRecord, CopyOut, ForgetRecord, PLAIN_TABLES, Record, RecordSink,
    StandingRecord, SumsRecord,
};
use farshore_store::sql::SqlRow;
use farshore_store::sync_core::digest::Buckets;
use rusqlite::types::FromSql;
use rusqlite::{Connection, Row, Statement, params};
use tokio::sync::mpsc;

use super::sums;
use crate::failure::Failure;
use crate::place::{MAX_SEQ, Place, SEQ_BITS};
use crate::sql::value_at;
use crate::tenant::SqliteTenant;

/// Batches that a copy reads ahead.
const BATCHES_AHEAD: usize = 2;
const OPERATION: &str = "copy a tenant";

const ALL_DOCUMENTS: &str = "SELECT collection, id, document FROM changes \
    WHERE kind < 2 AND document IS NOT NULL ORDER BY collection, id";
const DOCUMENTS_OF_CHANGED: &str = "SELECT collection, id, document FROM changed \
    WHERE kind < 2 AND document IS NOT NULL ORDER BY collection, id";

#[async_trait]
impl CopyOut for SqliteTenant {
    async fn copy_out(&self, sink: &mut dyn RecordSink) -> Result<(), StoreError> {
        self.copy(None, sink).await
    }

    async fn copy_since(&self, seq: u64, sink: &mut dyn RecordSink) -> Result<(), StoreError> {
        self.copy(Some(seq), sink).await
    }
}

impl SqliteTenant {
    async fn copy(&self, since: Option<u64>, sink: &mut dyn RecordSink) -> Result<(), StoreError> {
        let (batches, mut waiting) = mpsc::channel(BATCHES_AHEAD);
        let reading = self.read(OPERATION, move |_, snapshot| {
            read(snapshot, since, |batch| {
                let ended = |_| Failure::Damaged("whoever takes the copy in has ended".to_owned());
                batches.blocking_send(batch).map_err(ended)
            })
        });
        // The channel ends with this future, and the reading with the channel.
        let taking = async move {
            while let Some(batch) = waiting.recv().await {
                sink.take(batch).await?;
            }
            Ok::<_, StoreError>(())
        };
        let (read, taken) = tokio::join!(reading, taking);
        taken.and(read)
    }
}

/// Reads everything in one snapshot, or what has changed since a seq, in the canonical order, and hands it on in batches.
fn read(
    snapshot: &Connection,
    since: Option<u64>,
    mut hand_on: impl FnMut(Vec<Record>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut batcher = Batcher::default();
    let mut add = |record| match batcher.add(record) {
        Some(batch) => hand_on(batch),
        None => Ok(()),
    };
    let standing = standing(snapshot)?;
    let horizon = standing.horizon;
    add(Record::Standing(standing))?;
    for (number, table) in (0..).zip(PLAIN_TABLES) {
        let mut statement = snapshot.prepare(&table.select())?;
        for_each(&mut statement, [], |row| {
            let values = (0..table.columns.len()).map(|column| value_at(row.get_ref(column)?));
            add(Record::Plain(number, SqlRow(values.collect::<Result<_, Failure>>()?)))
        })?;
    }
    let scopes = scopes_by_name(snapshot)?;
    match since {
        None => {
            for (number, scope) in &scopes {
                changes(snapshot, *number, scope, &mut add)?;
            }
            chunks(snapshot, ALL_DOCUMENTS, [], &mut add)?;
        }
        Some(since) => {
            let values = [since.min(MAX_SEQ).cast_signed(), horizon.cast_signed()];
            changes_since(snapshot, values, &mut add)?;
            chunks(snapshot, &changed(DOCUMENTS_OF_CHANGED), values, &mut add)?;
        }
    }
    for (number, scope) in &scopes {
        sums_of(snapshot, *number, scope, &mut add)?;
    }
    hand_on(batcher.finish())
}

fn for_each(
    statement: &mut Statement<'_>,
    values: impl rusqlite::Params,
    mut take: impl FnMut(&Row<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut rows = statement.query(values)?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok(())
}

fn standing(snapshot: &Connection) -> Result<StandingRecord, Failure> {
    let query = "SELECT seq, horizon, epoch, digest_key, created_at_ms FROM standing";
    Ok(snapshot.query_row(query, [], |row| {
        Ok(StandingRecord {
            seq: number(row, 0)?,
            horizon: number(row, 1)?,
            epoch: number(row, 2)?,
            digest_key: row.get(3)?,
            created_at_ms: number(row, 4)?,
        })
    })?)
}

/// The scopes with their numbers, by name.
fn scopes_by_name(snapshot: &Connection) -> Result<Vec<(i64, String)>, Failure> {
    let mut statement = snapshot.prepare("SELECT number, name FROM scopes ORDER BY name")?;
    let scopes = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(scopes.collect::<Result<_, _>>()?)
}

fn changes(
    snapshot: &Connection,
    number_of_scope: i64,
    scope: &str,
    add: &mut impl FnMut(Record) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let query = "SELECT place, kind, collection, id, written_at_ms, document IS NOT NULL, state \
        FROM changes WHERE place BETWEEN ?1 AND ?2 ORDER BY place";
    let places = Place::after(number_of_scope, 0)?;
    let mut statement = snapshot.prepare_cached(query)?;
    for_each(&mut statement, params![places.start(), places.end()], |row| {
        add(change_record(row, scope.to_owned())?)
    })
}

fn change_record(row: &Row<'_>, scope: String) -> Result<Record, Failure> {
    Ok(Record::Change(ChangeRecord {
        scope,
        seq: row.get::<_, Place>(0)?.seq(),
        kind: row.get(1)?,
        collection: row.get(2)?,
        id: row.get(3)?,
        written_at_ms: number(row, 4)?,
        has_chunks: row.get(5)?,
        state: row.get(6)?,
    }))
}

/// A query on `changed`: all that is stored of the rows of which something is newer than seq ?1, or is a tombstone or
/// departure up to the horizon ?2.
fn changed(select: &str) -> String {
    // CROSS JOIN keeps the order of the tables: few rows are looked up among many.
    format!(
        "WITH changed_rows AS ( \
            SELECT c.collection, c.id FROM scopes s CROSS JOIN changes c \
                ON c.place > ((s.number << {SEQ_BITS}) | ?1) \
                AND c.place <= ((s.number << {SEQ_BITS}) | {MAX_SEQ}) \
            UNION \
            SELECT collection, id FROM changes WHERE kind > 0 AND (place & {MAX_SEQ}) <= ?2), \
        changed AS ( \
            SELECT c.* FROM changed_rows r CROSS JOIN changes c \
                ON c.collection = r.collection AND c.id = r.id AND c.kind < 2 \
            UNION ALL \
            SELECT c.* FROM changed_rows r CROSS JOIN changes c \
                ON c.collection = r.collection AND c.id = r.id AND c.kind = 2) \
        {select}"
    )
}

fn changes_since(
    snapshot: &Connection,
    values: [i64; 2],
    add: &mut impl FnMut(Record) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let query = changed(&format!(
        "SELECT place, kind, collection, id, written_at_ms, document IS NOT NULL, state, name \
            FROM changed JOIN scopes ON number = place >> {SEQ_BITS} \
            ORDER BY collection, id, name, place"
    ));
    let mut row_before = None;
    for_each(&mut snapshot.prepare(&query)?, values, |row| {
        let forget = ForgetRecord { collection: row.get(2)?, id: row.get(3)? };
        if row_before != Some(forget) {
            row_before = Some(forget);
            add(Record::Forget(forget))?;
        }
        add(change_record(row, row.get(7)?)?)
    })
}

/// The changes of the documents that a query selects.
fn chunks(
    snapshot: &Connection,
    documents: &str,
    values: impl rusqlite::Params,
    add: &mut impl FnMut(Record) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let chunks =
        "SELECT column_id, seq, hash, bytes FROM chunks WHERE document = ?1 ORDER BY number";
    let (mut documents, mut chunks) = (snapshot.prepare(documents)?, snapshot.prepare(chunks)?);
    for_each(&mut documents, values, |row| {
        let (collection, id): (u16, [u8; 16]) = (row.get(0)?, row.get(1)?);
        for_each(&mut chunks, [row.get::<_, i64>(2)?], |row| {
            add(Record::Chunk(ChunkRecord {
                collection,
                id,
                column: row.get(0)?,
                seq: number(row, 1)?,
                hash: row.get(2)?,
                bytes: row.get(3)?,
            }))
        })
    })
}

fn sums_of(
    snapshot: &Connection,
    number_of_scope: i64,
    scope: &str,
    add: &mut impl FnMut(Record) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let query = "SELECT place, buckets FROM sums WHERE place BETWEEN ?1 AND ?2 ORDER BY place";
    let mut statement = snapshot.prepare_cached(query)?;
    for_each(&mut statement, sums::places(number_of_scope), |row| {
        let collection = sums::collection_at(row.get(0)?);
        let bytes: Vec<u8> = row.get(1)?;
        let buckets = Buckets::from_bytes(&bytes).ok_or_else(sums::damaged)?;
        SumsRecord::new(scope, collection, &buckets).map_or(Ok(()), |sums| add(Record::Sums(sums)))
    })
}

/// A number that is stored with all of its 64 bits.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get_ref(column).and_then(|value| Ok(i64::column_result(value)?.cast_unsigned()))
}

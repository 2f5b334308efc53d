//! A tenant as records, and records as a tenant.

use async_trait::async_trait;
use farshore_store::StoreError;
use farshore_store::copy::{
    Batcher, ChangeRecord, ChunkRecord, CopyOut, PLAIN_TABLES, Record, RecordSink, StandingRecord,
    SumsRecord,
};
use farshore_store::sql::SqlRow;
use farshore_store::sync_core::digest::Buckets;
use farshore_store::sync_core::ids::{CollectionId, Scope};
use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension as _, Row, Statement, Transaction, params};
use tokio::sync::mpsc;

use super::sums;
use crate::failure::Failure;
use crate::place::Place;
use crate::scope_numbers::Interner;
use crate::sql::{Bound, value_at};
use crate::tenant::{OpenTenant, SqliteTenant};

/// Batches that a copy reads ahead.
const BATCHES_AHEAD: usize = 2;
const OPERATION: &str = "copy a tenant";

#[async_trait]
impl CopyOut for SqliteTenant {
    async fn copy_out(&self, sink: &mut dyn RecordSink) -> Result<(), StoreError> {
        let (batches, mut waiting) = mpsc::channel(BATCHES_AHEAD);
        let reading = self.read(OPERATION, move |_, snapshot| {
            read(snapshot, |batch| {
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

impl SqliteTenant {
    /// Takes the next records of a copy in.
    pub async fn put(&self, records: Vec<Record>) -> Result<(), StoreError> {
        self.write(OPERATION, |tenant, transaction| write(tenant, transaction, records)).await
    }
}

/// Reads everything in one snapshot, in the canonical order, and hands it on in batches.
fn read(
    snapshot: &Connection,
    mut hand_on: impl FnMut(Vec<Record>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut batcher = Batcher::default();
    let mut add = |record| match batcher.add(record) {
        Some(batch) => hand_on(batch),
        None => Ok(()),
    };
    add(standing(snapshot)?)?;
    for (number, table) in (0..).zip(PLAIN_TABLES) {
        let mut statement = snapshot.prepare(&table.select())?;
        for_each(&mut statement, [], |row| {
            let values = (0..table.columns.len()).map(|column| value_at(row.get_ref(column)?));
            add(Record::Plain(number, SqlRow(values.collect::<Result<_, Failure>>()?)))
        })?;
    }
    let scopes = scopes_by_name(snapshot)?;
    for (number, scope) in &scopes {
        changes(snapshot, *number, scope, &mut add)?;
    }
    chunks(snapshot, &mut add)?;
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

fn standing(snapshot: &Connection) -> Result<Record, Failure> {
    let query = "SELECT seq, horizon, epoch, digest_key, created_at_ms FROM standing";
    let record = snapshot.query_row(query, [], |row| {
        Ok(StandingRecord {
            seq: number(row, 0)?,
            horizon: number(row, 1)?,
            epoch: number(row, 2)?,
            digest_key: row.get(3)?,
            created_at_ms: number(row, 4)?,
        })
    })?;
    Ok(Record::Standing(record))
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
        add(Record::Change(ChangeRecord {
            scope: scope.to_owned(),
            seq: row.get::<_, Place>(0)?.seq(),
            kind: row.get(1)?,
            collection: row.get(2)?,
            id: row.get(3)?,
            written_at_ms: number(row, 4)?,
            has_chunks: row.get(5)?,
            state: row.get(6)?,
        }))
    })
}

fn chunks(
    snapshot: &Connection,
    add: &mut impl FnMut(Record) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let documents = "SELECT collection, id, document FROM changes \
        WHERE kind < 2 AND document IS NOT NULL ORDER BY collection, id";
    let chunks =
        "SELECT column_id, seq, hash, bytes FROM chunks WHERE document = ?1 ORDER BY number";
    let (mut documents, mut chunks) = (snapshot.prepare(documents)?, snapshot.prepare(chunks)?);
    for_each(&mut documents, [], |row| {
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
        let collection = sums::collection_at(row.get(0)?).0;
        add(Record::Sums(SumsRecord { scope: scope.to_owned(), collection, buckets: row.get(1)? }))
    })
}

/// Writes records into a file that had none of their kind, in the order in which [`read`] gives them.
fn write(
    tenant: &OpenTenant,
    transaction: &Transaction<'_>,
    records: Vec<Record>,
) -> Result<(), Failure> {
    let mut scopes = Interner::new(transaction, &tenant.scopes);
    // The document of the row whose changes come.
    let mut document: Option<((u16, [u8; 16]), i64)> = None;
    for record in records {
        match record {
            Record::Standing(at) => write_standing(transaction, &at)?,
            Record::Plain(table, row) => {
                let table = PLAIN_TABLES.get(usize::from(table));
                let table = table.ok_or_else(|| Failure::Damaged("an unknown table".to_owned()))?;
                let mut insert = transaction.prepare_cached(&table.insert(1))?;
                insert.execute(rusqlite::params_from_iter(row.0.iter().map(Bound)))?;
            }
            Record::Change(change) => write_change(transaction, &mut scopes, &change)?,
            Record::Chunk(chunk) => {
                let row = (chunk.collection, chunk.id);
                let number = match document.filter(|(of, _)| *of == row) {
                    Some((_, number)) => number,
                    None => document_of(transaction, row)?,
                };
                document = Some((row, number));
                write_chunk(transaction, number, &chunk)?;
            }
            Record::Sums(record) => {
                let number = scopes.number(&parse(&record.scope)?)?;
                let buckets = Buckets::from_bytes(&record.buckets).ok_or_else(sums::damaged)?;
                sums::put(transaction, number, CollectionId(record.collection), &buckets)?;
            }
        }
    }
    Ok(())
}

fn write_standing(database: &Connection, at: &StandingRecord) -> Result<(), Failure> {
    let update = "UPDATE standing SET seq = ?1, horizon = ?2, epoch = ?3, digest_key = ?4, \
        created_at_ms = ?5";
    let changed = database.execute(
        update,
        params![
            at.seq.cast_signed(),
            at.horizon.cast_signed(),
            at.epoch.cast_signed(),
            at.digest_key,
            at.created_at_ms.cast_signed()
        ],
    )?;
    assert_eq!(changed, 1, "a tenant stands in one place");
    Ok(())
}

fn write_change(
    database: &Connection,
    scopes: &mut Interner<'_>,
    change: &ChangeRecord,
) -> Result<(), Failure> {
    let insert = "INSERT INTO changes \
        (place, kind, collection, id, written_at_ms, document, state) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let place = Place::new(scopes.number(&parse(&change.scope)?)?, change.seq)?;
    // No other row has this seq, now or later.
    let document = change.has_chunks.then(|| change.seq.cast_signed());
    database.prepare_cached(insert)?.execute(params![
        place,
        change.kind,
        change.collection,
        change.id,
        change.written_at_ms.cast_signed(),
        document,
        change.state
    ])?;
    Ok(())
}

fn document_of(database: &Connection, (collection, id): (u16, [u8; 16])) -> Result<i64, Failure> {
    let query = "SELECT document FROM changes WHERE collection = ?1 AND id = ?2 AND kind < 2";
    let mut statement = database.prepare_cached(query)?;
    let found: Option<Option<i64>> =
        statement.query_row(params![collection, id], |row| row.get(0)).optional()?;
    found.flatten().ok_or_else(|| Failure::Damaged("a document change without its row".to_owned()))
}

fn write_chunk(database: &Connection, document: i64, chunk: &ChunkRecord) -> Result<(), Failure> {
    let insert = "INSERT INTO chunks (document, seq, column_id, hash, bytes) \
        VALUES (?1, ?2, ?3, ?4, ?5)";
    let seq = chunk.seq.cast_signed();
    let values = params![document, seq, chunk.column, chunk.hash, chunk.bytes];
    database.prepare_cached(insert)?.execute(values)?;
    Ok(())
}

fn parse(scope: &str) -> Result<Scope, StoreError> {
    scope
        .parse()
        .map_err(|error| StoreError::Damaged { operation: OPERATION, detail: format!("{error}") })
}

/// A number that is stored with all of its 64 bits.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get_ref(column).and_then(|value| Ok(i64::column_result(value)?.cast_unsigned()))
}

//! A tenant as records, and records as a tenant.

use async_trait::async_trait;
use farshore_store::StoreError;
use farshore_store::copy::{
    Batcher, ChangeRecord, ChunkRecord, CopyOut, PLAIN_TABLES, PlainTable, Record, RecordSink,
    StandingRecord, SumsRecord,
};
use farshore_store::sql::SqlRow;
use farshore_store::sync_core::digest::Buckets;
use futures_util::TryStreamExt as _;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::load::{collection, column};
use super::sums;
use crate::database::{Pace, Transaction};
use crate::failure::Failure;
use crate::names::Names;
use crate::query::Query;
use crate::sql::{Bound, values};
use crate::tenant::PostgresTenant;

const OPERATION: &str = "copy a tenant";
/// Most rows of a plain table in one statement: each value is a parameter, of which a statement has 65,535 at most.
const PLAIN_ROWS_PER_STATEMENT: usize = 1_000;

const INSERT_CHANGES: &str = "INSERT INTO main.changes \
    (scope, seq, kind, collection, id, written_at_ms, document, state) \
    SELECT n.scope, n.seq, n.kind, n.collection, n.id, n.written_at_ms, \
        CASE WHEN n.has_chunks THEN n.seq END, n.state \
    FROM unnest($1::text[], $2::bigint[], $3::smallint[], $4::integer[], $5::bytea[], \
        $6::bigint[], $7::boolean[], $8::bytea[]) \
        AS n(scope, seq, kind, collection, id, written_at_ms, has_chunks, state)";
/// What arrives was born before everything that is still to come.
const INSERT_CHUNKS: &str = "INSERT INTO main.chunks \
    (document, seq, born, position, column_id, hash, bytes) \
    SELECT c.document, n.seq, 0, n.position, n.column_id, n.hash, n.bytes \
    FROM unnest($1::integer[], $2::bytea[], $3::bigint[], $4::integer[], $5::integer[], \
        $6::bytea[], $7::bytea[]) AS n(collection, id, seq, position, column_id, hash, bytes) \
    JOIN main.changes c ON c.collection = n.collection AND c.id = n.id AND c.kind < 2 \
        AND c.document IS NOT NULL";

#[async_trait]
impl CopyOut for PostgresTenant {
    async fn copy_out(&self, sink: &mut dyn RecordSink) -> Result<(), StoreError> {
        self.during(OPERATION, async {
            let mut read = self.0.read(Pace::Maintenance).await?;
            let mut out = Out { names: &self.0.names, sink, batcher: Batcher::default() };
            let copied = out.everything(&mut read.transaction).await;
            read.transaction.end(copied).await
        })
        .await
    }
}

/// Records on their way out.
struct Out<'a> {
    names: &'a Names,
    sink: &'a mut dyn RecordSink,
    batcher: Batcher,
}

impl Out<'_> {
    /// Everything in one snapshot, in the canonical order.
    async fn everything(&mut self, transaction: &mut Transaction) -> Result<(), Failure> {
        let standing = "SELECT seq, horizon, epoch, digest_key, created_at_ms FROM main.standing";
        self.each(transaction, standing, standing_record).await?;
        for (number, table) in (0..).zip(PLAIN_TABLES) {
            let record = move |row: &PgRow| Ok(Record::Plain(number, values(row)?));
            self.each(transaction, &table.select(), record).await?;
        }
        let changes = "SELECT scope, seq, kind, collection, id, written_at_ms, \
            document IS NOT NULL, state FROM main.changes ORDER BY scope, seq";
        self.each(transaction, changes, change_record).await?;
        let chunks = "SELECT c.collection, c.id, k.column_id, k.seq, k.hash, k.bytes \
            FROM main.changes c JOIN main.chunks k ON k.document = c.document \
            WHERE c.kind < 2 ORDER BY c.collection, c.id, k.born, k.position";
        self.each(transaction, chunks, chunk_record).await?;
        self.sums(transaction).await?;
        Ok(self.sink.take(std::mem::take(&mut self.batcher).finish()).await?)
    }

    async fn each(
        &mut self,
        transaction: &mut Transaction,
        query: &str,
        record: impl Fn(&PgRow) -> Result<Record, Failure>,
    ) -> Result<(), Failure> {
        let mut rows = transaction.stream(self.names.qualify(query));
        while let Some(row) = rows.try_next().await? {
            if let Some(batch) = self.batcher.add(record(&row)?) {
                self.sink.take(batch).await?;
            }
        }
        Ok(())
    }

    /// The parts of each collection's sums, put together.
    async fn sums(&mut self, transaction: &mut Transaction) -> Result<(), Failure> {
        let query = "SELECT scope, collection, part, sums FROM main.sums \
            ORDER BY scope, collection, part";
        let mut rows = transaction.stream(self.names.qualify(query));
        let mut whole: Option<(String, u16, Buckets)> = None;
        while let Some(row) = rows.try_next().await? {
            let (scope, number): (&str, i32) = (row.try_get(0)?, row.try_get(1)?);
            let collection = collection(number.into())?.0;
            let same = whole.as_ref().is_some_and(|(of, at, _)| of == scope && *at == collection);
            if !same {
                let next = (scope.to_owned(), collection, Buckets::default());
                if let Some(sums) = whole.replace(next)
                    && let Some(batch) = self.batcher.add(sums_record(sums))
                {
                    self.sink.take(batch).await?;
                }
            }
            let (_, _, buckets) = whole.as_mut().expect("it was just put there");
            sums::take_part(buckets, row.try_get(2)?, row.try_get(3)?)?;
        }
        if let Some(sums) = whole
            && let Some(batch) = self.batcher.add(sums_record(sums))
        {
            self.sink.take(batch).await?;
        }
        Ok(())
    }
}

fn standing_record(row: &PgRow) -> Result<Record, Failure> {
    Ok(Record::Standing(StandingRecord {
        seq: number(row, 0)?,
        horizon: number(row, 1)?,
        epoch: number(row, 2)?,
        digest_key: row.try_get(3)?,
        created_at_ms: number(row, 4)?,
    }))
}

fn change_record(row: &PgRow) -> Result<Record, Failure> {
    let kind: i16 = row.try_get(2)?;
    Ok(Record::Change(ChangeRecord {
        scope: row.try_get(0)?,
        seq: number(row, 1)?,
        kind: u8::try_from(kind).map_err(|_| Failure::Damaged("the kind of a row".to_owned()))?,
        collection: collection(row.try_get::<i32, _>(3)?.into())?.0,
        id: row.try_get(4)?,
        written_at_ms: number(row, 5)?,
        has_chunks: row.try_get(6)?,
        state: row.try_get(7)?,
    }))
}

fn chunk_record(row: &PgRow) -> Result<Record, Failure> {
    Ok(Record::Chunk(ChunkRecord {
        collection: collection(row.try_get::<i32, _>(0)?.into())?.0,
        id: row.try_get(1)?,
        column: column(row.try_get::<i32, _>(2)?.into())?.0,
        seq: number(row, 3)?,
        hash: row.try_get(4)?,
        bytes: row.try_get(5)?,
    }))
}

fn sums_record((scope, collection, buckets): (String, u16, Buckets)) -> Record {
    Record::Sums(SumsRecord { scope, collection, buckets: buckets.to_bytes() })
}

/// A number that is stored with all of its 64 bits.
fn number(row: &PgRow, column: usize) -> Result<u64, sqlx::Error> {
    row.try_get::<i64, _>(column).map(i64::cast_unsigned)
}

/// Where among the changes of its documents the next one of a row stands.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    row: Option<(u16, [u8; 16])>,
    next: i32,
}

impl Positions {
    fn of(&mut self, chunk: &ChunkRecord) -> i32 {
        let row = Some((chunk.collection, chunk.id));
        if self.row != row {
            *self = Self { row, next: 0 };
        }
        let position = self.next;
        self.next += 1;
        position
    }
}

/// Writes records into tables that had none of their kind, in the order in which a copy gives them.
pub(crate) async fn write(
    names: &Names,
    transaction: &mut Transaction,
    records: Vec<Record>,
    positions: &mut Positions,
) -> Result<(), Failure> {
    let mut plain: Vec<Vec<SqlRow>> = vec![Vec::new(); PLAIN_TABLES.len()];
    let (mut changes, mut chunks, mut sums) = (Vec::new(), Vec::new(), Vec::new());
    for record in records {
        match record {
            Record::Standing(at) => write_standing(names, transaction, &at).await?,
            Record::Plain(table, row) => plain
                .get_mut(usize::from(table))
                .ok_or_else(|| Failure::Damaged("an unknown table".to_owned()))?
                .push(row),
            Record::Change(change) => changes.push(change),
            Record::Chunk(chunk) => chunks.push(chunk),
            Record::Sums(record) => sums.push(record),
        }
    }
    for (table, rows) in PLAIN_TABLES.iter().zip(plain) {
        for rows in rows.chunks(PLAIN_ROWS_PER_STATEMENT) {
            write_plain(names, transaction, *table, rows).await?;
        }
    }
    if !changes.is_empty() {
        write_changes(names, transaction, &changes).await?;
    }
    if !chunks.is_empty() {
        write_chunks(names, transaction, &chunks, positions).await?;
    }
    sums::put(names, transaction, &sums).await
}

async fn write_standing(
    names: &Names,
    transaction: &mut Transaction,
    at: &StandingRecord,
) -> Result<(), Failure> {
    let update = "UPDATE main.standing SET seq = $1, horizon = $2, epoch = $3, digest_key = $4, \
        created_at_ms = $5";
    let update = Query::new(names.qualify(update))
        .bind(at.seq.cast_signed())
        .bind(at.horizon.cast_signed())
        .bind(at.epoch.cast_signed())
        .bind(&at.digest_key[..])
        .bind(at.created_at_ms.cast_signed());
    let changed = transaction.execute(update).await?;
    assert_eq!(changed, 1, "a tenant stands in one place");
    Ok(())
}

async fn write_plain(
    names: &Names,
    transaction: &mut Transaction,
    table: PlainTable,
    rows: &[SqlRow],
) -> Result<(), Failure> {
    let insert = Query::new(names.qualify(&table.insert(rows.len())));
    let values = rows.iter().flat_map(|row| &row.0);
    let insert = values.fold(insert, |insert, value| insert.bind(Bound(value.clone())));
    transaction.execute(insert).await.map(drop)
}

async fn write_changes(
    names: &Names,
    transaction: &mut Transaction,
    changes: &[ChangeRecord],
) -> Result<(), Failure> {
    let numbers = |number: fn(&ChangeRecord) -> u64| -> Vec<i64> {
        changes.iter().map(|change| number(change).cast_signed()).collect()
    };
    let scopes: Vec<&str> = changes.iter().map(|change| change.scope.as_str()).collect();
    let kinds: Vec<i16> = changes.iter().map(|change| change.kind.into()).collect();
    let collections: Vec<i32> = changes.iter().map(|change| change.collection.into()).collect();
    let ids: Vec<&[u8]> = changes.iter().map(|change| &change.id[..]).collect();
    let have_chunks: Vec<bool> = changes.iter().map(|change| change.has_chunks).collect();
    let states: Vec<&[u8]> = changes.iter().map(|change| change.state.as_slice()).collect();
    let insert = Query::new(names.qualify(INSERT_CHANGES))
        .bind(scopes)
        .bind(numbers(|change| change.seq))
        .bind(kinds)
        .bind(collections)
        .bind(ids)
        .bind(numbers(|change| change.written_at_ms))
        .bind(have_chunks)
        .bind(states);
    transaction.execute(insert).await.map(drop)
}

async fn write_chunks(
    names: &Names,
    transaction: &mut Transaction,
    chunks: &[ChunkRecord],
    positions: &mut Positions,
) -> Result<(), Failure> {
    let collections: Vec<i32> = chunks.iter().map(|chunk| chunk.collection.into()).collect();
    let ids: Vec<&[u8]> = chunks.iter().map(|chunk| &chunk.id[..]).collect();
    let seqs: Vec<i64> = chunks.iter().map(|chunk| chunk.seq.cast_signed()).collect();
    let positions: Vec<i32> = chunks.iter().map(|chunk| positions.of(chunk)).collect();
    let columns: Vec<i32> = chunks.iter().map(|chunk| chunk.column.into()).collect();
    let hashes: Vec<&[u8]> = chunks.iter().map(|chunk| &chunk.hash[..]).collect();
    let bytes: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.bytes.as_slice()).collect();
    let insert = Query::new(names.qualify(INSERT_CHUNKS))
        .bind(collections)
        .bind(ids)
        .bind(seqs)
        .bind(positions)
        .bind(columns)
        .bind(hashes)
        .bind(bytes);
    let written = transaction.execute(insert).await?;
    if written != chunks.len() as u64 {
        return Err(Failure::Damaged("a document change without its row".to_owned()));
    }
    Ok(())
}

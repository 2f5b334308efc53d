//! Records that arrive as a tenant.

use std::collections::BTreeSet;

use farshore_store::copy::{
    ChangeRecord, ChunkRecord, ForgetRecord, PLAIN_TABLES, PlainTable, Record, StandingRecord,
    SumChanges, SumsRecord,
};
use farshore_store::sql::SqlRow;
use farshore_store::sync_core::digest::{Buckets, DigestKey};
use farshore_store::sync_core::ids::{CollectionId, RowId};
use sqlx::Row as _;

use super::load::{collection, scope};
use super::sums::{self, LoadedParts};
use crate::database::Transaction;
use crate::failure::Failure;
use crate::names::Names;
use crate::query::{Parts, Query};
use crate::sql::Bound;

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
/// Forgets what was purged.
const FORGET_PURGED: &str = "WITH old AS (\
        DELETE FROM main.changes WHERE kind > 0 AND seq <= $1 RETURNING document) \
    DELETE FROM main.chunks k USING old WHERE k.document = old.document";
/// Forgets rows, with their documents and what they left in scopes that they left; selects those that were living.
const FORGET_ROWS: &str = "WITH rows AS (\
        SELECT * FROM unnest($1::integer[], $2::bytea[]) AS n(collection, id)), \
    departures AS (\
        DELETE FROM main.changes c USING rows n \
        WHERE c.kind = 2 AND c.collection = n.collection AND c.id = n.id), \
    gone AS (\
        DELETE FROM main.changes c USING rows n \
        WHERE c.kind < 2 AND c.collection = n.collection AND c.id = n.id \
        RETURNING c.kind, c.scope, c.collection, c.id, c.document, c.state), \
    chunks AS (DELETE FROM main.chunks k USING gone WHERE k.document = gone.document) \
    SELECT scope, collection, id, state FROM gone WHERE kind = 0";

/// How far a copy has come in.
#[derive(Debug, Default)]
pub(crate) struct Reception {
    /// The key of the sums, which the first record brings.
    key: Option<DigestKey>,
    positions: Positions,
}

/// Where among the changes of its documents the next one of a row stands.
#[derive(Debug, Default)]
struct Positions {
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

/// Writes records, in the order in which a copy gives them.
pub(crate) async fn write(
    names: &Names,
    transaction: &mut Transaction,
    records: Vec<Record>,
    reception: &mut Reception,
) -> Result<(), Failure> {
    let mut plain: Vec<Vec<SqlRow>> = vec![Vec::new(); PLAIN_TABLES.len()];
    let (mut forgotten, mut changes) = (Vec::new(), Vec::new());
    let (mut chunks, mut sums) = (Vec::new(), Vec::new());
    for record in records {
        match record {
            Record::Standing(at) => {
                // Documents that come now have nothing to do with those that came before.
                *reception =
                    Reception { key: Some(DigestKey(at.digest_key)), ..Default::default() };
                forget_out_of_date(names, transaction, at.horizon).await?;
                write_standing(names, transaction, &at).await?;
            }
            Record::Plain(table, row) => plain
                .get_mut(usize::from(table))
                .ok_or_else(|| Failure::Damaged("an unknown table".to_owned()))?
                .push(row),
            Record::Forget(row) => forgotten.push(row),
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
    let key = reception.key.as_ref();
    let key = key.ok_or_else(|| Failure::Damaged("a copy without a beginning".to_owned()))?;
    let mut counted = SumChanges::default();
    if !forgotten.is_empty() {
        forget(names, transaction, key, &forgotten, &mut counted).await?;
    }
    if !changes.is_empty() {
        write_changes(names, transaction, &changes).await?;
        for change in changes.iter().filter(|change| change.kind == 0) {
            let row = (CollectionId(change.collection), RowId::from_bytes(change.id));
            counted.add(key, scope(&change.scope)?, row, &change.state);
        }
    }
    let counted = counted.take();
    if !counted.is_empty() {
        let parts = sums::changed(names, transaction, &counted, &LoadedParts::default()).await?;
        let mut put = Parts::new("");
        sums::put(&mut put, None, &parts);
        let mut put = put.into_query();
        put.text = names.qualify(&put.text);
        transaction.execute(put).await?;
    }
    if !chunks.is_empty() {
        write_chunks(names, transaction, &chunks, &mut reception.positions).await?;
    }
    check_sums(names, transaction, &sums).await
}

/// Forgets the plain tables, which come again, and what was purged.
async fn forget_out_of_date(
    names: &Names,
    transaction: &mut Transaction,
    horizon: u64,
) -> Result<(), Failure> {
    for table in PLAIN_TABLES {
        transaction.script(names.qualify(&format!("DELETE FROM main.{}", table.name))).await?;
    }
    let purged = Query::new(names.qualify(FORGET_PURGED)).bind(horizon.cast_signed());
    transaction.execute(purged).await.map(drop)
}

async fn forget(
    names: &Names,
    transaction: &mut Transaction,
    key: &DigestKey,
    rows: &[ForgetRecord],
    counted: &mut SumChanges,
) -> Result<(), Failure> {
    let collections: Vec<i32> = rows.iter().map(|row| row.collection.into()).collect();
    let ids: Vec<&[u8]> = rows.iter().map(|row| &row.id[..]).collect();
    let forget = Query::new(names.qualify(FORGET_ROWS)).bind(collections).bind(ids);
    for row in transaction.rows(forget).await? {
        let place =
            (collection(row.try_get::<i32, _>(1)?.into())?, RowId::from_bytes(row.try_get(2)?));
        counted.remove(key, scope(row.try_get(0)?)?, place, row.try_get(3)?);
    }
    Ok(())
}

/// Whether the rows that came add up to the sums that were sent.
async fn check_sums(
    names: &Names,
    transaction: &mut Transaction,
    sent: &[SumsRecord],
) -> Result<(), Failure> {
    if sent.is_empty() {
        return Ok(());
    }
    let scopes: BTreeSet<&str> = sent.iter().map(|record| record.scope.as_str()).collect();
    let scopes = scopes.into_iter().map(scope).collect::<Result<Vec<_>, Failure>>()?;
    let counted = sums::buckets(names, transaction, &scopes).await?;
    let none = Buckets::default();
    for record in sent {
        let place = (scope(&record.scope)?, CollectionId(record.collection));
        record.check(counted.get(&place).unwrap_or(&none))?;
    }
    Ok(())
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

//! Records that arrive as a tenant.

use farshore_store::StoreError;
use farshore_store::copy::{
    ChangeRecord, ChunkRecord, ForgetRecord, PLAIN_TABLES, Record, StandingRecord, SumChanges,
};
use farshore_store::sync_core::digest::DigestKey;
use farshore_store::sync_core::ids::{CollectionId, RowId, Scope};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::{standing, sums};
use crate::failure::Failure;
use crate::place::{MAX_SEQ, Place};
use crate::scope_numbers::Interner;
use crate::sql::Bound;
use crate::tenant::{OpenTenant, SqliteTenant};

const OPERATION: &str = "take a copy in";

impl SqliteTenant {
    /// Takes the next records of a copy in.
    pub async fn put(&self, records: Vec<Record>) -> Result<(), StoreError> {
        self.write(OPERATION, |tenant, transaction| write(tenant, transaction, records)).await
    }
}

/// Writes records, in the order in which [`read`] gives them.
fn write(
    tenant: &OpenTenant,
    transaction: &Transaction<'_>,
    records: Vec<Record>,
) -> Result<(), Failure> {
    let mut key = standing::read(transaction)?.digest_key;
    let mut scopes = Interner::new(transaction, &tenant.scopes);
    let mut changes = SumChanges::default();
    // The document of the row whose changes come.
    let mut document: Option<((u16, [u8; 16]), i64)> = None;
    for record in records {
        match record {
            Record::Standing(at) => {
                forget_out_of_date(transaction, at.horizon)?;
                write_standing(transaction, &at)?;
                key = DigestKey(at.digest_key);
            }
            Record::Plain(table, row) => {
                let table = PLAIN_TABLES.get(usize::from(table));
                let table = table.ok_or_else(|| Failure::Damaged("an unknown table".to_owned()))?;
                let mut insert = transaction.prepare_cached(&table.insert(1))?;
                insert.execute(rusqlite::params_from_iter(row.0.iter().map(Bound)))?;
            }
            Record::Forget(row) => forget(tenant, transaction, &key, row, &mut changes)?,
            Record::Change(change) => {
                let scope = parse(&change.scope)?;
                write_change(transaction, scopes.number(&scope)?, &change)?;
                if change.kind == 0 {
                    let row = (CollectionId(change.collection), RowId::from_bytes(change.id));
                    changes.add(&key, scope, row, &change.state);
                }
            }
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
                write_sums(transaction, &mut scopes, &mut changes)?;
                let number = scopes.number(&parse(&record.scope)?)?;
                let counted = sums::read(transaction, number, CollectionId(record.collection))?;
                record.check(&counted)?;
            }
        }
    }
    write_sums(transaction, &mut scopes, &mut changes)
}

fn write_sums(
    database: &Connection,
    scopes: &mut Interner<'_>,
    changes: &mut SumChanges,
) -> Result<(), Failure> {
    for ((scope, collection), changes) in changes.take() {
        sums::add(database, sums::place(scopes.number(&scope)?, collection), &changes)?;
    }
    Ok(())
}

/// Forgets the plain tables, which come again, and what was purged.
fn forget_out_of_date(database: &Connection, horizon: u64) -> Result<(), Failure> {
    for table in PLAIN_TABLES {
        database.execute(&format!("DELETE FROM {}", table.name), [])?;
    }
    let purged = format!("FROM changes WHERE kind > 0 AND (place & {MAX_SEQ}) <= ?1");
    let horizon = [horizon.cast_signed()];
    let chunks = format!("DELETE FROM chunks WHERE document IN (SELECT document {purged})");
    database.execute(&chunks, horizon)?;
    database.execute(&format!("DELETE {purged}"), horizon)?;
    Ok(())
}

/// Forgets a row, with its documents and what it left in scopes that it left.
fn forget(
    tenant: &OpenTenant,
    database: &Connection,
    key: &DigestKey,
    row: ForgetRecord,
    changes: &mut SumChanges,
) -> Result<(), Failure> {
    let values = params![row.collection, row.id];
    let departures = "DELETE FROM changes WHERE collection = ?1 AND id = ?2 AND kind = 2";
    database.prepare_cached(departures)?.execute(values)?;
    let gone = "DELETE FROM changes WHERE collection = ?1 AND id = ?2 AND kind < 2 \
        RETURNING kind, place, document, state";
    let mut gone = database.prepare_cached(gone)?;
    let gone = gone.query_row(values, |row| {
        let (kind, place): (u8, Place) = (row.get(0)?, row.get(1)?);
        let (document, state): (Option<i64>, Vec<u8>) = (row.get(2)?, row.get(3)?);
        Ok((kind, place, document, state))
    });
    let Some((kind, place, document, state)) = gone.optional()? else { return Ok(()) };
    if kind == 0 {
        let scope = tenant.scopes.scope(database, place.scope())?;
        let row = (CollectionId(row.collection), RowId::from_bytes(row.id));
        changes.remove(key, scope, row, &state);
    }
    database.prepare_cached("DELETE FROM chunks WHERE document = ?1")?.execute([document])?;
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

fn write_change(database: &Connection, scope: i64, change: &ChangeRecord) -> Result<(), Failure> {
    let insert = "INSERT INTO changes \
        (place, kind, collection, id, written_at_ms, document, state) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let place = Place::new(scope, change.seq)?;
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

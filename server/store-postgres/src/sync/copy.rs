//! A tenant as records.

use async_trait::async_trait;
use farshore_store::StoreError;
use farshore_store::copy::{
    Batcher, ChangeRecord, ChunkRecord, CopyOut, ForgetRecord, PLAIN_TABLES, Record, RecordSink,
    StandingRecord, SumsRecord,
};
use farshore_store::sync_core::digest::Buckets;
use farshore_store::sync_core::ids::CollectionId;
use futures_util::TryStreamExt as _;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::load::{collection, column};
use super::sums::{self};
use crate::database::{Pace, Transaction};
use crate::failure::Failure;
use crate::names::Names;
use crate::sql::values;
use crate::tenant::PostgresTenant;

const OPERATION: &str = "copy a tenant";

#[async_trait]
impl CopyOut for PostgresTenant {
    async fn copy_out(&self, sink: &mut dyn RecordSink) -> Result<(), StoreError> {
        self.copy(None, sink).await
    }

    async fn copy_since(&self, seq: u64, sink: &mut dyn RecordSink) -> Result<(), StoreError> {
        self.copy(Some(seq), sink).await
    }
}

impl PostgresTenant {
    async fn copy(&self, since: Option<u64>, sink: &mut dyn RecordSink) -> Result<(), StoreError> {
        self.during(OPERATION, async {
            let mut read = self.0.read(Pace::Maintenance).await?;
            let mut out = Out { names: &self.0.names, sink, batcher: Batcher::default() };
            let copied = out.records(&mut read.transaction, since).await;
            read.transaction.end(copied).await
        })
        .await
    }
}

/// A query on `changed`: all that is stored of the rows of which something is newer than a seq, or is a tombstone or
/// departure up to the horizon.
fn changed(since: u64, horizon: u64, select: &str) -> String {
    let (since, horizon) = (since.cast_signed(), horizon.cast_signed());
    // The scopes are looked up one after another: there is no index on the seq alone. OFFSET 0 keeps each lookup one
    // by an index: few rows are looked up among many.
    format!(
        "WITH RECURSIVE scopes AS (\
            (SELECT scope FROM main.changes ORDER BY scope LIMIT 1) \
            UNION ALL \
            SELECT (SELECT c.scope FROM main.changes c WHERE c.scope > s.scope \
                ORDER BY c.scope LIMIT 1) FROM scopes s WHERE s.scope IS NOT NULL), \
        changed_rows AS (\
            SELECT c.collection, c.id FROM scopes s CROSS JOIN LATERAL (\
                SELECT collection, id FROM main.changes \
                WHERE scope = s.scope AND seq > {since} OFFSET 0) c \
            UNION \
            SELECT collection, id FROM main.changes WHERE kind > 0 AND seq <= {horizon}), \
        changed AS (\
            SELECT c.* FROM changed_rows r CROSS JOIN LATERAL (\
                SELECT * FROM main.changes c WHERE c.kind < 2 \
                    AND c.collection = r.collection AND c.id = r.id OFFSET 0) c \
            UNION ALL \
            SELECT c.* FROM changed_rows r CROSS JOIN LATERAL (\
                SELECT * FROM main.changes c WHERE c.kind = 2 \
                    AND c.collection = r.collection AND c.id = r.id OFFSET 0) c) \
        {select}"
    )
}

/// Records on their way out.
struct Out<'a> {
    names: &'a Names,
    sink: &'a mut dyn RecordSink,
    batcher: Batcher,
}

impl Out<'_> {
    /// Everything in one snapshot, or what has changed since a seq, in the canonical order.
    async fn records(
        &mut self,
        transaction: &mut Transaction,
        since: Option<u64>,
    ) -> Result<(), Failure> {
        let query = "SELECT seq, horizon, epoch, digest_key, created_at_ms FROM main.standing";
        let rows = transaction.script(self.names.qualify(query)).await?;
        let standing = standing_record(rows.first().ok_or(sqlx::Error::RowNotFound)?)?;
        let horizon = standing.horizon;
        self.add(Record::Standing(standing)).await?;
        for (number, table) in (0..).zip(PLAIN_TABLES) {
            let record = move |row: &PgRow| Ok(Record::Plain(number, values(row)?));
            self.each(transaction, &table.select(), record).await?;
        }
        match since {
            None => self.everything(transaction).await?,
            Some(since) => self.changed(transaction, since, horizon).await?,
        }
        self.sums(transaction).await?;
        Ok(self.sink.take(std::mem::take(&mut self.batcher).finish()).await?)
    }

    async fn everything(&mut self, transaction: &mut Transaction) -> Result<(), Failure> {
        let changes = "SELECT scope, seq, kind, collection, id, written_at_ms, \
            document IS NOT NULL, state FROM main.changes ORDER BY scope, seq";
        self.each(transaction, changes, change_record).await?;
        let chunks = "SELECT c.collection, c.id, k.column_id, k.seq, k.hash, k.bytes \
            FROM main.changes c JOIN main.chunks k ON k.document = c.document \
            WHERE c.kind < 2 ORDER BY c.collection, c.id, k.born, k.position";
        self.each(transaction, chunks, |row| Ok(Record::Chunk(chunk_record(row)?))).await
    }

    async fn changed(
        &mut self,
        transaction: &mut Transaction,
        since: u64,
        horizon: u64,
    ) -> Result<(), Failure> {
        let changes = "SELECT scope, seq, kind, collection, id, written_at_ms, \
            document IS NOT NULL, state FROM changed ORDER BY collection, id, scope, seq";
        let changes = self.names.qualify(&changed(since, horizon, changes));
        let mut row_before = None;
        let mut rows = transaction.stream(changes);
        while let Some(row) = rows.try_next().await? {
            let change = change_record(&row)?;
            if let Record::Change(ChangeRecord { collection, id, .. }) = &change {
                let forget = ForgetRecord { collection: *collection, id: *id };
                if row_before.replace(forget) != Some(forget) {
                    self.add(Record::Forget(forget)).await?;
                }
            }
            self.add(change).await?;
        }
        drop(rows);
        let chunks = "SELECT c.collection, c.id, k.column_id, k.seq, k.hash, k.bytes \
            FROM changed c JOIN main.chunks k ON k.document = c.document \
            WHERE c.kind < 2 ORDER BY c.collection, c.id, k.born, k.position";
        let chunks = changed(since, horizon, chunks);
        self.each(transaction, &chunks, |row| Ok(Record::Chunk(chunk_record(row)?))).await
    }

    async fn add(&mut self, record: Record) -> Result<(), Failure> {
        match self.batcher.add(record) {
            Some(batch) => Ok(self.sink.take(batch).await?),
            None => Ok(()),
        }
    }

    async fn each(
        &mut self,
        transaction: &mut Transaction,
        query: &str,
        record: impl Fn(&PgRow) -> Result<Record, Failure>,
    ) -> Result<(), Failure> {
        let mut rows = transaction.stream(self.names.qualify(query));
        while let Some(row) = rows.try_next().await? {
            self.add(record(&row)?).await?;
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
                if let Some((scope, collection, buckets)) = whole.replace(next) {
                    self.add_sums(&scope, collection, &buckets).await?;
                }
            }
            let (_, _, buckets) = whole.as_mut().expect("it was just put there");
            sums::take_part(buckets, row.try_get(2)?, row.try_get(3)?)?;
        }
        match whole {
            Some((scope, collection, buckets)) => self.add_sums(&scope, collection, &buckets).await,
            None => Ok(()),
        }
    }

    async fn add_sums(
        &mut self,
        scope: &str,
        collection: u16,
        buckets: &Buckets,
    ) -> Result<(), Failure> {
        match SumsRecord::new(scope, CollectionId(collection), buckets) {
            Some(sums) => self.add(Record::Sums(sums)).await,
            None => Ok(()),
        }
    }
}

fn standing_record(row: &PgRow) -> Result<StandingRecord, Failure> {
    Ok(StandingRecord {
        seq: number(row, 0)?,
        horizon: number(row, 1)?,
        epoch: number(row, 2)?,
        digest_key: row.try_get(3)?,
        created_at_ms: number(row, 4)?,
    })
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

fn chunk_record(row: &PgRow) -> Result<ChunkRecord, Failure> {
    Ok(ChunkRecord {
        collection: collection(row.try_get::<i32, _>(0)?.into())?.0,
        id: row.try_get(1)?,
        column: column(row.try_get::<i32, _>(2)?.into())?.0,
        seq: number(row, 3)?,
        hash: row.try_get(4)?,
        bytes: row.try_get(5)?,
    })
}

/// A number that is stored with all of its 64 bits.
fn number(row: &PgRow, column: usize) -> Result<u64, sqlx::Error> {
    row.try_get::<i64, _>(column).map(i64::cast_unsigned)
}

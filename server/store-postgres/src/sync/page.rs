//! Pages of changes, read window by window, so that a page takes no more memory than its target and one row.

use std::collections::HashMap;

use farshore_store::page::{PageFill, Room, deletion_stamp};
use farshore_store::sync::{
    ChangedRow, Chunk, Head, PageRead, PageRequest, RowChange, RowKey, ScopeRead,
};
use farshore_store::sync_core::digest::Totals;
use farshore_store::sync_core::ids::RowId;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::load::{collection, column};
use super::sums;
use crate::database::Transaction;
use crate::failure::Failure;
use crate::names::Names;
use crate::query::Query;

const LIVING: i16 = 0;
const DELETED: i16 = 1;
/// Rows of the first window of a scope; each further one is twice as large.
const FIRST_WINDOW_ROWS: usize = 128;
/// Most rows of a window.
const MAX_WINDOW_ROWS: usize = 4_096;

/// Which of the requested scopes have changes, by their place in the request.
const WITH_NEWS: &str = "SELECT n.place FROM unnest($1::text[], $2::bigint[]) \
        WITH ORDINALITY AS n(scope, after, place) \
    WHERE EXISTS (SELECT FROM main.changes c WHERE c.scope = n.scope AND c.seq > n.after) \
    ORDER BY n.place";
/// The next changes of a scope after `$2`, at most `$3`, up to the one that reaches `$4` bytes. Document changes
/// after `$5` count as well.
const WINDOW: &str = "SELECT seq, kind, collection, id, document, state, bytes FROM ( \
        SELECT *, sum(bytes) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) - bytes AS before FROM ( \
            SELECT c.seq, c.kind, c.collection, c.id, c.document, c.state, \
                CASE WHEN c.kind = 0 THEN octet_length(c.state) ELSE 0 END \
                + CASE WHEN c.kind = 0 AND c.document IS NOT NULL THEN ( \
                    SELECT coalesce(sum(octet_length(k.bytes)), 0) FROM main.chunks k \
                    WHERE k.document = c.document AND k.seq > $5) ELSE 0 END AS bytes \
            FROM main.changes c WHERE c.scope = $1 AND c.seq > $2 ORDER BY c.seq LIMIT $3 \
        ) AS next \
    ) AS counted WHERE before < $4 ORDER BY seq";
const CHUNKS_AFTER: &str = "SELECT document, column_id, bytes FROM main.chunks \
    WHERE document = ANY($1::bigint[]) AND seq > $2 ORDER BY document, born, position";
const ALL_CHUNKS: &str = "SELECT k.column_id, k.bytes FROM main.changes r \
    JOIN main.chunks k ON k.document = r.document \
    WHERE r.collection = $1 AND r.id = $2 AND r.kind < 2 ORDER BY k.born, k.position";

pub(super) async fn read(
    names: &Names,
    transaction: &mut Transaction,
    head: Head,
    request: &PageRequest,
) -> Result<PageRead, Failure> {
    let mut page = PageFill::new(request, head);
    let with_news = with_news(names, transaction, request).await?;
    for (place, read) in request.scopes.iter().enumerate() {
        if with_news.contains(&place) {
            let mut scan = Scan { names, transaction, request, read };
            if scan.fill(&mut page).await? == Room::Full {
                break;
            }
        }
        page.exhausted();
    }
    let totals = match page.is_complete() {
        true => {
            let scopes: Vec<&str> = scopes(request).collect();
            sums::totals(names, transaction, &scopes).await?
        }
        false => Totals::new(),
    };
    Ok(page.finish(totals))
}

fn scopes(request: &PageRequest) -> impl Iterator<Item = &str> {
    request.scopes.iter().map(|read| read.scope.as_str())
}

/// The places in the request of the scopes that have changes, rising.
async fn with_news(
    names: &Names,
    transaction: &mut Transaction,
    request: &PageRequest,
) -> Result<Vec<usize>, Failure> {
    let after: Vec<i64> = request.scopes.iter().map(|read| bounded(read.after)).collect();
    let scopes: Vec<&str> = scopes(request).collect();
    let query = Query::new(names.qualify(WITH_NEWS)).bind(scopes).bind(after);
    let rows = transaction.rows(query).await?;
    let place = |row: &PgRow| {
        let place: i64 = row.try_get(0)?;
        usize::try_from(place - 1).map_err(|_| Failure::Damaged("a place below zero".to_owned()))
    };
    rows.iter().map(place).collect()
}

/// Reading one scope of a request.
struct Scan<'a> {
    names: &'a Names,
    transaction: &'a mut Transaction,
    request: &'a PageRequest,
    read: &'a ScopeRead,
}

impl Scan<'_> {
    /// Takes the changes of the scope until there are no more or the page is full.
    async fn fill(&mut self, page: &mut PageFill) -> Result<Room, Failure> {
        let mut position = self.read.after;
        let mut limit = FIRST_WINDOW_ROWS;
        loop {
            let window = self.window(position, limit).await?;
            let chunks = self.chunks_of(&window).await?;
            let is_last = window.len() < limit && bytes_of(&window)? < self.request.target_bytes;
            for row in self.changed_rows(&window, chunks)? {
                if page.room() == Room::Full {
                    return Ok(Room::Full);
                }
                position = row.seq;
                page.push(row);
            }
            if is_last {
                return Ok(Room::Left);
            }
            // A page that is full wants to know but whether there is more.
            limit = match page.room() {
                Room::Full => 1,
                Room::Left => (2 * limit).min(MAX_WINDOW_ROWS),
            };
        }
    }

    async fn window(&mut self, after: u64, limit: usize) -> Result<Vec<PgRow>, Failure> {
        let query = Query::new(self.names.qualify(WINDOW))
            .bind(self.read.scope.as_str())
            .bind(bounded(after))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .bind(i64::try_from(self.request.target_bytes.max(1)).unwrap_or(i64::MAX))
            .bind(bounded(self.read.changes_after));
        self.transaction.rows(query).await
    }

    /// The document changes of the living rows of a window, by the number of the row's documents.
    async fn chunks_of(&mut self, window: &[PgRow]) -> Result<HashMap<i64, Vec<Chunk>>, Failure> {
        let mut documents: Vec<i64> = Vec::new();
        for row in window {
            if row.try_get::<i16, _>(1)? == LIVING {
                documents.extend(row.try_get::<Option<i64>, _>(4)?);
            }
        }
        let mut chunks: HashMap<i64, Vec<Chunk>> = HashMap::new();
        if documents.is_empty() {
            return Ok(chunks);
        }
        let query = Query::new(self.names.qualify(CHUNKS_AFTER));
        let query = query.bind(documents).bind(bounded(self.read.changes_after));
        for row in self.transaction.rows(query).await? {
            let chunk =
                Chunk { column: column(row.try_get::<i32, _>(1)?.into())?, bytes: row.try_get(2)? };
            chunks.entry(row.try_get(0)?).or_default().push(chunk);
        }
        Ok(chunks)
    }

    fn changed_rows(
        &self,
        window: &[PgRow],
        mut chunks: HashMap<i64, Vec<Chunk>>,
    ) -> Result<Vec<ChangedRow>, Failure> {
        let changed = |row: &PgRow| {
            let mut its_chunks = Vec::new();
            let change = match row.try_get(1)? {
                LIVING => {
                    let document: Option<i64> = row.try_get(4)?;
                    its_chunks =
                        document.and_then(|document| chunks.remove(&document)).unwrap_or_default();
                    RowChange::State(row.try_get(5)?)
                }
                DELETED => RowChange::Deleted(deletion_stamp(row.try_get(5)?)?),
                _ => RowChange::Departed,
            };
            Ok(ChangedRow {
                seq: row.try_get::<i64, _>(0)?.cast_unsigned(),
                scope: self.read.scope.clone(),
                collection: collection(row.try_get::<i32, _>(2)?.into())?,
                row: RowId::from_bytes(row.try_get(3)?),
                change,
                chunks: its_chunks,
            })
        };
        window.iter().map(changed).collect()
    }
}

fn bytes_of(window: &[PgRow]) -> Result<usize, Failure> {
    let bytes = |row: &PgRow| row.try_get::<i64, _>(6).map(i64::cast_unsigned);
    let total: u64 = window.iter().map(bytes).sum::<Result<_, _>>()?;
    Ok(usize::try_from(total).unwrap_or(usize::MAX))
}

/// All document changes of a row.
pub(super) async fn all_chunks(
    names: &Names,
    transaction: &mut Transaction,
    key: RowKey,
) -> Result<Vec<Chunk>, Failure> {
    let query = Query::new(names.qualify(ALL_CHUNKS));
    let query = query.bind(i32::from(key.0.0)).bind(&key.1.as_bytes()[..]);
    let rows = transaction.rows(query).await?;
    let chunk = |row: &PgRow| {
        Ok(Chunk { column: column(row.try_get::<i32, _>(0)?.into())?, bytes: row.try_get(1)? })
    };
    rows.iter().map(chunk).collect()
}

/// A seq as Postgres has it. A device may claim any; beyond the largest there is nothing.
fn bounded(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

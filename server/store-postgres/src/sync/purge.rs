//! Purging tombstones and departures.

use sqlx::Row as _;

use crate::database::Transaction;
use crate::failure::Failure;
use crate::names::Names;
use crate::query::Query;

const PURGE: &str = "WITH old AS MATERIALIZED (\
        SELECT seq, document FROM main.changes WHERE kind > 0 AND written_at_ms < $1), \
    without_documents AS (\
        DELETE FROM main.chunks k USING old WHERE k.document = old.document), \
    without_rows AS (\
        DELETE FROM main.changes WHERE kind > 0 AND written_at_ms < $1), \
    moved AS (\
        UPDATE main.standing SET horizon = greatest(horizon, (SELECT max(seq) FROM old)) \
        WHERE EXISTS (SELECT FROM old)) \
    SELECT count(*) FROM old";

/// Removes what is older than a time and moves the horizon behind it. Returns how many tombstones and departures
/// that were.
pub(super) async fn purge(
    names: &Names,
    transaction: &mut Transaction,
    older_than_ms: u64,
) -> Result<u64, Failure> {
    let query = Query::new(names.qualify(PURGE)).bind(older_than_ms.cast_signed());
    let rows = transaction.rows(query).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok(row.try_get::<i64, _>(0)?.cast_unsigned())
}

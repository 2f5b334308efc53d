//! Purging tombstones and departures.

use rusqlite::{Transaction, params};

use super::standing;
use crate::failure::Failure;
use crate::place::MAX_SEQ;

/// Removes what is older than a time and moves the horizon behind it. Returns how many tombstones and departures
/// that were.
pub(super) fn purge(transaction: &Transaction<'_>, older_than_ms: u64) -> Result<u64, Failure> {
    let before = older_than_ms.cast_signed();
    let newest: Option<i64> = transaction.query_row(
        "SELECT MAX(place & ?2) FROM changes WHERE kind > 0 AND written_at_ms < ?1",
        params![before, MAX_SEQ.cast_signed()],
        |row| row.get(0),
    )?;
    let Some(newest) = newest else { return Ok(0) };
    transaction.execute(
        "DELETE FROM chunks WHERE document IN \
         (SELECT document FROM changes WHERE kind > 0 AND written_at_ms < ?1)",
        [before],
    )?;
    let purged = transaction
        .execute("DELETE FROM changes WHERE kind > 0 AND written_at_ms < ?1", [before])?;
    let horizon = standing::read(transaction)?.head.horizon.max(newest.cast_unsigned());
    standing::set_horizon(transaction, horizon)?;
    Ok(purged as u64)
}

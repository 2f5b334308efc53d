//! Deleted rows are kept for a while, so that they can be restored with what they held, and then forgotten.
//!
//! Their age is by the server's clock: that of a device may jump by years, and whoever forgets a deletion too early
//! cannot tell it to a server that was restored from a backup.

use rusqlite::params;

use super::error::Failure;
use super::progress::to_sql;
use super::transaction::Tx;

/// How long a deleted row is kept, in milliseconds: 90 days. Whoever restores it later restores it elsewhere.
pub const GRAVE_RETENTION_MS: u64 = 90 * DAY_MS;

const DAY_MS: u64 = 86_400_000;

impl Tx<'_> {
    /// Forgets rows that were deleted long ago and wait for nothing; looks once a day.
    pub(super) fn sweep_graves(&mut self) -> Result<(), Failure> {
        let now_ms = self.known.progress.server_ms;
        if now_ms < self.known.progress.swept_ms.saturating_add(DAY_MS) {
            return Ok(());
        }
        self.known.progress.swept_ms = now_ms;
        let before = to_sql(now_ms.saturating_sub(GRAVE_RETENTION_MS));
        self.connection
            .prepare_cached(
                "DELETE FROM fs_chunks WHERE number IS NULL AND (collection, id) IN \
                 (SELECT collection, id FROM fs_graves WHERE pending IS NULL AND since_ms < ?1)",
            )?
            .execute(params![before])?;
        self.connection
            .prepare_cached("DELETE FROM fs_graves WHERE pending IS NULL AND since_ms < ?1")?
            .execute(params![before])?;
        Ok(())
    }
}

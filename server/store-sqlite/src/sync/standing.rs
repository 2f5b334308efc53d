//! Where the tenant stands: one row.

use farshore_store::sync::Head;
use farshore_store::sync_core::digest::DigestKey;
use rusqlite::Connection;

use crate::failure::Failure;
use crate::journal::FileName;

/// The head with the digest key beside it.
#[derive(Debug)]
pub(super) struct Standing {
    pub head: Head,
    pub digest_key: DigestKey,
}

pub(super) fn read(database: &Connection) -> Result<Standing, Failure> {
    let query = "SELECT seq, horizon, epoch, digest_key FROM standing";
    let mut statement = database.prepare_cached(query)?;
    Ok(statement.query_row([], |row| {
        let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let head = Head { seq: number(0)?, horizon: number(1)?, epoch: number(2)? };
        Ok(Standing { head, digest_key: DigestKey(row.get(3)?) })
    })?)
}

pub(super) fn set_seq(database: &Connection, seq: u64) -> Result<(), Failure> {
    set(database, "UPDATE standing SET seq = ?1", seq)
}

pub(super) fn set_epoch(database: &Connection, epoch: u64) -> Result<(), Failure> {
    set(database, "UPDATE standing SET epoch = ?1", epoch)
}

pub(super) fn set_horizon(database: &Connection, horizon: u64) -> Result<(), Failure> {
    set(database, "UPDATE standing SET horizon = ?1", horizon)
}

/// The name of the file, and how many writes it took.
pub(crate) fn file(database: &Connection) -> Result<(FileName, u64), Failure> {
    let mut statement = database.prepare_cached("SELECT file, writes FROM standing")?;
    let read = statement.query_row([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
    Ok((read.0, read.1.cast_unsigned()))
}

/// Counts a write to the file; the name of the file, and the how manieth it is.
pub(crate) fn count_write(database: &Connection) -> Result<(FileName, u64), Failure> {
    let update = "UPDATE standing SET writes = writes + 1 RETURNING file, writes";
    let mut statement = database.prepare_cached(update)?;
    let read = statement.query_row([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
    Ok((read.0, read.1.cast_unsigned()))
}

fn set(database: &Connection, update: &'static str, number: u64) -> Result<(), Failure> {
    let changed = database.prepare_cached(update)?.execute([number.cast_signed()])?;
    assert_eq!(changed, 1, "a tenant stands in one place");
    Ok(())
}

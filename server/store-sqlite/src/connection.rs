//! An encrypted connection and its settings.

use std::fs;
use std::path::Path;
use std::time::Duration;

use farshore_log_check::LogState;
use farshore_store::StoreError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::config::SqliteConfig;
use crate::data_key::DataKey;
use crate::failure::{Failure, file_error};

/// Earlier versions of SQLite can damage a file when its write-ahead log starts anew.
const OLDEST_SQLITE_VERSION_NUMBER: i32 = 3_051_003;
/// Prepared statements that a connection keeps.
const STATEMENT_CACHE: usize = 64;
/// The write-ahead log is cut to this size once its pages were moved, in bytes.
const LOG_SIZE_LIMIT_BYTES: u32 = 16 << 20;

/// How pages are authenticated. Processors have instructions for SHA-256 and none for SHA-512, the default: with
/// them it was measured to read 1.4 times and to write up to 1.3 times as fast.
const CIPHER: &str = "PRAGMA cipher_hmac_algorithm = HMAC_SHA256;";

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Makes a database where there is none.
    Creator,
    /// Commits.
    Writer,
    /// Reads beside the writer.
    Reader,
}

/// Opens a connection. Whether key and file fit shows in the first statement that reads.
pub(crate) fn open(
    path: &Path,
    key: &DataKey,
    role: Role,
    config: &SqliteConfig,
) -> Result<Connection, Failure> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if role == Role::Creator {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let connection = Connection::open_with_flags(path, flags)?;
    on_close(&connection, OnClose::LeaveFiles)?;
    connection.execute_batch(&key.pragma())?;
    connection.execute_batch(CIPHER)?;
    connection.busy_timeout(Duration::from_millis(config.busy_timeout_ms.into()))?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    // A commit returns after its log is on the disk: anything less loses acknowledged writes with the power.
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;")?;
    connection.execute_batch("PRAGMA trusted_schema = OFF;")?;
    if role == Role::Reader {
        cache_kib(&connection, config.reader_cache_kib)?;
        connection.execute_batch("PRAGMA query_only = ON;")?;
    } else {
        cache_kib(&connection, config.writer_cache_kib)?;
        log_ahead(&connection, config)?;
    }
    Ok(connection)
}

/// Closes the only connection to a database, whose log is empty and gone then.
pub(crate) fn close_whole(database: Connection) -> Result<(), Failure> {
    database.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);")?;
    on_close(&database, OnClose::TidyLog)?;
    database.close().map_err(|(_, error)| error.into())
}

/// What a connection leaves behind when it closes as the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnClose {
    /// The log goes into the file and is removed.
    TidyLog,
    /// Every file stays as it is: for a tenant that may not be sound. A connection begins so.
    LeaveFiles,
}

/// Says what becomes of the log when the connection closes as the last one.
pub(crate) fn on_close(connection: &Connection, then: OnClose) -> Result<(), Failure> {
    let leave = then == OnClose::LeaveFiles;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, leave)?;
    Ok(())
}

/// An error where the connection has read what is not authentic.
///
/// SQLCipher gives a page that is not out as zeros, and leaves it to SQLite to stumble over them. In the middle of a
/// long value SQLite does not: what was read must not be believed before this was asked. The connection is of no use
/// from then on.
pub(crate) fn require_sound(connection: &Connection) -> Result<(), Failure> {
    // SQLCipher answers while the statement is prepared, so it must not come from a cache.
    let status: String = connection.query_row("PRAGMA cipher_status", [], |row| row.get(0))?;
    if status == "1" {
        Ok(())
    } else {
        Err(Failure::Damaged("a page that was read is not what was written".to_owned()))
    }
}

/// Whether there is a log with something in it.
pub(crate) fn has_log(path: &Path) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    fs::metadata(name).is_ok_and(|log| log.len() > 0)
}

/// An error where the log is damaged: SQLite forgets what lies behind such a place without a word.
pub(crate) fn require_whole_log(path: &Path) -> Result<(), Failure> {
    of_log(path, log_state(path)?)
}

/// What the log of a database says of itself.
pub(crate) fn log_state(path: &Path) -> Result<LogState, Failure> {
    let operation = "look at the log";
    Ok(farshore_log_check::check_log_of(path).map_err(file_error(operation, path))?)
}

/// The error of a log in such a state.
pub(crate) fn of_log(path: &Path, state: LogState) -> Result<(), Failure> {
    let path = path.display();
    match state {
        LogState::Sound => Ok(()),
        LogState::HeaderDamaged => {
            Err(Failure::Damaged(format!("{path}: the header of its log is not what was written")))
        }
        LogState::FrameDamaged(frame) => Err(Failure::Damaged(format!(
            "{path}: frame {frame} of its log is not what was written, and commits follow it"
        ))),
    }
}

/// How a transaction becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// With its end: the log is synced.
    AtItsEnd,
    /// Somewhere else before its end: the log is synced before its pages are moved, and not for this.
    Elsewhere,
}

/// Says how the next transactions of a connection become durable.
pub(crate) fn set_sync(connection: &Connection, sync: Sync) -> rusqlite::Result<()> {
    connection.execute_batch(match sync {
        Sync::AtItsEnd => "PRAGMA synchronous = FULL;",
        Sync::Elsewhere => "PRAGMA synchronous = NORMAL;",
    })
}

/// Moves what is in the log into the file and makes it durable there; whether all of it was moved, which others who
/// read may prevent.
pub(crate) fn checkpoint(connection: &Connection, mode: Checkpoint) -> Result<bool, Failure> {
    let pragma = match mode {
        Checkpoint::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
        Checkpoint::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let (busy, in_log, moved): (i64, i64, i64) = connection.query_row(pragma, [], row)?;
    Ok(busy == 0 && in_log == moved)
}

/// How hard a checkpoint tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checkpoint {
    /// As far as it gets without waiting.
    Passive,
    /// It waits for others, and leaves no log.
    Truncate,
}

/// How long a log is, in frames of one page each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogLength {
    /// All of them.
    pub frames: u64,
    /// Those that are not in the file yet.
    pub unmoved: u64,
}

/// How long the log is, as far as it counts.
pub(crate) fn log_length(connection: &Connection) -> rusqlite::Result<LogLength> {
    connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| {
        let number = |column| row.get::<_, i64>(column).map(|number| number.max(0).cast_unsigned());
        let (frames, moved) = (number(1)?, number(2)?);
        Ok(LogLength { frames, unmoved: frames.saturating_sub(moved) })
    })
}

fn cache_kib(connection: &Connection, kib: u32) -> rusqlite::Result<()> {
    // Negative counts KiB, positive pages.
    connection.pragma_update(None, "cache_size", -i64::from(kib))
}

fn log_ahead(connection: &Connection, config: &SqliteConfig) -> Result<(), Failure> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Failure::Damaged(format!("the journal mode is {mode}, not wal")));
    }
    connection.pragma_update(None, "wal_autocheckpoint", config.checkpoint_after_pages)?;
    connection.pragma_update(None, "journal_size_limit", LOG_SIZE_LIMIT_BYTES)?;
    Ok(())
}

/// Checks that the SQLite in this program is new enough and encrypts, and keeps it from writing to standard
/// error what it also returns as an error.
pub(crate) fn check_library() -> Result<(), StoreError> {
    let operation = "check the SQLite library";
    if rusqlite::version_number() < OLDEST_SQLITE_VERSION_NUMBER {
        let found = rusqlite::version();
        let problem = format!("SQLite {found} is too old: it needs 3.51.3 or newer");
        return Err(StoreError::database(operation, problem));
    }
    let failed = |error: rusqlite::Error| StoreError::database(operation, error);
    let connection = Connection::open_in_memory().map_err(failed)?;
    connection.execute_batch("PRAGMA cipher_log_level = NONE;").map_err(failed)?;
    let mut statement = connection.prepare("PRAGMA cipher_version").map_err(failed)?;
    let mut versions = statement.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
    match versions.next() {
        Some(Ok(version)) if !version.is_empty() => Ok(()),
        _ => {
            Err(StoreError::database(operation, "this SQLite does not encrypt: it is no SQLCipher"))
        }
    }
}

//! One encrypted database: a SQLCipher file and the key file beside it.
//!
//! `store.db` is encrypted page by page under a random raw key; `store.db.key` (see `key_file`) holds that key as the vault wrapped it, with what it takes to tell the ways apart in which opening can fail:
//!
//! | what is there | error |
//! |---|---|
//! | the key file, but the vault has lost its key; or a database without its key file | [`OpenError::LostKey`] |
//! | another store's key file, key or vault entry | [`OpenError::WrongKey`] |
//! | flipped bytes, a cut file | [`OpenError::Damaged`] |
//! | a SQLite file that was never encrypted | [`OpenError::PlainFile`] |
//! | a file of a newer Farshore | [`OpenError::NewerSchema`] |
//! | a key file, but no database | [`OpenError::Missing`] |
//! | neither | [`OpenError::NotCreated`] |
//!
//! SQLCipher itself says "file is not a database" to half of these.
//!
//! Invariants:
//! - Nothing is deleted, made anew or written on an error: database, WAL and key file stay as they are, byte for byte.
//! - A SQLite library without encryption never gets as far as writing.
//! - A database is encrypted from its first byte, and only [`create`] makes one.
//! - Once the database file exists, only SQLite opens it: closing another handle would drop SQLite's locks.
//!
//! This module knows no table of the store; it hands out connections.

use std::fs;
use std::io;
use std::path::{Path, absolute};
use std::time::Duration;

use data_encoding::HEXLOWER;
use farshore_log_check::LogState;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::vault::{DataKey, KEY_BYTES, KeyVault, VaultLabel, durable};
use key_file::{KeyFile, State};

mod error;
mod key_file;
#[cfg(test)]
mod tests;

pub use error::OpenError;
pub use key_file::key_file_path;

/// The version of the file's format, kept in `user_version`. A file with a greater one is refused.
pub const FORMAT_VERSION: u32 = 1;

/// Marks the database as Farshore's in `application_id`: `FSHR`.
pub const APPLICATION_ID: i32 = i32::from_be_bytes(*b"FSHR");

/// The oldest SQLite that is safe to use: before it, a WAL can be corrupted when it is reset.
pub const MIN_SQLITE_VERSION: i32 = 3_051_003;

/// How long a connection waits for another one's lock.
pub const BUSY_TIMEOUT_MS: u32 = 5_000;

/// Page cache of one connection. Reads from it cost no decryption.
pub const CACHE_KIB: u32 = 16 * 1024;

/// The WAL is cut back to this size after a checkpoint.
pub const WAL_SIZE_LIMIT_BYTES: u32 = 16 * 1024 * 1024;

/// SQLCipher's page, and the smallest database.
const PAGE_BYTES: u64 = 4096;

/// The file starts with the salt of its keys.
const SALT_BYTES: usize = 16;

/// What a database starts with that was never encrypted.
const PLAIN_MAGIC: &[u8; SALT_BYTES] = b"SQLite format 3\0";

/// How many damaged pages an error names.
const MAX_PAGES_NAMED: usize = 3;

/// What a connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Read and write.
    ReadWrite,
    /// Read only.
    ReadOnly,
}

/// What opens one encrypted database: its data key and what its key file says about it.
#[derive(Debug)]
pub struct StoreKey {
    data_key: DataKey,
    salt: [u8; SALT_BYTES],
    store_id: Uuid,
}

impl StoreKey {
    /// The identity that the store got when it was created.
    pub fn store_id(&self) -> Uuid {
        self.store_id
    }
}

/// Makes a new, empty encrypted database with a new key that `vault` wraps under `label`.
///
/// The key file becomes durable first and is marked ready last; after a crash in between, call it again: it goes on with the same key and identity.
///
/// # Errors
/// [`OpenError::AlreadyExists`] if there is a finished one, [`OpenError::PlainFile`] or [`OpenError::LostKey`] if a foreign file is in its place, [`OpenError::Vault`], [`OpenError::Io`].
pub fn create(
    path: &Path,
    vault: &dyn KeyVault,
    label: &VaultLabel,
    store_id: Uuid,
) -> Result<StoreKey, OpenError> {
    let key_file = match KeyFile::read(path)? {
        Some(finished) if finished.state == State::Ready => {
            return Err(OpenError::AlreadyExists { path: path.to_owned() });
        }
        Some(unfinished) => unfinished,
        None => match without_key_file(path) {
            OpenError::NotCreated { .. } => KeyFile::create(path, vault, label, store_id)?,
            occupied => return Err(occupied),
        },
    };
    let key = key_file.unlock(path, vault, label)?;
    create_private(path).map_err(OpenError::io(path))?;
    let connection = connect(path, &key.data_key, OpenMode::ReadWrite)?;
    write_empty_database(connection, &key.salt).map_err(OpenError::sqlite(path))?;
    durable::sync_directory_of(path).map_err(OpenError::io(path))?;
    key_file.mark_ready(path)?;
    Ok(key)
}

/// Has `vault` unwrap the key of the database at `path`. Does not touch the database.
///
/// # Errors
/// [`OpenError::NotCreated`] if there is nothing, [`OpenError::LostKey`], [`OpenError::WrongKey`], [`OpenError::Damaged`] or [`OpenError::NewerSchema`] for the key file, [`OpenError::Vault`] if the vault is locked or out of reach, [`OpenError::Io`].
pub fn unlock(
    path: &Path,
    vault: &dyn KeyVault,
    label: &VaultLabel,
) -> Result<StoreKey, OpenError> {
    match KeyFile::read(path)? {
        Some(key_file) if key_file.state == State::Ready => key_file.unlock(path, vault, label),
        Some(_) => Err(OpenError::NotCreated { path: path.to_owned() }),
        None => Err(without_key_file(path)),
    }
}

/// Opens a connection to an existing database; costs no key derivation, so a pool may open many.
///
/// Double-quoted strings, functions with side effects in the schema and writes to SQLite's own tables are off.
///
/// # Errors
/// [`OpenError::Missing`], [`OpenError::PlainFile`], [`OpenError::WrongKey`], [`OpenError::Damaged`], [`OpenError::NewerSchema`], [`OpenError::Busy`], [`OpenError::Io`].
pub fn open(path: &Path, key: &StoreKey, mode: OpenMode) -> Result<Connection, OpenError> {
    if mode == OpenMode::ReadWrite {
        check_log(path)?;
    }
    let connection = connect(path, &key.data_key, mode)?;
    check_head(path, &connection, key)?;
    check_is_ours(path, &connection)?;
    configure(&connection, mode).map_err(OpenError::sqlite(path))?;
    // SQLite opens what it may not write for reading, and says so at the first write only.
    if mode == OpenMode::ReadWrite && connection.is_readonly("main").unwrap_or(true) {
        let source = error::why_not_writable(path);
        let source = source.unwrap_or_else(|| io::ErrorKind::PermissionDenied.into());
        return Err(OpenError::Io { path: path.to_owned(), source });
    }
    Ok(connection)
}

/// Whether every page that the connection has read was authentic.
///
/// SQLCipher gives a page that is not out as zeros, and leaves it to SQLite to stumble over them. In the middle of a
/// long value SQLite does not: what was read must not be believed before this was asked. The connection is of no use
/// from then on.
///
/// # Errors
/// Those of SQLite.
pub fn is_sound(connection: &Connection) -> rusqlite::Result<bool> {
    // SQLCipher answers while the statement is prepared, so it must not come from a cache.
    let status: String = connection.query_row("PRAGMA cipher_status", [], |row| row.get(0))?;
    Ok(status == "1")
}

/// What a connection leaves behind when it closes as the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnClose {
    /// The log goes into the file and is removed.
    TidyLog,
    /// Every file stays as it is: for a store that may not be sound.
    LeaveFiles,
}

/// Says what becomes of the log when the connection closes as the last one; [`open`] gives it out with
/// [`OnClose::TidyLog`].
///
/// # Errors
/// Those of SQLite.
pub fn on_close(connection: &Connection, then: OnClose) -> rusqlite::Result<()> {
    let leave = then == OnClose::LeaveFiles;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, leave)?;
    Ok(())
}

/// Reads the whole database and checks every page's authentication code and every table's structure.
/// It takes some seconds per gigabyte; [`open`] looks at the first pages only.
///
/// # Errors
/// Those of [`open`]; [`OpenError::Damaged`] names the first bad pages.
pub fn verify(path: &Path, key: &StoreKey) -> Result<(), OpenError> {
    let connection = open(path, key, OpenMode::ReadOnly)?;
    let complaints = unauthentic_pages(&connection).map_err(OpenError::sqlite(path))?;
    if !complaints.is_empty() {
        let named = complaints[..complaints.len().min(MAX_PAGES_NAMED)].join("; ");
        return Err(OpenError::damaged(path, named));
    }
    let structure: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(OpenError::sqlite(path))?;
    if structure == "ok" { Ok(()) } else { Err(OpenError::damaged(path, structure)) }
}

/// SQLite forgets what lies behind a damaged place of the log without a word.
fn check_log(path: &Path) -> Result<(), OpenError> {
    let detail = match farshore_log_check::check_log_of(path).map_err(OpenError::io(path))? {
        LogState::Sound => return Ok(()),
        LogState::HeaderDamaged => "the header of its log is not what was written".to_owned(),
        LogState::FrameDamaged(frame) => {
            format!("frame {frame} of its log is not what was written, and commits follow it")
        }
    };
    Err(OpenError::damaged(path, detail))
}

/// What the first bytes of a file say about it.
enum Head {
    Plain,
    TooShort,
    Salt([u8; SALT_BYTES]),
}

/// Reads the first bytes through SQLite's handle of the file, which has read nothing else yet.
/// A handle of our own would do harm: POSIX drops all locks that a process has on a file when it closes any handle of it.
fn head(path: &Path, connection: &Connection) -> Result<Head, OpenError> {
    let length = fs::metadata(path).map_err(OpenError::io(path))?.len();
    let text: String = connection
        .pragma_query_value(None, "cipher_salt", |row| row.get(0))
        .map_err(OpenError::sqlite(path))?;
    let salt = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    let salt = salt.expect("SQLCipher's salt is 16 bytes in lower-case hexadecimal");
    Ok(if salt == *PLAIN_MAGIC {
        Head::Plain
    } else if length < PAGE_BYTES {
        Head::TooShort
    } else {
        Head::Salt(salt)
    })
}

/// What it means that there is no key file.
fn without_key_file(path: &Path) -> OpenError {
    let head = || {
        let stranger = DataKey::generate().map_err(OpenError::Vault)?;
        head(path, &connect(path, &stranger, OpenMode::ReadOnly)?)
    };
    match head() {
        Ok(Head::Plain) => OpenError::PlainFile { path: path.to_owned() },
        Ok(Head::TooShort | Head::Salt(_)) => {
            OpenError::LostKey { path: path.to_owned(), lost: "its key file is gone" }
        }
        Err(OpenError::Missing { path }) => OpenError::NotCreated { path },
        Err(other) => other,
    }
}

/// Recognises, before SQLite makes sense of anything, what is not the database that `key` belongs to.
fn check_head(path: &Path, connection: &Connection, key: &StoreKey) -> Result<(), OpenError> {
    match head(path, connection)? {
        Head::Salt(salt) if salt == key.salt => Ok(()),
        Head::Salt(_) => Err(wrong_key_or_damaged(path, connection, key)?),
        Head::Plain => Err(OpenError::PlainFile { path: path.to_owned() }),
        Head::TooShort => Err(OpenError::damaged(path, "it is shorter than one page")),
    }
}

/// The file does not start with the salt that it was made with: it is another database, or its start is overwritten.
/// One page that authenticates under the key and the recorded salt proves that it is ours.
fn wrong_key_or_damaged(
    path: &Path,
    connection: &Connection,
    key: &StoreKey,
) -> Result<OpenError, OpenError> {
    let complaints = set_salt(connection, &key.salt)
        .and_then(|()| unauthentic_pages(connection))
        .map_err(OpenError::sqlite(path))?;
    let pages = fs::metadata(path).map_err(OpenError::io(path))?.len() / PAGE_BYTES;
    Ok(if (complaints.len() as u64) < pages {
        OpenError::damaged(path, "its first bytes are overwritten")
    } else {
        OpenError::WrongKey {
            path: path.to_owned(),
            detail: "the file belongs to another key: is it, or its key file, a copy of another store's?",
        }
    })
}

fn unauthentic_pages(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection.prepare("PRAGMA cipher_integrity_check")?.query_map([], |row| row.get(0))?.collect()
}

/// Opens an existing file and hands SQLite the key. Nothing is read or written yet, and closing it leaves the WAL alone.
fn connect(path: &Path, key: &DataKey, mode: OpenMode) -> Result<Connection, OpenError> {
    if rusqlite::version_number() < MIN_SQLITE_VERSION {
        return Err(OpenError::UnfitLibrary { detail: "SQLite is older than 3.51.3" });
    }
    fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing { path: path.to_owned() },
        _ => OpenError::Io { path: path.to_owned(), source: error },
    })?;
    // SQLite takes a relative name that starts with `file:` for a URI.
    let absolute = absolute(path).map_err(OpenError::io(path))?;
    let connection = keyed(&absolute, key, mode).map_err(OpenError::sqlite(path))?;
    let cipher: rusqlite::Result<String> =
        connection.pragma_query_value(None, "cipher_version", |row| row.get(0));
    match cipher {
        Ok(version) if !version.is_empty() => Ok(connection),
        _ => Err(OpenError::UnfitLibrary { detail: "SQLite is built without encryption" }),
    }
}

fn keyed(path: &Path, key: &DataKey, mode: OpenMode) -> rusqlite::Result<Connection> {
    let access = match mode {
        OpenMode::ReadWrite => OpenFlags::SQLITE_OPEN_READ_WRITE,
        OpenMode::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS.into()))?;
    connection.execute_batch(&key_pragma(key))?;
    // The cipher's settings are pinned, so that a later SQLCipher with other defaults reads our files.
    // Its log goes to the app's standard error unless told otherwise; the typed errors say it all.
    // Pages are authenticated with SHA-256, for which the processors of phones and servers have instructions: under
    // SHA-512, the default, it was 40 % of all work of a first sync.
    connection.execute_batch(
        "PRAGMA cipher_compatibility = 4; PRAGMA cipher_hmac_algorithm = HMAC_SHA256; PRAGMA cipher_log_level = NONE",
    )?;
    Ok(connection)
}

/// The raw key in the one form that SQLCipher does not take for a passphrase, which would cost 256,000 hash rounds.
fn key_pragma(key: &DataKey) -> Zeroizing<String> {
    const START: &str = "PRAGMA key = \"x'";
    const END: &str = "'\"";
    let length = START.len() + 2 * KEY_BYTES + END.len();
    let mut pragma = Zeroizing::new(String::with_capacity(length));
    pragma.push_str(START);
    HEXLOWER.encode_append(key.as_bytes(), &mut pragma);
    pragma.push_str(END);
    assert_eq!(pragma.len(), length, "a string that grows leaves a copy of the key behind");
    pragma
}

/// Sets the salt that goes into the page keys, in place of the file's own.
fn set_salt(connection: &Connection, salt: &[u8; SALT_BYTES]) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("PRAGMA cipher_salt = \"x'{}'\"", HEXLOWER.encode(salt)))
}

/// The first read: here a file that is not authentic under the key shows itself.
fn check_is_ours(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    let read = || {
        let application: i32 =
            connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok((application, version))
    };
    match read().map_err(OpenError::sqlite(path))? {
        (APPLICATION_ID, FORMAT_VERSION) => Ok(()),
        (APPLICATION_ID, found) if found > FORMAT_VERSION => {
            Err(OpenError::NewerSchema { path: path.to_owned(), found, supported: FORMAT_VERSION })
        }
        _ => Err(OpenError::damaged(path, "its application or format number is not Farshore's")),
    }
}

fn configure(connection: &Connection, mode: OpenMode) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.execute_batch(&format!(
        "PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = ON; PRAGMA cache_size = -{CACHE_KIB};"
    ))?;
    match mode {
        OpenMode::ReadOnly => connection.execute_batch("PRAGMA query_only = ON")?,
        // `fullfsync` is for Apple's systems, where a plain fsync stops at the drive's cache.
        OpenMode::ReadWrite => connection.execute_batch(&format!(
            "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA journal_size_limit = {WAL_SIZE_LIMIT_BYTES};"
        ))?,
    }
    // From here on the connection is a normal one, and its close tidies the WAL.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(())
}

/// Writes the first page and turns the file to WAL mode, which it keeps. Repeating it does no harm.
fn write_empty_database(connection: Connection, salt: &[u8; SALT_BYTES]) -> rusqlite::Result<()> {
    set_salt(&connection, salt)?;
    connection.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON;
         BEGIN IMMEDIATE;
         PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION};
         COMMIT;
         PRAGMA journal_mode = WAL;"
    ))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    connection.close().map_err(|(_, error)| error)
}

/// An empty file for its owner alone, unless there is one; SQLite gives the WAL the same permissions.
fn create_private(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(file) => file.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

//! The peer: SQLite or SQLCipher by hand, with the settings of our stores and nothing of what they do besides.

use std::path::Path;
use std::time::Instant;

use farshore_sync_core::ids::RowId;
use farshore_sync_core::value::Value;
use rusqlite::Connection;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use crate::flights::{COLLECTION, Flight};
use crate::outcome::Outcome;

/// Page cache, as in the SDK.
const CACHE_KIB: u32 = 16 * 1024;
/// As SQLCipher has it.
const PAGE_BYTES: i64 = 4096;
/// As in the SDK.
const WAL_SIZE_LIMIT_BYTES: u32 = 16 * 1024 * 1024;

/// Whether the file is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// SQLCipher with a raw key, as our stores have it.
    On,
    /// Plain SQLite.
    Off,
}

/// A database with one table.
#[derive(Debug)]
pub struct Raw {
    connection: Connection,
    insert: String,
}

impl Raw {
    /// Makes one whose table has the columns of these rows and a 16-byte key.
    pub fn create(path: &Path, encryption: Encryption, like: &Flight) -> Outcome<Self> {
        let connection = Connection::open(path)?;
        if encryption == Encryption::On {
            let key: String = fresh_key()?.iter().map(|byte| format!("{byte:02x}")).collect();
            connection.execute_batch(&format!(
                "PRAGMA key = \"x'{key}'\"; PRAGMA cipher_compatibility = 4; PRAGMA cipher_hmac_algorithm = HMAC_SHA256"
            ))?;
        }
        connection.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA fullfsync = ON;
             PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = ON; PRAGMA cache_size = -{CACHE_KIB};
             PRAGMA journal_size_limit = {WAL_SIZE_LIMIT_BYTES}"
        ))?;
        let columns = like.iter().map(|(name, value)| format!("\"{name}\" {}", sql_type(value)));
        let columns = columns.collect::<Vec<_>>().join(", ");
        connection.execute_batch(&format!(
            "CREATE TABLE {COLLECTION} (id BLOB PRIMARY KEY, {columns}) STRICT, WITHOUT ROWID"
        ))?;
        let places = vec!["?"; like.len() + 1].join(", ");
        Ok(Self { connection, insert: format!("INSERT INTO {COLLECTION} VALUES ({places})") })
    }

    /// Inserts rows, so many in each transaction, each transaction durable; gives rows a second.
    pub fn insert(
        &mut self,
        ids: &[RowId],
        flights: &[Flight],
        rows_per_transaction: usize,
    ) -> Outcome<f64> {
        let started = Instant::now();
        for (ids, flights) in
            ids.chunks(rows_per_transaction).zip(flights.chunks(rows_per_transaction))
        {
            let transaction = self.connection.transaction()?;
            insert(&transaction, &self.insert, ids, flights)?;
            transaction.commit()?;
        }
        Ok(flights.len() as f64 / started.elapsed().as_secs_f64())
    }

    /// Inserts rows in a transaction that stays open, and is not durable at its end either.
    pub fn insert_held(&self, ids: &[RowId], flights: &[Flight]) -> Outcome {
        if self.connection.is_autocommit() {
            self.connection.execute_batch("PRAGMA synchronous = OFF; BEGIN IMMEDIATE")?;
        }
        insert(&self.connection, &self.insert, ids, flights)
    }

    /// Ends the transaction that is open.
    pub fn end_held(&self) -> Outcome {
        Ok(self.connection.execute_batch("COMMIT")?)
    }
}

impl Raw {
    /// Makes an encrypted one with these tables, durably.
    pub fn create_tables(path: &Path, like: &Flight, tables: &str) -> Outcome {
        let mut raw = Self::create(path, Encryption::On, like)?;
        let transaction = raw.connection.transaction()?;
        transaction.execute_batch(tables)?;
        Ok(transaction.commit()?)
    }

    /// The bytes of its pages that hold something.
    pub fn used_bytes(&self) -> Outcome<i64> {
        used_bytes(&self.connection)
    }
}

/// The bytes of a database's pages that hold something.
pub fn used_bytes(connection: &Connection) -> Outcome<i64> {
    let number =
        |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    Ok((number("page_count")? - number("freelist_count")?) * PAGE_BYTES)
}

fn insert(transaction: &Connection, sql: &str, ids: &[RowId], flights: &[Flight]) -> Outcome {
    let mut statement = transaction.prepare_cached(sql)?;
    for (id, flight) in ids.iter().zip(flights) {
        statement.raw_bind_parameter(1, id.as_bytes().as_slice())?;
        for (at, (_, value)) in flight.iter().enumerate() {
            statement.raw_bind_parameter(at + 2, Bound(value))?;
        }
        statement.raw_execute()?;
    }
    Ok(())
}

fn fresh_key() -> Outcome<[u8; 48]> {
    // 32 bytes of key and 16 of salt: the form that costs no key derivation.
    let mut key = [0; 48];
    getrandom::fill(&mut key)?;
    Ok(key)
}

const fn sql_type(value: &Value) -> &'static str {
    match value {
        Value::Text(_) | Value::Json(_) => "TEXT",
        Value::Real(_) => "REAL",
        Value::Bytes(_) | Value::Uuid(_) => "BLOB",
        // A flight's missing values are all integers.
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Timestamp(_) => "INTEGER",
    }
}

struct Bound<'a>(&'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Bool(truth) => ValueRef::Integer(i64::from(*truth)),
            Value::Int(int) | Value::Timestamp(int) => ValueRef::Integer(*int),
            Value::Real(real) => ValueRef::Real(real.get()),
            Value::Text(text) | Value::Json(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
            Value::Uuid(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

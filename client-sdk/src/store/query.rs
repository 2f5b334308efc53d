//! Reading with SQL: one SELECT at a time, over the views of the collections and nothing else.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ErrorCode, ToSql};

use super::error::{QueryError, StoreError};
use super::layout::TABLE_PREFIX;
use super::readers::Reader;

/// Most rows that one query gives.
pub const MAX_QUERY_ROWS: usize = 1_000_000;
/// Most bytes of values that one query gives.
pub const MAX_QUERY_BYTES: usize = 256 << 20;

/// A value as SQL has it: a bool is an integer, a timestamp an integer of microseconds, an id 16 bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// NULL.
    Null,
    /// INTEGER.
    Int(i64),
    /// REAL.
    Real(f64),
    /// TEXT.
    Text(String),
    /// BLOB.
    Bytes(Vec<u8>),
}

/// What a query gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QueryRows {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows, each with one value for each column.
    pub rows: Vec<Vec<SqlValue>>,
}

/// What a read-only connection may read: everything for the store itself, the views for the app.
#[derive(Default)]
pub(super) struct ReadGuard {
    for_app: AtomicBool,
    /// The collections that were read since this was last taken.
    collections: Mutex<BTreeSet<String>>,
}

impl ReadGuard {
    /// A connection under a guard. It is set once: another one would undo every prepared statement.
    pub(super) fn install(connection: &mut Connection) -> rusqlite::Result<Arc<Self>> {
        let guard = Arc::new(Self::default());
        let installed = Arc::clone(&guard);
        connection.authorizer(Some(move |context: AuthContext<'_>| installed.check(&context)))?;
        Ok(guard)
    }

    fn check(&self, context: &AuthContext<'_>) -> Authorization {
        if !self.for_app.load(Ordering::Relaxed) {
            return Authorization::Allow;
        }
        match context.action {
            AuthAction::Select | AuthAction::Recursive | AuthAction::Function { .. } => {
                Authorization::Allow
            }
            // A query that only counts reads no column, and SQLite does not say through which view.
            AuthAction::Read { table_name, column_name } => {
                match table_name.strip_prefix(TABLE_PREFIX) {
                    Some(collection)
                        if context.accessor == Some(collection) || column_name.is_empty() =>
                    {
                        self.collections().insert(collection.to_owned());
                        Authorization::Allow
                    }
                    Some(_) => Authorization::Deny,
                    None if table_name.starts_with("fs_") => Authorization::Deny,
                    None => Authorization::Allow,
                }
            }
            _ => Authorization::Deny,
        }
    }

    fn collections(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.collections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares the app's SQL.
    fn prepare<'c>(
        &self,
        connection: &'c Connection,
        sql: &str,
        fail: &dyn Fn(rusqlite::Error) -> StoreError,
    ) -> Result<CachedStatement<'c>, QueryError> {
        self.for_app.store(true, Ordering::Relaxed);
        let prepared = connection.prepare_cached(sql);
        self.for_app.store(false, Ordering::Relaxed);
        let statement = prepared.map_err(|error| sql_error(error, fail))?;
        if statement.column_count() == 0 || !statement.readonly() {
            return Err(QueryError::NotReadOnly { message: "it is no SELECT".to_owned() });
        }
        Ok(statement)
    }
}

/// Runs a SELECT.
pub(super) fn run(
    reader: &Reader,
    sql: &str,
    params: &[SqlValue],
    fail: &dyn Fn(rusqlite::Error) -> StoreError,
) -> Result<QueryRows, QueryError> {
    let mut statement = reader.guard.prepare(&reader.connection, sql, fail)?;
    let expected = statement.parameter_count();
    if expected != params.len() {
        return Err(QueryError::Parameters { expected, found: params.len() });
    }
    for (index, value) in (1..).zip(params) {
        statement.raw_bind_parameter::<usize, _>(index, value).map_err(fail)?;
    }
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut found = QueryRows { rows: Vec::new(), columns };
    let (width, mut bytes) = (found.columns.len(), 0);
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(|error| sql_error(error, fail))? {
        if found.rows.len() == MAX_QUERY_ROWS {
            return Err(QueryError::TooManyRows);
        }
        let mut values = Vec::with_capacity(width);
        for at in 0..width {
            let value = row.get_ref(at).map_err(fail)?;
            bytes += size_of::<SqlValue>() + value_bytes(value);
            values.push(SqlValue::try_from(value).map_err(|message| QueryError::Sql { message })?);
        }
        if bytes > MAX_QUERY_BYTES {
            return Err(QueryError::TooManyBytes);
        }
        found.rows.push(values);
    }
    Ok(found)
}

/// The collections that a SELECT reads.
pub(super) fn tables_of(
    reader: &Reader,
    sql: &str,
    fail: &dyn Fn(rusqlite::Error) -> StoreError,
) -> Result<BTreeSet<String>, QueryError> {
    // A statement from the cache would not be looked at again.
    reader.connection.flush_prepared_statement_cache();
    reader.guard.collections().clear();
    reader.guard.prepare(&reader.connection, sql, fail)?;
    Ok(std::mem::take(&mut *reader.guard.collections()))
}

fn sql_error(error: rusqlite::Error, fail: &dyn Fn(rusqlite::Error) -> StoreError) -> QueryError {
    let message = match &error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    };
    match error.sqlite_error_code() {
        Some(ErrorCode::AuthorizationForStatementDenied | ErrorCode::ReadOnly) => {
            QueryError::NotReadOnly { message }
        }
        Some(ErrorCode::Unknown | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
            QueryError::Sql { message }
        }
        None if matches!(error, rusqlite::Error::MultipleStatement) => {
            QueryError::NotReadOnly { message }
        }
        None => QueryError::Sql { message },
        Some(_) => fail(error).into(),
    }
}

fn value_bytes(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 0,
    }
}

impl TryFrom<ValueRef<'_>> for SqlValue {
    type Error = String;

    fn try_from(value: ValueRef<'_>) -> Result<Self, String> {
        Ok(match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(int) => Self::Int(int),
            ValueRef::Real(float) => Self::Real(float),
            ValueRef::Text(text) => {
                let text = String::from_utf8(text.to_vec());
                Self::Text(text.map_err(|_| "the query made text that is not UTF-8".to_owned())?)
            }
            ValueRef::Blob(bytes) => Self::Bytes(bytes.to_vec()),
        })
    }
}

impl ToSql for SqlValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(int) => ValueRef::Integer(*int),
            Self::Real(float) => ValueRef::Real(*float),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

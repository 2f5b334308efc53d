//! Queries that are written once for every SQL back-end.
//!
//! Statements keep to what SQLite and Postgres share: `$1` parameters, `ON CONFLICT`, no dialect functions.
//! Integers are 64-bit, truth values are 0 and 1, identities are bytes. A table is named `main.devices`: for SQLite
//! `main` is the tenant's file, and Postgres puts the tenant's schema in its place, so that no statement depends on a
//! search path. A back-end brings the tables (its migrations name them) and [`Sql`]; it gets the stores of this
//! folder for it. The hot path is not here: each back-end writes [`crate::sync::SyncStore`] natively.

use async_trait::async_trait;
use farshore_sync_core::schema::Schema;

use crate::StoreError;

mod devices;
mod schemas;
mod signing_keys;

pub use schemas::SchemaCache;

/// A value that goes into a statement or comes out of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlValue {
    /// NULL.
    Null,
    /// A 64-bit integer.
    Int(i64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// A statement with the values of its parameters `$1`, `$2` and so on.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The text.
    pub text: &'static str,
    /// The values.
    pub values: Vec<SqlValue>,
}

/// One row of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlRow(pub Vec<SqlValue>);

/// One tenant's database, as far as resource queries need it.
#[async_trait]
pub trait Sql: Send + Sync {
    /// Reads.
    async fn query(
        &self,
        operation: &'static str,
        statement: Statement,
    ) -> Result<Vec<SqlRow>, StoreError>;

    /// Writes: all statements in one durable transaction. Returns how many rows each of them changed.
    async fn execute(
        &self,
        operation: &'static str,
        statements: Vec<Statement>,
    ) -> Result<Vec<u64>, StoreError>;

    /// A version of the schema was registered: a back-end that shows rows to people in its own way follows it. That
    /// must not fail; what an interruption left undone, the next opening does.
    async fn schema_registered(&self, _schema: &Schema) {}

    /// The tenant's parsed schema, kept.
    fn schema_cache(&self) -> &SchemaCache;
}

impl Statement {
    /// A statement.
    pub fn new(text: &'static str, values: impl Into<Vec<SqlValue>>) -> Self {
        Self { text, values: values.into() }
    }
}

impl SqlRow {
    /// Takes the column at a position, as the type that was stored there.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where something else is there.
    pub fn take<T: TryFrom<SqlValue>>(
        &mut self,
        operation: &'static str,
        column: usize,
    ) -> Result<T, StoreError> {
        let value = self.0.get_mut(column).map(|value| std::mem::replace(value, SqlValue::Null));
        value.and_then(|value| T::try_from(value).ok()).ok_or_else(|| StoreError::Damaged {
            operation,
            detail: format!("column {column} of the answer has another type"),
        })
    }
}

/// A value is of another type than the one asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value has another type")]
pub struct OtherType;

impl From<u64> for SqlValue {
    /// Keeps the bits: what goes in comes out, and order holds below 2^63.
    fn from(number: u64) -> Self {
        Self::Int(number.cast_signed())
    }
}

impl From<bool> for SqlValue {
    fn from(truth: bool) -> Self {
        Self::Int(i64::from(truth))
    }
}

impl From<&str> for SqlValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&[u8]> for SqlValue {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<&[u8; 16]> for SqlValue {
    fn from(bytes: &[u8; 16]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl<T: Into<Self>> From<Option<T>> for SqlValue {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl TryFrom<SqlValue> for u64 {
    type Error = OtherType;

    fn try_from(value: SqlValue) -> Result<Self, OtherType> {
        match value {
            SqlValue::Int(number) => Ok(number.cast_unsigned()),
            _ => Err(OtherType),
        }
    }
}

impl TryFrom<SqlValue> for bool {
    type Error = OtherType;

    fn try_from(value: SqlValue) -> Result<Self, OtherType> {
        match value {
            SqlValue::Int(number) => Ok(number != 0),
            _ => Err(OtherType),
        }
    }
}

impl TryFrom<SqlValue> for String {
    type Error = OtherType;

    fn try_from(value: SqlValue) -> Result<Self, OtherType> {
        match value {
            SqlValue::Text(text) => Ok(text),
            _ => Err(OtherType),
        }
    }
}

impl TryFrom<SqlValue> for Vec<u8> {
    type Error = OtherType;

    fn try_from(value: SqlValue) -> Result<Self, OtherType> {
        match value {
            SqlValue::Bytes(bytes) => Ok(bytes),
            _ => Err(OtherType),
        }
    }
}

impl TryFrom<SqlValue> for [u8; 16] {
    type Error = OtherType;

    fn try_from(value: SqlValue) -> Result<Self, OtherType> {
        Vec::try_from(value)?.try_into().map_err(|_| OtherType)
    }
}

impl TryFrom<SqlValue> for Option<u64> {
    type Error = OtherType;

    fn try_from(value: SqlValue) -> Result<Self, OtherType> {
        match value {
            SqlValue::Null => Ok(None),
            value => u64::try_from(value).map(Some),
        }
    }
}

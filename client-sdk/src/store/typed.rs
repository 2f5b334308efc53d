//! Values in typed SQL columns.
//!
//! SQL shows a bool as 0 or 1, a timestamp as microseconds, a uuid as 16 bytes, a counter as its sum, a set as
//! a JSON array and a document as JSON.

use std::fmt::Write as _;

use farshore_sync_core::schema::ColumnType;
use farshore_sync_core::value::Value;
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::error::Failure;

/// A value as a parameter of SQL, borrowed.
pub(super) struct SqlParameter<'a>(pub(super) &'a Value);

impl ToSql for SqlParameter<'_> {
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

/// The SQL type of a column. Its affinity never changes a value of the column's type.
pub(super) const fn sql_type(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Bool | ColumnType::Int | ColumnType::Timestamp | ColumnType::Counter => {
            "INTEGER"
        }
        ColumnType::Real => "REAL",
        ColumnType::Text | ColumnType::Json | ColumnType::Set | ColumnType::Document => "TEXT",
        ColumnType::Bytes | ColumnType::Uuid => "BLOB",
    }
}

/// Whether a scalar column of this type may hold the value.
pub(super) const fn fits(column_type: ColumnType, value: &Value) -> bool {
    match value {
        Value::Null => column_type.is_scalar(),
        Value::Bool(_) => matches!(column_type, ColumnType::Bool),
        Value::Int(_) => matches!(column_type, ColumnType::Int),
        Value::Real(_) => matches!(column_type, ColumnType::Real),
        Value::Text(_) => matches!(column_type, ColumnType::Text),
        Value::Bytes(_) => matches!(column_type, ColumnType::Bytes),
        Value::Timestamp(_) => matches!(column_type, ColumnType::Timestamp),
        Value::Uuid(_) => matches!(column_type, ColumnType::Uuid),
        Value::Json(_) => matches!(column_type, ColumnType::Json),
    }
}

/// Whether [`from_sql`] gives back exactly this value. SQLite turns NaN into NULL and -0.0 into 0.0.
pub(super) fn is_faithful(column_type: ColumnType, value: &Value) -> bool {
    let changes = match value {
        Value::Real(real) => {
            let float = real.get();
            float.is_nan() || (float == 0.0 && float.is_sign_negative())
        }
        _ => false,
    };
    fits(column_type, value) && !changes
}

/// The value of a scalar column.
pub(super) fn from_sql(column_type: ColumnType, sql: ValueRef<'_>) -> Result<Value, Failure> {
    Ok(match (column_type, sql) {
        (_, ValueRef::Null) => Value::Null,
        (ColumnType::Bool, ValueRef::Integer(int)) => Value::Bool(int != 0),
        (ColumnType::Int, ValueRef::Integer(int)) => Value::Int(int),
        (ColumnType::Timestamp, ValueRef::Integer(int)) => Value::Timestamp(int),
        (ColumnType::Real, ValueRef::Real(float)) => Value::from(float),
        (ColumnType::Text, ValueRef::Text(text)) => Value::Text(utf8(text)?),
        (ColumnType::Json, ValueRef::Text(text)) => Value::Json(utf8(text)?),
        (ColumnType::Bytes, ValueRef::Blob(bytes)) => Value::Bytes(bytes.to_vec()),
        (ColumnType::Uuid, ValueRef::Blob(bytes)) => {
            Value::Uuid(bytes.try_into().map_err(|_| Failure::damaged("a uuid has 16 bytes"))?)
        }
        (column_type, sql) => {
            let (found, wanted) = (sql.data_type(), column_type.as_str());
            return Err(Failure::damaged(format!("{found} in a column of type {wanted}")));
        }
    })
}

fn utf8(bytes: &[u8]) -> Result<String, Failure> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Failure::damaged("text that is not UTF-8"))
}

/// A set as a JSON array, in the order of its elements.
pub(super) fn set_json<'v>(elements: impl Iterator<Item = &'v Value>) -> String {
    serde_json::Value::Array(elements.map(to_json).collect()).to_string()
}

/// A value as JSON: bytes in hexadecimal, a uuid as text, a timestamp as microseconds.
pub(super) fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(truth) => (*truth).into(),
        Value::Int(int) | Value::Timestamp(int) => (*int).into(),
        Value::Real(real) => real.get().into(),
        Value::Text(text) => text.as_str().into(),
        Value::Bytes(bytes) => hex(bytes).into(),
        Value::Uuid(bytes) => uuid::Uuid::from_bytes(*bytes).to_string().into(),
        Value::Json(text) => {
            serde_json::from_str(text).unwrap_or_else(|_| serde_json::Value::String(text.clone()))
        }
    }
}

/// A constant as a literal of SQL; `None` for text with a NUL character, which cannot stand between quotes.
pub(super) fn literal(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(truth) => u8::from(*truth).to_string(),
        Value::Int(int) | Value::Timestamp(int) => int.to_string(),
        Value::Real(real) => format!("{:e}", real.get()),
        Value::Text(text) | Value::Json(text) if text.contains('\0') => return None,
        Value::Text(text) | Value::Json(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Bytes(bytes) => format!("x'{}'", hex(bytes)),
        Value::Uuid(bytes) => format!("x'{}'", hex(bytes)),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

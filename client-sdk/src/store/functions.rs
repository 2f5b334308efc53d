//! What the store adds to SQL: `uuid('..')` and `uuid_text(id)`, on every connection.

use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use uuid::Uuid;

/// Makes the functions known to a connection.
pub(super) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("uuid", 1, flags, from_text)?;
    connection.create_scalar_function("uuid_text", 1, flags, to_text)
}

fn from_text(context: &Context<'_>) -> rusqlite::Result<Option<[u8; 16]>> {
    match context.get_raw(0) {
        ValueRef::Null => Ok(None),
        ValueRef::Text(text) => match Uuid::try_parse_ascii(text) {
            Ok(id) => Ok(Some(id.into_bytes())),
            Err(_) => Err(wrong("uuid() takes the text of a uuid")),
        },
        _ => Err(wrong("uuid() takes the text of a uuid")),
    }
}

fn to_text(context: &Context<'_>) -> rusqlite::Result<Option<String>> {
    match context.get_raw(0) {
        ValueRef::Null => Ok(None),
        ValueRef::Blob(bytes) => match Uuid::from_slice(bytes) {
            Ok(id) => Ok(Some(id.to_string())),
            Err(_) => Err(wrong("uuid_text() takes 16 bytes")),
        },
        _ => Err(wrong("uuid_text() takes 16 bytes")),
    }
}

fn wrong(message: &str) -> rusqlite::Error {
    rusqlite::Error::UserFunctionError(message.into())
}

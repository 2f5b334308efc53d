//! One row as the app reads it with types.

use std::collections::BTreeMap;

use farshore_sync_core::ids::{DeviceId, RowId};
use farshore_sync_core::schema::ColumnType;
use farshore_sync_core::value::Value;
use rusqlite::{Connection, params};

use super::documents::read_document;
use super::error::Failure;
use super::layout::{CollectionLayout, Layout, quoted};
use super::rows::{blob, read_state};

/// One live row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its identity.
    pub id: RowId,
    /// Its columns by name; a column that was never written has its default.
    pub columns: BTreeMap<String, ColumnValue>,
}

/// What a column holds.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnValue {
    /// A scalar.
    Scalar(Value),
    /// The sum of a counter.
    Counter(i64),
    /// The elements of a set, sorted.
    Set(Vec<Value>),
    /// A document as JSON; null where its changes do not make one.
    Document(serde_json::Value),
}

/// Nobody edits a document that is opened for its JSON.
const READING_ACTOR: [u8; 16] = [1; 16];

/// Reads a live row from the table of its collection, with the columns that the app may name.
pub(super) fn read_row(
    connection: &Connection,
    layout: &Layout,
    collection: &CollectionLayout,
    id: RowId,
) -> Result<Option<Row>, Failure> {
    let mut statement = connection.prepare_cached(&collection.sql.load)?;
    let mut rows = statement.query([id.as_bytes()])?;
    let Some(found) = rows.next()? else { return Ok(None) };
    // Who wrote a value does not matter here; what matters is that different devices stay different.
    let device_of = |number: u64| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Some(DeviceId::from_bytes(bytes))
    };
    let state = read_state(found, collection, blob(found, 3)?, &device_of)?;
    drop(rows);
    let mut columns = BTreeMap::new();
    let app = layout.app.collection(collection.id).into_iter().flat_map(|known| &known.columns);
    for column in app {
        let Some(at) = collection.column(column.column_id()) else { continue };
        let held = &collection.columns[at];
        let value = match column.column_type {
            ColumnType::Counter => ColumnValue::Counter(state.counter(held.id)),
            ColumnType::Set => ColumnValue::Set(state.set(held.id).cloned().collect()),
            ColumnType::Document => {
                ColumnValue::Document(document_json(connection, layout, collection, id, at)?)
            }
            _ => ColumnValue::Scalar(state.value(held.id).unwrap_or(&held.default).clone()),
        };
        columns.insert(column.name.clone(), value);
    }
    Ok(Some(Row { id, columns }))
}

/// The JSON that is beside the row, or where that is too long, the document's own.
pub(super) fn document_json(
    connection: &Connection,
    layout: &Layout,
    collection: &CollectionLayout,
    id: RowId,
    at: usize,
) -> Result<serde_json::Value, Failure> {
    let column = &collection.columns[at];
    let sql = format!(
        "SELECT {} FROM \"{}\" WHERE id = ?1",
        quoted(&column.column.name),
        collection.table()
    );
    let json: Option<String> =
        connection.prepare_cached(&sql)?.query_row(params![id.as_bytes()], |row| row.get(0))?;
    if let Some(json) = json {
        return serde_json::from_str(&json).map_err(|error| Failure::damaged(error.to_string()));
    }
    let document =
        read_document(connection, layout, READING_ACTOR, ((collection.id, id), column.id))?;
    Ok(document.ok().and_then(|read| read.document.to_json().ok()).unwrap_or_default())
}

//! JSON that becomes values: by the type of its column, or by itself where there is no column.

use data_encoding::BASE64;
use farshore_client::ids::RowId;
use farshore_client::schema::{Collection, ColumnType, Schema};
use farshore_client::store::SqlValue;
use farshore_client::value::Value;
use serde_json::{Map, Value as Json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::failure::{BAD_REQUEST, Failure, TYPE_MISMATCH};

/// The collection of this name.
pub(crate) fn collection<'a>(schema: &'a Schema, name: &str) -> Result<&'a Collection, Failure> {
    let unknown =
        || Failure::new("unknown_collection", format!("the schema has no collection {name:?}"));
    schema.collection_named(name).ok_or_else(unknown)
}

/// What an object says about a row.
#[derive(Debug, PartialEq)]
pub(crate) struct RowInput {
    /// Its `id`, where it has one.
    pub(crate) id: Option<RowId>,
    columns: Vec<(String, Value)>,
}

impl RowInput {
    /// The columns as a transaction takes them.
    pub(crate) fn columns(&self) -> Vec<(&str, Value)> {
        self.columns.iter().map(|(name, value)| (name.as_str(), value.clone())).collect()
    }
}

/// Reads an object by the types of its collection.
pub(crate) fn row_input(
    collection: &Collection,
    object: &Map<String, Json>,
) -> Result<RowInput, Failure> {
    let mut id = None;
    let mut columns = Vec::with_capacity(object.len());
    for (name, json) in object {
        if name == "id" {
            id = Some(row_id(json)?);
            continue;
        }
        let column = collection.column_named(name).ok_or_else(|| {
            Failure::new("unknown_column", format!("{} has no column {name:?}", collection.name))
        })?;
        let place = format!("{}.{name}", collection.name);
        columns.push((name.clone(), scalar(json, column.column_type, &place)?));
    }
    Ok(RowInput { id, columns })
}

/// The id of a row.
pub(crate) fn row_id(json: &Json) -> Result<RowId, Failure> {
    let text = json
        .as_str()
        .ok_or_else(|| Failure::new(BAD_REQUEST, format!("a row id is text, not {json}")))?;
    text.parse().map_err(|error| Failure::new(BAD_REQUEST, format!("{error}")))
}

/// A scalar for a column.
fn scalar(json: &Json, column_type: ColumnType, place: &str) -> Result<Value, Failure> {
    let value = match column_type {
        _ if json.is_null() && column_type.is_scalar() => Some(Value::Null),
        ColumnType::Bool => json.as_bool().map(Value::Bool),
        ColumnType::Int => json.as_i64().map(Value::Int),
        ColumnType::Real => json.as_f64().or_else(|| special_real(json)).map(Value::from),
        ColumnType::Text => json.as_str().map(Value::from),
        ColumnType::Bytes => bytes(json).map(Value::Bytes),
        ColumnType::Timestamp => timestamp(json).map(Value::Timestamp),
        ColumnType::Uuid => uuid(json).map(Value::Uuid),
        ColumnType::Json => Some(Value::Json(json.to_string())),
        ColumnType::Counter => return Err(not_a_scalar(place, "a counter", "`inc`")),
        ColumnType::Set => return Err(not_a_scalar(place, "a set", "`add` and `remove`")),
        ColumnType::Document => return Err(not_a_scalar(place, "a document", "`text`")),
    };
    value.ok_or_else(|| {
        Failure::new(TYPE_MISMATCH, format!("{place}: {} is expected", expected(column_type)))
    })
}

fn not_a_scalar(place: &str, what: &str, operation: &str) -> Failure {
    Failure::new(TYPE_MISMATCH, format!("{place} is {what}: it changes by {operation}"))
}

const fn expected(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Bool => "true or false",
        ColumnType::Int => "an integer of 64 bits",
        ColumnType::Real => "a number",
        ColumnType::Bytes => "{\"$bytes\": base64}",
        ColumnType::Timestamp => "RFC 3339 text or an integer of microseconds since 1970",
        ColumnType::Uuid => "the text of a uuid",
        ColumnType::Text => "text",
        ColumnType::Json | ColumnType::Counter | ColumnType::Set | ColumnType::Document => {
            "another value"
        }
    }
}

/// An element of a set, which has no type but its own.
pub(crate) fn element(json: &Json) -> Result<Value, Failure> {
    let value = match json {
        Json::Bool(truth) => Some(Value::Bool(*truth)),
        Json::Number(number) => match number.as_i64() {
            Some(int) => Some(Value::Int(int)),
            None => number.as_f64().filter(|_| number.is_f64()).map(Value::from),
        },
        Json::String(text) => Some(Value::Text(text.clone())),
        Json::Object(_) => bytes(json)
            .map(Value::Bytes)
            .or_else(|| special_real(json).map(Value::from))
            .or_else(|| tagged(json, "$uuid").and_then(uuid).map(Value::Uuid))
            .or_else(|| tagged(json, "$timestamp").and_then(timestamp).map(Value::Timestamp)),
        Json::Null | Json::Array(_) => None,
    };
    value.ok_or_else(|| Failure::new(TYPE_MISMATCH, format!("{json} is no element of a set")))
}

/// The parameters of a query.
pub(crate) fn parameters(args: &[Json]) -> Result<Vec<SqlValue>, Failure> {
    args.iter().map(parameter).collect()
}

fn parameter(json: &Json) -> Result<SqlValue, Failure> {
    let value = match json {
        Json::Null => SqlValue::Null,
        other => match element(other)? {
            Value::Null => SqlValue::Null,
            Value::Bool(truth) => SqlValue::Int(i64::from(truth)),
            Value::Int(int) | Value::Timestamp(int) => SqlValue::Int(int),
            Value::Real(real) => SqlValue::Real(real.get()),
            Value::Text(text) | Value::Json(text) => SqlValue::Text(text),
            Value::Bytes(bytes) => SqlValue::Bytes(bytes),
            Value::Uuid(bytes) => SqlValue::Bytes(bytes.to_vec()),
        },
    };
    Ok(value)
}

/// What an object with one entry, of this name, holds.
fn tagged<'a>(json: &'a Json, tag: &str) -> Option<&'a Json> {
    json.as_object().filter(|object| object.len() == 1)?.get(tag)
}

fn bytes(json: &Json) -> Option<Vec<u8>> {
    BASE64.decode(tagged(json, "$bytes")?.as_str()?.as_bytes()).ok()
}

fn special_real(json: &Json) -> Option<f64> {
    match tagged(json, "$real")?.as_str()? {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

fn uuid(json: &Json) -> Option<[u8; 16]> {
    // Any uuid will do, and ids are the one public type that reads their text.
    json.as_str()?.parse::<RowId>().ok().map(|id| *id.as_bytes())
}

fn timestamp(json: &Json) -> Option<i64> {
    let Some(text) = json.as_str() else { return json.as_i64() };
    let nanoseconds = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
    i64::try_from(nanoseconds.div_euclid(1_000)).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    #[test]
    fn values_are_read_by_the_type_of_their_column() {
        let uuid_bytes = *ID.parse::<RowId>().unwrap().as_bytes();
        for (column_type, json, value) in [
            (ColumnType::Bool, json!(true), Value::Bool(true)),
            (ColumnType::Int, json!(-7), Value::Int(-7)),
            (ColumnType::Real, json!(7), Value::from(7.0)),
            (ColumnType::Real, json!({"$real": "NaN"}), Value::from(f64::NAN)),
            (ColumnType::Text, json!("7"), Value::from("7")),
            (ColumnType::Bytes, json!({"$bytes": "AP8="}), Value::Bytes(vec![0, 255])),
            (
                ColumnType::Timestamp,
                json!("2013-01-01T05:00:00Z"),
                Value::Timestamp(1_357_016_400_000_000),
            ),
            (
                ColumnType::Timestamp,
                json!("1969-12-31T23:59:59.9999995+00:00"),
                Value::Timestamp(-1),
            ),
            (ColumnType::Timestamp, json!(-1), Value::Timestamp(-1)),
            (ColumnType::Uuid, json!(ID), Value::Uuid(uuid_bytes)),
            (
                ColumnType::Json,
                json!({"b": 1, "a": [null]}),
                Value::Json("{\"b\":1,\"a\":[null]}".into()),
            ),
            (ColumnType::Json, json!(null), Value::Null),
            (ColumnType::Int, json!(null), Value::Null),
        ] {
            assert_eq!(scalar(&json, column_type, "a.b").unwrap(), value, "{json}");
        }
    }

    #[test]
    fn an_object_is_a_row_with_or_without_an_id() {
        let schema = r#"{"name":"s","version":1,"collections":[{"name":"stock","scope":"tenant","columns":[
            {"name":"name","type":"text"}]}]}"#;
        let schema = Schema::parse(schema).unwrap();
        let read = |json: Json| {
            row_input(collection(&schema, "stock").unwrap(), json.as_object().unwrap())
        };
        let found = read(json!({"id": ID, "name": "bolts"})).unwrap();
        assert_eq!(found.id, Some(ID.parse().unwrap()));
        assert_eq!(found.columns(), [("name", Value::from("bolts"))]);
        assert_eq!(read(json!({})).unwrap(), RowInput { id: None, columns: Vec::new() });
        assert_eq!(read(json!({"color": 1})).unwrap_err().code, "unknown_column");
        assert_eq!(read(json!({"id": 7})).unwrap_err().code, BAD_REQUEST);
        assert_eq!(collection(&schema, "nothing").unwrap_err().code, "unknown_collection");
    }

    #[test]
    fn a_value_of_another_type_names_its_column() {
        for (column_type, json) in [
            (ColumnType::Bool, json!(1)),
            (ColumnType::Int, json!(1.5)),
            (ColumnType::Int, json!(9_223_372_036_854_775_808_u64)),
            (ColumnType::Real, json!("1")),
            (ColumnType::Text, json!(1)),
            (ColumnType::Bytes, json!("AP8=")),
            (ColumnType::Bytes, json!({"$bytes": "?"})),
            (ColumnType::Timestamp, json!("yesterday")),
            (ColumnType::Uuid, json!("x")),
            (ColumnType::Counter, json!(1)),
            (ColumnType::Counter, json!(null)),
            (ColumnType::Set, json!(["x"])),
            (ColumnType::Document, json!("x")),
        ] {
            let failure = scalar(&json, column_type, "stock.count").unwrap_err();
            assert_eq!(failure.code, TYPE_MISMATCH, "{json}");
            assert!(failure.message.starts_with("stock.count"), "{failure}");
        }
    }

    #[test]
    fn elements_of_sets_have_the_type_that_they_are_written_with() {
        for (json, value) in [
            (json!("x"), Value::from("x")),
            (json!(1), Value::Int(1)),
            (json!(1.5), Value::from(1.5)),
            (json!({"$uuid": ID}), Value::Uuid(*ID.parse::<RowId>().unwrap().as_bytes())),
            (json!({"$timestamp": 5}), Value::Timestamp(5)),
            (json!({"$bytes": ""}), Value::Bytes(Vec::new())),
        ] {
            assert_eq!(element(&json).unwrap(), value);
        }
        for json in [json!(null), json!([1]), json!({"a": 1}), json!(u64::MAX)] {
            assert!(element(&json).is_err(), "{json}");
        }
        assert_eq!(
            parameters(&[json!(null), json!(true)]).unwrap(),
            [SqlValue::Null, SqlValue::Int(1)]
        );
    }
}

//! Rows and results as JSON.

use std::collections::BTreeSet;

use data_encoding::BASE64;
use farshore_client::ids::RowId;
use farshore_client::schema::{ColumnType, Schema};
use farshore_client::store::{ColumnValue, QueryRows, Row, SqlValue};
use farshore_client::value::Value;
use serde_json::{Map, Number, Value as Json, json};

/// The names under which a result has uuids: `id`, and every uuid column of the schema.
#[derive(Debug)]
pub(crate) struct UuidColumns(BTreeSet<String>);

impl UuidColumns {
    pub(crate) fn of(schema: &Schema) -> Self {
        let columns = schema.collections.iter().flat_map(|collection| &collection.columns);
        let uuids = columns.filter(|column| column.column_type == ColumnType::Uuid);
        Self(uuids.map(|column| column.name.clone()).chain(["id".to_owned()]).collect())
    }
}

/// A row as an object.
pub(crate) fn row(row: &Row) -> Json {
    let columns = row.columns.iter().map(|(name, value)| (name.clone(), column(value)));
    let id = ("id".to_owned(), Json::String(row.id.to_string()));
    Json::Object(std::iter::once(id).chain(columns).collect())
}

fn column(value: &ColumnValue) -> Json {
    match value {
        ColumnValue::Scalar(value) => scalar(value),
        ColumnValue::Counter(sum) => json!(sum),
        ColumnValue::Set(elements) => elements.iter().map(scalar).collect(),
        ColumnValue::Document(json) => json.clone(),
    }
}

fn scalar(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(truth) => json!(truth),
        Value::Int(int) | Value::Timestamp(int) => json!(int),
        Value::Real(float) => real(float.get()),
        Value::Text(text) => json!(text),
        Value::Bytes(bytes) => tagged_bytes(bytes),
        Value::Uuid(bytes) => uuid(*bytes),
        // The server takes any text for JSON; what is none is shown as the text that it is.
        Value::Json(text) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
    }
}

/// The rows of a result as objects. Of two columns with one name the later one is shown.
pub(crate) fn rows(result: &QueryRows, uuids: &UuidColumns) -> Json {
    let object = |values: &Vec<SqlValue>| {
        let columns = result.columns.iter().zip(values);
        let rendered =
            columns.map(|(name, value)| (name.clone(), sql(value, uuids.0.contains(name))));
        Json::Object(rendered.collect::<Map<_, _>>())
    };
    result.rows.iter().map(object).collect()
}

fn sql(value: &SqlValue, is_uuid: bool) -> Json {
    match value {
        SqlValue::Null => Json::Null,
        SqlValue::Int(int) => json!(int),
        SqlValue::Real(float) => real(*float),
        SqlValue::Text(text) => json!(text),
        SqlValue::Bytes(bytes) => match <[u8; 16]>::try_from(&bytes[..]) {
            Ok(bytes) if is_uuid => uuid(bytes),
            _ => tagged_bytes(bytes),
        },
    }
}

fn uuid(bytes: [u8; 16]) -> Json {
    json!(RowId::from_bytes(bytes).to_string())
}

fn tagged_bytes(bytes: &[u8]) -> Json {
    json!({ "$bytes": BASE64.encode(bytes) })
}

fn real(float: f64) -> Json {
    match Number::from_f64(float) {
        Some(number) => Json::Number(number),
        None if float.is_nan() => json!({"$real": "NaN"}),
        None if float > 0.0 => json!({"$real": "Infinity"}),
        None => json!({"$real": "-Infinity"}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"name":"s","version":1,"collections":[{"name":"visits","scope":"tenant","columns":[
        {"name":"site","type":"uuid"},{"name":"photo","type":"bytes"}]}]}"#;

    #[test]
    fn a_row_is_an_object_with_its_id_as_text() {
        let columns = [
            ("at", ColumnValue::Scalar(Value::Timestamp(7))),
            ("count", ColumnValue::Counter(3)),
            ("meta", ColumnValue::Scalar(Value::Json("{\"a\":1}".into()))),
            ("photo", ColumnValue::Scalar(Value::Bytes(vec![0, 255]))),
            ("speed", ColumnValue::Scalar(Value::from(f64::NAN))),
            ("tags", ColumnValue::Set(vec![Value::Int(1), Value::from("x")])),
            ("text", ColumnValue::Document(json!({"text": "hello"}))),
        ];
        let columns = columns.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(
            row(&Row { id: RowId::from_bytes([7; 16]), columns }),
            json!({"id": "07070707-0707-0707-0707-070707070707", "at": 7, "count": 3, "meta": {"a": 1},
                "photo": {"$bytes": "AP8="}, "speed": {"$real": "NaN"}, "tags": [1, "x"], "text": {"text": "hello"}})
        );
    }

    #[test]
    fn ids_in_results_are_text_and_other_bytes_are_not() {
        let uuids = UuidColumns::of(&Schema::parse(SCHEMA).unwrap());
        let sixteen = || SqlValue::Bytes(vec![7; 16]);
        let result = QueryRows {
            columns: ["id", "site", "photo", "n"].map(str::to_owned).to_vec(),
            rows: vec![
                vec![sixteen(), sixteen(), sixteen(), SqlValue::Int(1)],
                vec![SqlValue::Null; 4],
            ],
        };
        let id = "07070707-0707-0707-0707-070707070707";
        assert_eq!(
            rows(&result, &uuids),
            json!([
                {"id": id, "site": id, "photo": {"$bytes": "BwcHBwcHBwcHBwcHBwcHBw=="}, "n": 1},
                {"id": null, "site": null, "photo": null, "n": null},
            ])
        );
    }
}

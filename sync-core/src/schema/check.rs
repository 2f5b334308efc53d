//! What makes a schema well-formed, and what one version may change about another.

use std::collections::BTreeSet;

use super::{
    Collection, Column, ColumnType, MAX_COLLECTIONS, MAX_COLUMNS, MAX_NAME_BYTES, MAX_SCHEMA_BYTES,
    Schema,
};
use crate::value::Value;

/// What is wrong with a schema.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The file is larger than [`MAX_SCHEMA_BYTES`].
    #[error("the schema has {bytes} bytes; the limit is {MAX_SCHEMA_BYTES}")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// The file is not the JSON of a schema.
    #[error("not a schema: {source}")]
    Json {
        /// Where and why.
        source: serde_json::Error,
    },
    /// A rule is broken at a place.
    #[error("{place}: {problem}")]
    Invalid {
        /// `collection.column` or `collection`.
        place: String,
        /// Which rule.
        problem: String,
    },
    /// The schema changes what an earlier version promised.
    #[error("{place}: {problem}; a new version only adds")]
    NotASuccessor {
        /// `collection.column` or `collection`.
        place: String,
        /// What changed.
        problem: String,
    },
}

fn invalid(place: impl Into<String>, problem: impl Into<String>) -> SchemaError {
    SchemaError::Invalid { place: place.into(), problem: problem.into() }
}

pub(super) fn check(schema: &Schema) -> Result<(), SchemaError> {
    if schema.version == 0 {
        return Err(invalid("version", "versions start at 1"));
    }
    if schema.collections.len() > MAX_COLLECTIONS {
        return Err(invalid("collections", format!("more than {MAX_COLLECTIONS}")));
    }
    unique("collections", schema.collections.iter().map(|c| (c.name.as_str(), c.id)))?;
    schema.collections.iter().try_for_each(check_collection)
}

fn check_collection(collection: &Collection) -> Result<(), SchemaError> {
    check_name(&collection.name, &collection.name)?;
    if collection.columns.len() > MAX_COLUMNS {
        return Err(invalid(&collection.name, format!("more than {MAX_COLUMNS} columns")));
    }
    unique(&collection.name, collection.columns.iter().map(|c| (c.name.as_str(), c.id)))?;
    for column in &collection.columns {
        check_column(collection, column)?;
    }
    for name in collection.scope.columns() {
        let column = collection.column_named(name).ok_or_else(|| {
            invalid(&collection.name, format!("the scope names {name:?}, which is no column"))
        })?;
        use ColumnType::{Bool, Int, Text, Uuid};
        if !matches!(column.column_type, Bool | Int | Text | Uuid) {
            return Err(invalid(
                &collection.name,
                format!("the scope column {name:?} must be bool, int, text or uuid"),
            ));
        }
    }
    Ok(())
}

fn check_column(collection: &Collection, column: &Column) -> Result<(), SchemaError> {
    let place = format!("{}.{}", collection.name, column.name);
    check_name(&place, &column.name)?;
    if column.name.eq_ignore_ascii_case("id") {
        return Err(invalid(place, "every collection has the uuid \"id\" by itself"));
    }
    if column.group.is_some() && !column.column_type.is_scalar() {
        return Err(invalid(place, "only scalar columns form groups"));
    }
    if !column.root.is_empty() && column.column_type != ColumnType::Document {
        return Err(invalid(place, "only a document has a root"));
    }
    if let Some(default) = &column.default
        && json_to_value(default, column.column_type).is_none()
    {
        return Err(invalid(place, format!("the default is no {}", column.column_type.as_str())));
    }
    Ok(())
}

fn check_name(place: &str, name: &str) -> Result<(), SchemaError> {
    let well_formed = !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !name.starts_with("fs_")
        && !name.starts_with("sqlite_");
    if well_formed {
        Ok(())
    } else {
        let rule = "a name has 1 to 63 of a-z, 0-9 and _, begins with a letter, and not with fs_ or sqlite_";
        Err(invalid(place, rule))
    }
}

fn unique<'a>(
    place: &str,
    items: impl Iterator<Item = (&'a str, Option<u16>)>,
) -> Result<(), SchemaError> {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (name, number) in items {
        let number = number.unwrap_or_default();
        if number == 0 {
            return Err(invalid(place, format!("{name}: numbers are 1 to 65535")));
        }
        if !names.insert(name) || !numbers.insert(number) {
            return Err(invalid(
                place,
                format!("{name}: the name or the number {number} is there twice"),
            ));
        }
    }
    Ok(())
}

pub(super) fn check_successor(schema: &Schema, earlier: &Schema) -> Result<(), SchemaError> {
    let broken = |place: String, problem: &str| SchemaError::NotASuccessor {
        place,
        problem: problem.into(),
    };
    if schema.version <= earlier.version {
        let problem =
            format!("version {} does not follow version {}", schema.version, earlier.version);
        return Err(SchemaError::NotASuccessor { place: "version".into(), problem });
    }
    for old in &earlier.collections {
        let new = schema
            .collection(old.collection_id())
            .ok_or_else(|| broken(old.name.clone(), "the collection is missing"))?;
        if new.name != old.name || new.scope != old.scope {
            return Err(broken(old.name.clone(), "name and scope stay as they are"));
        }
        for column in &old.columns {
            let place = format!("{}.{}", old.name, column.name);
            let same = new
                .column(column.column_id())
                .ok_or_else(|| broken(place.clone(), "the column is missing"))?;
            if same.name != column.name
                || same.column_type != column.column_type
                || same.root != column.root
            {
                return Err(broken(place, "name, type and root stay as they are"));
            }
            if same.group != column.group {
                return Err(broken(place, "the group stays as it is"));
            }
        }
    }
    Ok(())
}

/// The value that a JSON default stands for, where it fits the type.
pub(super) fn json_to_value(json: &serde_json::Value, column_type: ColumnType) -> Option<Value> {
    use serde_json::Value as Json;
    Some(match (column_type, json) {
        (ColumnType::Json, json) => Value::Json(json.to_string()),
        (ct, Json::Null) if ct.is_scalar() => Value::Null,
        (ColumnType::Bool, Json::Bool(truth)) => Value::Bool(*truth),
        (ColumnType::Int, json) => Value::Int(json.as_i64()?),
        (ColumnType::Timestamp, json) => Value::Timestamp(json.as_i64()?),
        (ColumnType::Real, json) => Value::from(json.as_f64()?),
        (ColumnType::Text, Json::String(text)) => Value::Text(text.clone()),
        (ColumnType::Uuid, Json::String(text)) => {
            Value::Uuid(*uuid::Uuid::parse_str(text).ok()?.as_bytes())
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"{"name":"s","version":1,"collections":[
        {"name":"visits","scope":"site/{site_id}","columns":[
            {"name":"site_id","type":"text"},
            {"name":"starts_at","type":"timestamp","group":"period"},
            {"name":"ends_at","type":"timestamp","group":"period"}]}]}"#;

    #[test]
    fn numbers_are_positions_where_left_out() {
        let schema = Schema::parse(BASE).unwrap();
        let visits = schema.collection_named("visits").unwrap();
        assert_eq!(visits.collection_id().0, 1);
        assert_eq!(visits.column_named("ends_at").unwrap().column_id().0, 3);
        assert_eq!(Schema::parse(&schema.to_json()).unwrap(), schema);
    }

    #[test]
    fn broken_schemas_say_where() {
        for (from, to, place) in [
            ("\"text\"", "\"document\"", "visits"),
            ("site/{site_id}", "site/{nothing}", "visits"),
            ("\"visits\"", "\"fs_visits\"", "fs_visits"),
            ("\"visits\"", "\"Visits; DROP\"", "Visits; DROP"),
            ("\"ends_at\"", "\"starts_at\"", "visits"),
            ("\"ends_at\"", "\"id\"", "visits.id"),
            ("\"version\":1", "\"version\":0", "version"),
        ] {
            let error = Schema::parse(&BASE.replace(from, to)).unwrap_err().to_string();
            assert!(error.starts_with(place), "{error}");
        }
        assert!(matches!(Schema::parse("{").unwrap_err(), SchemaError::Json { .. }));
        assert!(matches!(
            Schema::parse(&" ".repeat(MAX_SCHEMA_BYTES + 1)).unwrap_err(),
            SchemaError::TooLong { .. }
        ));
    }

    #[test]
    fn a_new_version_only_adds() {
        let base = Schema::parse(BASE).unwrap();
        let next = |from: &str, to: &str| {
            let json = BASE.replace("\"version\":1", "\"version\":2").replace(from, to);
            Schema::parse(&json).unwrap().check_successor(&base)
        };
        let added = "{\"name\":\"site_id\",\"type\":\"text\"},{\"id\":9,\"name\":\"memo\",\"type\":\"text\"}";
        next("{\"name\":\"site_id\",\"type\":\"text\"}", added).unwrap_err();
        let appended = "\"group\":\"period\"},{\"name\":\"memo\",\"type\":\"text\"}]";
        next("\"group\":\"period\"}]", appended).unwrap();
        next("\"text\"", "\"int\"").unwrap_err();
        next("\"starts_at\"", "\"begins_at\"").unwrap_err();
        assert!(base.check_successor(&base).is_err());
    }
}

//! A tenant's schema: collections, typed columns, column groups and scope templates.
//!
//! Collections and columns have stable numbers, so a new version of a schema only ever adds
//! ([`Schema::check_successor`]); data written under any earlier version stays readable.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{CollectionId, ColumnId, Scope};
use crate::value::Value;

mod check;
mod scope_template;

pub use check::SchemaError;
pub use scope_template::ScopeTemplate;

/// Most collections of a schema.
pub const MAX_COLLECTIONS: usize = 500;
/// Most columns of a collection.
pub const MAX_COLUMNS: usize = 500;
/// Longest name of a schema, a collection or a column, in bytes.
pub const MAX_NAME_BYTES: usize = 63;
/// Longest schema file, in bytes.
pub const MAX_SCHEMA_BYTES: usize = 1 << 20;
/// Longest text, bytes or json value of a column without a `max_bytes` of its own, in bytes.
pub const DEFAULT_MAX_VALUE_BYTES: usize = 256 << 10;

/// What a column holds, and thereby how it merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// Truth value; the last writer wins, as for every scalar.
    Bool,
    /// Signed 64-bit integer.
    Int,
    /// 64-bit float.
    Real,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Bytes,
    /// Microseconds since 1970.
    Timestamp,
    /// A uuid.
    Uuid,
    /// JSON text.
    Json,
    /// A sum to which every device adds; increments from two offline devices both count.
    Counter,
    /// An observed-remove set of scalars: an add wins over a concurrent remove.
    Set,
    /// A collaborative document.
    Document,
}

impl ColumnType {
    /// Whether the column is a scalar that the last writer wins.
    #[must_use]
    pub const fn is_scalar(self) -> bool {
        !matches!(self, Self::Counter | Self::Set | Self::Document)
    }

    /// The word of the schema file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Real => "real",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Timestamp => "timestamp",
            Self::Uuid => "uuid",
            Self::Json => "json",
            Self::Counter => "counter",
            Self::Set => "set",
            Self::Document => "document",
        }
    }
}

/// One column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its stable number; its position, from 1, where the file leaves it out.
    #[serde(default)]
    pub id: Option<u16>,
    /// Its name in SQL and in the API.
    pub name: String,
    /// What it holds.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// Columns with the same group move together: all of them come from the same write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The value of a row that was written without the column; NULL where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<serde_json::Value>,
    /// Smallest allowed number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Largest allowed number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Longest allowed text, bytes or json, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<usize>,
    /// The children with which every document of the column starts: name to `text`, `list` or `map`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub root: BTreeMap<String, crate::document::FieldKind>,
}

impl Column {
    /// Its stable number.
    #[must_use]
    pub fn column_id(&self) -> ColumnId {
        ColumnId(self.id.unwrap_or_default())
    }

    /// The value of a row that was written without this column.
    #[must_use]
    pub fn default_value(&self) -> Value {
        self.default
            .as_ref()
            .and_then(|json| check::json_to_value(json, self.column_type))
            .unwrap_or(Value::Null)
    }
}

/// One collection of rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collection {
    /// Its stable number; its position, from 1, where the file leaves it out.
    #[serde(default)]
    pub id: Option<u16>,
    /// Its name in SQL and in the API.
    pub name: String,
    /// The template that puts each row into a scope, such as `tenant` or `site/{site_id}`.
    pub scope: ScopeTemplate,
    /// Its columns, besides the implicit uuid `id`.
    pub columns: Vec<Column>,
}

impl Collection {
    /// Its stable number.
    #[must_use]
    pub fn collection_id(&self) -> CollectionId {
        CollectionId(self.id.unwrap_or_default())
    }

    /// The column with this number.
    #[must_use]
    pub fn column(&self, id: ColumnId) -> Option<&Column> {
        // Numbers are positions in most schemas, so the first look nearly always hits.
        let by_position = self.columns.get(usize::from(id.0).wrapping_sub(1));
        by_position
            .filter(|column| column.column_id() == id)
            .or_else(|| self.columns.iter().find(|column| column.column_id() == id))
    }

    /// The column with this name.
    #[must_use]
    pub fn column_named(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The other columns that move together with this one.
    pub fn group_members<'a>(&'a self, column: &'a Column) -> impl Iterator<Item = &'a Column> {
        let group = column.group.as_ref();
        group.into_iter().flat_map(move |group| {
            let members = self.columns.iter().filter(|other| other.group.as_ref() == Some(group));
            members.filter(|other| other.column_id() != column.column_id())
        })
    }
}

/// A version of a tenant's schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// What the schema is called.
    pub name: String,
    /// Rises by any amount with each change.
    pub version: u32,
    /// The collections.
    pub collections: Vec<Collection>,
}

impl Schema {
    /// Reads and checks a schema file.
    ///
    /// # Errors
    /// Says what is wrong and where: JSON, names, numbers, types, groups, scope templates.
    pub fn parse(json: &str) -> Result<Self, SchemaError> {
        if json.len() > MAX_SCHEMA_BYTES {
            return Err(SchemaError::TooLong { bytes: json.len() });
        }
        let mut schema: Self =
            serde_json::from_str(json).map_err(|source| SchemaError::Json { source })?;
        schema.number_by_position();
        check::check(&schema)?;
        Ok(schema)
    }

    /// The schema as JSON, with every number written out.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a schema has string keys only")
    }

    /// Whether this may follow `earlier`: a higher version that only adds.
    ///
    /// # Errors
    /// Names the collection or column that changed or is missing.
    pub fn check_successor(&self, earlier: &Self) -> Result<(), SchemaError> {
        check::check_successor(self, earlier)
    }

    /// The collection with this number.
    #[must_use]
    pub fn collection(&self, id: CollectionId) -> Option<&Collection> {
        let by_position = self.collections.get(usize::from(id.0).wrapping_sub(1));
        by_position
            .filter(|collection| collection.collection_id() == id)
            .or_else(|| self.collections.iter().find(|collection| collection.collection_id() == id))
    }

    /// The collection with this name.
    #[must_use]
    pub fn collection_named(&self, name: &str) -> Option<&Collection> {
        self.collections.iter().find(|collection| collection.name == name)
    }

    /// The scopes of all templates that name no column, such as `tenant`.
    #[must_use]
    pub fn constant_scopes(&self) -> BTreeSet<Scope> {
        self.collections.iter().filter_map(|collection| collection.scope.constant()).collect()
    }

    fn number_by_position(&mut self) {
        for (position, collection) in (1..).zip(&mut self.collections) {
            collection.id.get_or_insert(position);
            for (position, column) in (1..).zip(&mut collection.columns) {
                column.id.get_or_insert(position);
            }
        }
    }
}

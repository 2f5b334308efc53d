//! How the app's schema lies in tables, and the SQL for it.
//!
//! A collection `flights` is the table `fs_rows_flights` with hidden columns, and the view `flights` with `id`
//! and the columns of the schema. Names of a schema hold only `[a-z0-9_]`, so that quoting them is enough.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use farshore_sync_core::document::{self, Change};
use farshore_sync_core::ids::{CollectionId, ColumnId, Scope};
use farshore_sync_core::schema::{Collection, Column, ColumnType, Schema};
use farshore_sync_core::value::Value;

/// What the table of a collection is called before the collection's name.
pub(super) const TABLE_PREFIX: &str = "fs_rows_";

/// The hidden columns of a collection's table, in their order after `id`.
const HIDDEN: &str = "fs_scope, fs_sum, fs_pending, fs_meta";

/// The first parameter of [`CollectionSql::insert`] and [`CollectionSql::save`] that is a column of the schema:
/// before it come the id and the hidden columns.
pub(super) const FIRST_COLUMN_PARAMETER: usize = 6;

/// The first column of [`CollectionSql::load`] that is one of the schema.
pub(super) const FIRST_COLUMN_RESULT: usize = 4;

/// Nobody edits a document that is opened to see what an empty one shows.
const EMPTY_ACTOR: [u8; 16] = [1; 16];

/// All collections of the store.
#[derive(Debug)]
pub(super) struct Layout {
    /// What the app was built with: what it may name.
    pub app: Arc<Schema>,
    collections: BTreeMap<CollectionId, CollectionLayout>,
    names: HashMap<String, CollectionId>,
}

/// One collection.
#[derive(Debug)]
pub(super) struct CollectionLayout {
    pub id: CollectionId,
    pub collection: Collection,
    /// Every column of the newest schema that the store has seen, sorted by number.
    pub columns: Vec<ColumnLayout>,
    /// The scope of all its rows, where its template names no column.
    pub constant_scope: Option<Scope>,
    /// The columns that the app may name.
    names: HashMap<String, usize>,
    pub sql: CollectionSql,
}

/// One column.
#[derive(Debug)]
pub(super) struct ColumnLayout {
    pub id: ColumnId,
    pub column: Column,
    /// Whether the app may name it.
    pub in_app: bool,
    /// What the column shows where the row was written without it.
    pub default: Value,
    /// The other columns of its group, by their place among the columns.
    pub group: Vec<usize>,
    /// Its place among the columns that a row is saved with; a document is saved by itself.
    pub place: Option<usize>,
    /// The first change of its documents, and their JSON before any other change.
    pub genesis: Option<Change>,
    pub empty_document: Option<Value>,
}

/// The statements of one collection.
#[derive(Debug)]
pub(super) struct CollectionSql {
    /// Inserts a row unless its id is there already.
    pub insert: String,
    /// Inserts a row or replaces it; documents stay.
    pub save: String,
    /// The hidden columns and the columns of one row.
    pub load: String,
    /// What of a row a page needs to replace it: scope, sum, pending.
    pub head: String,
    pub delete: String,
}

impl Layout {
    /// The layout of the newest schema that the store has seen, for an app with the schema `app`.
    pub(super) fn new(newest: &Schema, app: Arc<Schema>) -> Self {
        let collections = newest
            .collections
            .iter()
            .map(|collection| {
                let known = app.collection(collection.collection_id());
                (collection.collection_id(), CollectionLayout::new(collection, known))
            })
            .collect();
        let names = app.collections.iter().map(|c| (c.name.clone(), c.collection_id())).collect();
        Self { app, collections, names }
    }

    pub(super) fn collection(&self, id: CollectionId) -> Option<&CollectionLayout> {
        self.collections.get(&id)
    }

    /// A collection by the name under which the app knows it.
    pub(super) fn named(&self, name: &str) -> Option<&CollectionLayout> {
        self.collections.get(self.names.get(name)?)
    }

    pub(super) fn collections(&self) -> impl Iterator<Item = &CollectionLayout> {
        self.collections.values()
    }
}

impl ColumnLayout {
    fn new(column: &Column, group: Vec<usize>, place: Option<usize>) -> Self {
        let is_document = column.column_type == ColumnType::Document;
        let genesis = is_document.then(|| document::genesis(&column.root)).flatten();
        let empty_document = is_document.then(|| {
            let empty = document::open(EMPTY_ACTOR, genesis.as_ref(), std::iter::empty()).ok()?;
            Some(Value::Json(empty.to_json().ok()?.to_string()))
        });
        Self {
            id: column.column_id(),
            column: column.clone(),
            in_app: false,
            default: column.default_value(),
            group,
            empty_document: empty_document.flatten(),
            genesis,
            place,
        }
    }
}

impl CollectionLayout {
    fn new(collection: &Collection, known_to_app: Option<&Collection>) -> Self {
        let mut sorted: Vec<&Column> = collection.columns.iter().collect();
        sorted.sort_by_key(|column| column.column_id());
        let index_of = |id| sorted.iter().position(|column| column.column_id() == id);
        let mut places = 0..;
        let columns: Vec<ColumnLayout> = sorted
            .iter()
            .map(|column| {
                let members = collection.group_members(column);
                let group = members.filter_map(|other| index_of(other.column_id())).collect();
                let is_document = column.column_type == ColumnType::Document;
                let place = if is_document { None } else { places.next() };
                let app = known_to_app.and_then(|known| known.column(column.column_id()));
                ColumnLayout { in_app: app.is_some(), ..ColumnLayout::new(column, group, place) }
            })
            .collect();
        let known = known_to_app.into_iter().flat_map(|collection| &collection.columns);
        let names = known
            .filter_map(|column| Some((column.name.clone(), index_of(column.column_id())?)))
            .collect();
        Self {
            id: collection.collection_id(),
            constant_scope: collection.scope.constant(),
            sql: CollectionSql::new(&table_of(&collection.name), &columns),
            collection: collection.clone(),
            columns,
            names,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.collection.name
    }

    pub(super) fn table(&self) -> String {
        table_of(&self.collection.name)
    }

    /// The place of a column among the columns.
    pub(super) fn column(&self, id: ColumnId) -> Option<usize> {
        // Numbers are positions in most schemas, so the first look nearly always hits.
        let guess = usize::from(id.0).wrapping_sub(1);
        if self.columns.get(guess).is_some_and(|column| column.id == id) {
            return Some(guess);
        }
        self.columns.binary_search_by_key(&id, |column| column.id).ok()
    }

    /// The place of a scalar column among the columns.
    pub(super) fn scalar(&self, id: ColumnId) -> Option<usize> {
        self.column(id).filter(|at| self.columns[*at].column.column_type.is_scalar())
    }

    /// The place of a column that the app may name.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// Whether the column at a place is one that the app may name, and by this name.
    pub(super) fn is_named(&self, at: usize, name: &str) -> bool {
        self.columns.get(at).is_some_and(|column| column.in_app && column.column.name == name)
    }

    /// The places of its document columns.
    pub(super) fn documents(&self) -> impl Iterator<Item = usize> {
        let is_document = |at: &usize| self.columns[*at].column.column_type == ColumnType::Document;
        (0..self.columns.len()).filter(is_document)
    }

    /// The scope of a row with these values; `None` where they make none.
    pub(super) fn scope_of<'v>(
        &self,
        value_of: impl Fn(ColumnId) -> Option<&'v Value>,
    ) -> Option<Scope> {
        if let Some(constant) = &self.constant_scope {
            return Some(constant.clone());
        }
        self.collection.scope.resolve(|name| {
            let column = self.collection.column_named(name)?;
            let value = value_of(column.column_id()).map(Cow::Borrowed);
            Some(value.unwrap_or_else(|| Cow::Owned(column.default_value())))
        })
    }
}

fn table_of(collection: &str) -> String {
    format!("{TABLE_PREFIX}{collection}")
}

/// A name as SQL: the schema's rules leave nothing in it to escape.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

impl CollectionSql {
    fn new(table: &str, columns: &[ColumnLayout]) -> Self {
        let mut named = String::new();
        let mut parameters = "?1, ?2, ?3, ?4, ?5".to_owned();
        let mut updates = String::new();
        for column in columns {
            if let Some(place) = column.place {
                let name = quoted(&column.column.name);
                let _ = write!(named, ", {name}");
                let _ = write!(parameters, ", ?{}", FIRST_COLUMN_PARAMETER + place);
                let _ = write!(updates, ", {name} = excluded.{name}");
            }
        }
        let insert = format!("INTO \"{table}\" (id, {HIDDEN}{named}) VALUES ({parameters})");
        let hidden = "fs_scope = excluded.fs_scope, fs_sum = excluded.fs_sum, \
             fs_pending = excluded.fs_pending, fs_meta = excluded.fs_meta";
        Self {
            save: format!("INSERT {insert} ON CONFLICT (id) DO UPDATE SET {hidden}{updates}"),
            insert: format!("INSERT OR IGNORE {insert}"),
            load: format!("SELECT {HIDDEN}{named} FROM \"{table}\" WHERE id = ?1"),
            head: format!("SELECT fs_scope, fs_sum, fs_pending FROM \"{table}\" WHERE id = ?1"),
            delete: format!("DELETE FROM \"{table}\" WHERE id = ?1"),
        }
    }
}

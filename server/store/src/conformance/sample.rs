//! The sample tenant: its schema, its scopes, and how its mutations are written.

use farshore_sync_core::document::{self, Change, DocumentEdit};
use farshore_sync_core::hlc::Stamp;
use farshore_sync_core::ids::{CollectionId, ColumnId, RowId, Scope};
use farshore_sync_core::mutation::{Cells, Mutation, Op};
use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;

use crate::sync::RowKey;

/// Milliseconds since 1970 at which every case begins.
pub const NOW_MS: u64 = 1_800_000_000_000;

const SCHEMA: &str = r#"{"name": "sample", "version": 1, "collections": [
    {"name": "notes", "scope": "tenant", "columns": [
        {"name": "title", "type": "text"},
        {"name": "stars", "type": "int", "min": 0, "max": 5},
        {"name": "likes", "type": "counter"},
        {"name": "tags", "type": "set"},
        {"name": "body", "type": "document", "root": {"text": "text"}}]},
    {"name": "visits", "scope": "site/{site}", "columns": [
        {"name": "site", "type": "text"},
        {"name": "report", "type": "document", "root": {"text": "text"}}]}]}"#;

const NOTES: CollectionId = CollectionId(1);
const VISITS: CollectionId = CollectionId(2);
pub const TITLE: ColumnId = ColumnId(1);
pub const STARS: ColumnId = ColumnId(2);
pub const LIKES: ColumnId = ColumnId(3);
pub const TAGS: ColumnId = ColumnId(4);
pub const BODY: ColumnId = ColumnId(5);
pub const SITE: ColumnId = ColumnId(1);
pub const REPORT: ColumnId = ColumnId(2);

/// The schema of the sample tenant.
pub fn schema() -> Schema {
    Schema::parse(SCHEMA).unwrap()
}

/// The scope of every note.
pub fn tenant() -> Scope {
    "tenant".parse().unwrap()
}

/// The scope of the visits of a site.
pub fn site(name: &str) -> Scope {
    format!("site/{name}").parse().unwrap()
}

/// A note by number; numbers fall into different buckets.
pub fn note(number: u16) -> RowKey {
    (NOTES, row_id(number))
}

/// A visit by number.
pub fn visit(number: u16) -> RowKey {
    (VISITS, row_id(number))
}

fn row_id(number: u16) -> RowId {
    let [high, low] = number.to_be_bytes();
    RowId::from_bytes([7, 7, high, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low, low])
}

/// Inserts a note with a title.
pub fn insert_note(number: u16, title: &str) -> Mutation {
    let cells = Cells::new(vec![(TITLE, Value::from(title))]);
    on(note(number), Op::Insert { cells })
}

/// Inserts notes of one title, whose ids begin with a time, as those of devices do, and differ for every `batch`.
pub fn fresh_notes(batch: u64, notes: u16, title: &str) -> Vec<Mutation> {
    let insert = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let row = RowId::from_parts(batch, &[1, 2, 3, 4, 5, 6, 7, 8, high, low]);
        let cells = Cells::new(vec![(TITLE, Value::from(title))]);
        on((NOTES, row), Op::Insert { cells })
    };
    (0..notes).map(insert).collect()
}

/// Gives a note another title.
pub fn retitle(number: u16, title: &str) -> Mutation {
    let cells = Cells::new(vec![(TITLE, Value::from(title))]);
    on(note(number), Op::Update { cells })
}

/// Gives a note stars; more than five are refused.
pub fn rate(number: u16, stars: i64) -> Mutation {
    on(note(number), Op::Update { cells: Cells::new(vec![(STARS, Value::from(stars))]) })
}

/// Adds to the likes of a note.
pub fn like(number: u16, delta: i64) -> Mutation {
    on(note(number), Op::Increment { column: LIKES, delta })
}

/// Tags a note.
pub fn tag(number: u16, tag: &str) -> Mutation {
    on(note(number), Op::SetAdd { column: TAGS, element: Value::from(tag) })
}

/// Takes a tag from a note, as far as it was seen.
pub fn untag(number: u16, tag: &str, observed: Vec<Stamp>) -> Mutation {
    on(note(number), Op::SetRemove { column: TAGS, element: Value::from(tag), observed })
}

/// Inserts a visit of a site.
pub fn insert_visit(number: u16, site: &str) -> Mutation {
    on(visit(number), Op::Insert { cells: Cells::new(vec![(SITE, Value::from(site))]) })
}

/// Moves a visit to another site, and thereby into another scope.
pub fn move_visit(number: u16, site: &str) -> Mutation {
    on(visit(number), Op::Update { cells: Cells::new(vec![(SITE, Value::from(site))]) })
}

/// Deletes a row.
pub fn delete(key: RowKey) -> Mutation {
    on(key, Op::Delete)
}

/// Brings a row back.
pub fn restore(key: RowKey) -> Mutation {
    on(key, Op::Restore)
}

/// Adds a change to a document.
pub fn change(key: RowKey, column: ColumnId, change: &Change) -> Mutation {
    on(key, Op::Document { column, change: change.bytes.clone() })
}

fn on((collection, row): RowKey, op: Op) -> Mutation {
    Mutation { collection, row, op }
}

/// The changes that type some words into a new document of a column, one for each word, each upon the last.
pub fn typing(key: RowKey, column: ColumnId, words: &[&str]) -> Vec<Change> {
    let schema = schema();
    let root = &schema.collection(key.0).unwrap().column(column).unwrap().root;
    let genesis = document::genesis(root);
    let mut document = document::open([5; 16], genesis.as_ref(), std::iter::empty()).unwrap();
    let mut position = 0;
    let mut changes = Vec::new();
    for word in words {
        let path = ["text"].into();
        let insert = (*word).to_owned();
        let edit = DocumentEdit::SpliceText { path, position, delete: 0, insert };
        position += word.chars().count();
        changes.push(document.edit(&[edit]).unwrap().unwrap());
    }
    changes
}

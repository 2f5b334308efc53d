//! The schema that the tests use, and transactions on it as a device sends them.

use std::sync::atomic::{AtomicU64, Ordering};

use farshore_sync_core::hlc::Hlc;
use farshore_sync_core::ids::{CollectionId, ColumnId, RowId};
use farshore_sync_core::mutation::{Cells, Mutation, Op, Transaction};
use farshore_sync_core::row::RowState;
use farshore_sync_core::value::Value;
use test_chance::Chance;

/// The schema file.
pub const SCHEMA: &str = include_str!("../schemas/fleet.json");
/// Its version.
pub const SCHEMA_VERSION: u32 = 1;

/// `items`, in the scope `tenant`: `label`, `amount` (0 to 1,000,000), `body`, `tags`.
pub const ITEMS: CollectionId = CollectionId(1);
/// `tallies`, in the scope `tenant`: `name`, `count` (a counter).
pub const TALLIES: CollectionId = CollectionId(2);
/// `visits`, in the scope `site/{site_id}`: `site_id`, `purpose`.
pub const VISITS: CollectionId = CollectionId(3);

/// `items.label`, `tallies.name`, `visits.site_id`.
pub const FIRST: ColumnId = ColumnId(1);
/// `items.amount`, `tallies.count`, `visits.purpose`.
pub const SECOND: ColumnId = ColumnId(2);
/// `items.body`.
pub const BODY: ColumnId = ColumnId(3);

/// Milliseconds of 1 November 2026: stamps of the tests lie after it and before now.
const STAMPS_FROM_MS: u64 = 1_793_491_200_000;

/// A row id that no other call gives in this process.
#[must_use]
pub fn fresh_row() -> RowId {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let mut entropy = [0; 10];
    entropy[2..].copy_from_slice(&number.to_be_bytes());
    RowId::from_parts(STAMPS_FROM_MS, &entropy)
}

/// The cells of a row.
#[must_use]
pub fn cells<const N: usize>(cells: [(ColumnId, Value); N]) -> Cells {
    Cells::new(cells.into())
}

/// A text.
#[must_use]
pub fn text(text: &str) -> Value {
    Value::Text(text.into())
}

/// A new item.
#[must_use]
pub fn insert_item(row: RowId, label: &str, amount: i64) -> Mutation {
    let cells = cells([(FIRST, text(label)), (SECOND, Value::Int(amount))]);
    Mutation { collection: ITEMS, row, op: Op::Insert { cells } }
}

/// A new item with a body of this many bytes.
#[must_use]
pub fn insert_large_item(row: RowId, label: &str, body_bytes: usize) -> Mutation {
    let seed =
        row.as_bytes().iter().fold(0, |seed: u64, byte| seed.wrapping_mul(257) + u64::from(*byte));
    let cells = cells([(FIRST, text(label)), (BODY, text(&noise(body_bytes, seed)))]);
    Mutation { collection: ITEMS, row, op: Op::Insert { cells } }
}

/// Another label for an item.
#[must_use]
pub fn relabel_item(row: RowId, label: &str) -> Mutation {
    Mutation { collection: ITEMS, row, op: Op::Update { cells: cells([(FIRST, text(label))]) } }
}

/// A new tally.
#[must_use]
pub fn insert_tally(row: RowId, name: &str) -> Mutation {
    Mutation { collection: TALLIES, row, op: Op::Insert { cells: cells([(FIRST, text(name))]) } }
}

/// So much more on a tally.
#[must_use]
pub const fn count_up(row: RowId, delta: i64) -> Mutation {
    Mutation { collection: TALLIES, row, op: Op::Increment { column: SECOND, delta } }
}

/// A new visit to a site.
#[must_use]
pub fn insert_visit(row: RowId, site: &str, purpose: &str) -> Mutation {
    let cells = cells([(FIRST, text(site)), (SECOND, text(purpose))]);
    Mutation { collection: VISITS, row, op: Op::Insert { cells } }
}

/// A visit that goes to another site.
#[must_use]
pub fn move_visit(row: RowId, site: &str) -> Mutation {
    Mutation { collection: VISITS, row, op: Op::Update { cells: cells([(FIRST, text(site))]) } }
}

/// The end of a row.
#[must_use]
pub const fn delete(collection: CollectionId, row: RowId) -> Mutation {
    Mutation { collection, row, op: Op::Delete }
}

/// A transaction whose stamp follows from its number.
#[must_use]
pub fn transaction(number: u64, mutations: Vec<Mutation>) -> Transaction {
    Transaction { number, stamp: Hlc::from_wall_ms(STAMPS_FROM_MS + number), mutations }
}

/// The text in a column of a row as it travels; `None` where there is none.
///
/// # Panics
/// Where the bytes are no row.
#[must_use]
pub fn text_in(state: &[u8], column: ColumnId) -> Option<String> {
    match RowState::decode(state).unwrap().value(column) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    }
}

/// The total of a counter in a row as it travels.
///
/// # Panics
/// Where the bytes are no row.
#[must_use]
pub fn count_in(state: &[u8], column: ColumnId) -> i64 {
    RowState::decode(state).unwrap().counter(column)
}

/// Text in which compression finds little, another one for each seed.
#[must_use]
pub fn noise(bytes: usize, seed: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut chance = Chance::of(seed);
    let letter = || char::from(LETTERS[(chance.next() % 64) as usize]);
    std::iter::repeat_with(letter).take(bytes).collect()
}

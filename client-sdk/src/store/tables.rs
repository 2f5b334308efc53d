//! The tables of a store.

use farshore_sync_core::schema::ColumnType;
use rusqlite::Connection;

use super::layout::{CollectionLayout, ColumnLayout, quoted};
use super::typed::{literal, sql_type};

/// The tables besides those of the collections.
///
/// Wherever a row is kept, it has the same four companions: `scope` (where the server's state of the row is;
/// where it would be, if the server has none), `sum` (the digest of the server's state, NULL unless that lives),
/// `pending` (NULL unless local transactions are laid over the server's state) and its own state.
const TABLES: &str = "
-- One row: where the replica stands.
CREATE TABLE fs_state (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  device BLOB NOT NULL,
  clock INTEGER NOT NULL,
  seen INTEGER NOT NULL,
  next_number INTEGER NOT NULL,
  settled INTEGER NOT NULL,
  answered_through INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  cursor INTEGER NOT NULL,
  filled INTEGER NOT NULL,
  refill INTEGER NOT NULL,
  staged INTEGER NOT NULL,
  unanswered INTEGER NOT NULL,
  unconfirmed INTEGER NOT NULL,
  quarantined INTEGER NOT NULL,
  corrections INTEGER NOT NULL,
  last_correction_ms INTEGER NOT NULL,
  actor_generation INTEGER NOT NULL,
  swept_ms INTEGER NOT NULL,
  server_ms INTEGER NOT NULL,
  digest_key BLOB
);
-- One row: the newest schema that this store has seen, and the app's for which the views were made.
CREATE TABLE fs_schema (one INTEGER PRIMARY KEY CHECK (one = 1), newest TEXT NOT NULL, app TEXT NOT NULL);
-- Devices and scopes by short numbers. A scope without rights is not granted, one without positions is at the cursor.
CREATE TABLE fs_devices (number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE);
CREATE TABLE fs_scopes (
  number INTEGER PRIMARY KEY, scope TEXT NOT NULL UNIQUE, rights INTEGER, fetched INTEGER, applied INTEGER
);
-- Deleted rows, and rows of which nothing is to be seen (state NULL) while transactions wait for them.
CREATE TABLE fs_graves (
  collection INTEGER NOT NULL, id BLOB NOT NULL, scope INTEGER, sum BLOB, pending BLOB, state BLOB,
  since_ms INTEGER NOT NULL,
  PRIMARY KEY (collection, id)
) WITHOUT ROWID;
-- Live rows of collections that no schema of this app has named yet.
CREATE TABLE fs_unknown (
  collection INTEGER NOT NULL, id BLOB NOT NULL, scope INTEGER, sum BLOB, pending BLOB, state BLOB NOT NULL,
  PRIMARY KEY (collection, id)
) WITHOUT ROWID;
-- Changes of documents, in the order in which they came. With a transaction's number: not confirmed yet.
-- `stale`: known from before a new epoch, and not seen from the restored server.
CREATE TABLE fs_chunks (
  collection INTEGER NOT NULL, id BLOB NOT NULL, column_id INTEGER NOT NULL, place INTEGER NOT NULL,
  hash BLOB NOT NULL, number INTEGER, stale INTEGER NOT NULL DEFAULT 0, bytes BLOB NOT NULL,
  PRIMARY KEY (collection, id, column_id, place)
) WITHOUT ROWID;
CREATE UNIQUE INDEX fs_chunks_by_hash ON fs_chunks (collection, id, column_id, hash);
CREATE INDEX fs_chunks_pending ON fs_chunks (number) WHERE number IS NOT NULL;
-- Local transactions until a checkpoint brings them back. `answered`: the seq at which the server took it.
-- `decided`: the seq at which the server had decided on it, learned before its answer; 0 once that was reached. -1: a
-- restored server refused it for the lack of what the end of the refill will offer.
-- `corrected`: the stamp under which the server keeps it, where that is not its own.
CREATE TABLE fs_outbox (
  number INTEGER PRIMARY KEY, answered INTEGER, decided INTEGER, corrected INTEGER, bytes BLOB NOT NULL
);
-- Refused transactions, and the rows that they touch. `brings`: they would create or restore the row.
CREATE TABLE fs_quarantine (
  number INTEGER PRIMARY KEY, code TEXT NOT NULL, message TEXT NOT NULL, refused_index INTEGER NOT NULL,
  since_ms INTEGER NOT NULL, bytes BLOB NOT NULL
);
CREATE TABLE fs_quarantined_rows (
  collection INTEGER NOT NULL, id BLOB NOT NULL, number INTEGER NOT NULL, brings INTEGER NOT NULL,
  PRIMARY KEY (collection, id, number)
) WITHOUT ROWID;
-- Sums of the server's live rows: 256 buckets, and their total.
CREATE TABLE fs_digests (
  scope INTEGER NOT NULL, collection INTEGER NOT NULL, total BLOB NOT NULL, buckets BLOB NOT NULL,
  UNIQUE (scope, collection)
);
-- Pages that wait for their checkpoint, and the rows that a refill has brought with what they were before.
CREATE TABLE fs_staged (place INTEGER PRIMARY KEY, page BLOB NOT NULL);
CREATE TABLE fs_seen (
  collection INTEGER NOT NULL, id BLOB NOT NULL, before BLOB, PRIMARY KEY (collection, id)
) WITHOUT ROWID;
";

/// Creates every table that does not belong to a collection.
pub(super) fn create_tables(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)
}

/// Creates the table of a collection.
pub(super) fn create_collection(
    connection: &Connection,
    layout: &CollectionLayout,
) -> rusqlite::Result<()> {
    let mut sql = format!(
        "CREATE TABLE {} (id BLOB PRIMARY KEY NOT NULL, fs_scope INTEGER, fs_sum BLOB, fs_pending BLOB, fs_meta BLOB NOT NULL",
        quoted(&layout.table())
    );
    for column in &layout.columns {
        sql.push_str(", ");
        sql.push_str(&column_definition(column));
    }
    sql.push_str(") WITHOUT ROWID");
    connection.execute_batch(&sql)
}

/// Adds a column to the table of a collection; every row gets the column's default.
pub(super) fn add_column(
    connection: &Connection,
    layout: &CollectionLayout,
    column: &ColumnLayout,
) -> rusqlite::Result<()> {
    let (table, name) = (quoted(&layout.table()), quoted(&column.column.name));
    connection
        .execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {}", column_definition(column)))?;
    if literal(&column.default).is_none() {
        let value = super::typed::SqlParameter(&column.default);
        connection.execute(&format!("UPDATE {table} SET {name} = ?1"), [value])?;
    }
    Ok(())
}

fn column_definition(column: &ColumnLayout) -> String {
    let (name, column_type) = (quoted(&column.column.name), column.column.column_type);
    let default = match column_type {
        ColumnType::Counter => Some("0".to_owned()),
        ColumnType::Set => Some("'[]'".to_owned()),
        ColumnType::Document => column.empty_document.clone().and_then(|json| literal(&json)),
        _ => literal(&column.default),
    };
    let default = default.map_or_else(String::new, |default| format!(" DEFAULT {default}"));
    format!("{name} {}{default}", sql_type(column_type))
}

/// Makes the views anew: one for each collection of the app's schema, with its columns in the schema's order.
pub(super) fn create_views<'a>(
    connection: &Connection,
    collections: impl Iterator<Item = (&'a CollectionLayout, Vec<String>)>,
) -> rusqlite::Result<()> {
    let old: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'view'")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for name in old {
        connection.execute_batch(&format!("DROP VIEW {}", quoted(&name)))?;
    }
    for (layout, columns) in collections {
        let columns: String = columns.iter().map(|name| format!(", {}", quoted(name))).collect();
        connection.execute_batch(&format!(
            "CREATE VIEW {} AS SELECT id{columns} FROM {}",
            quoted(layout.name()),
            quoted(&layout.table())
        ))?;
    }
    Ok(())
}

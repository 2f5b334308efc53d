//! Bringing the tables up to the app's schema.
//!
//! The tables follow the newest schema that the store has ever seen; an older app sees only the columns that it
//! knows, and what it does not know is kept. A new version only adds, so that nothing is ever rewritten but rows
//! that held values for the new columns already.

use farshore_sync_core::ids::{CollectionId, RowId};
use farshore_sync_core::row::RowState;
use farshore_sync_core::schema::{Collection, Schema, SchemaError};
use rusqlite::{Connection, params};

use super::error::Failure;
use super::layout::{CollectionLayout, Layout};
use super::row_meta::UNTYPED_FROM;
use super::rows::{Place, RowKey, Stored};
use super::tables;
use super::transaction::Tx;

/// How the app's schema relates to the newest one that the store has seen.
pub(super) enum Relation {
    /// They are the same, or the app's is older.
    Covered {
        /// The newest schema.
        newest: Schema,
        /// Whether the views were made for another version of the app.
        views_differ: bool,
    },
    /// The app's is newer.
    Newer {
        /// The newest schema until now.
        before: Schema,
    },
}

/// Why the app's schema cannot be used with a store.
pub(super) enum Misfit {
    /// The stored schema cannot be read.
    Unreadable(SchemaError),
    /// Neither follows the other.
    Conflict { stored: u32, source: SchemaError },
}

/// Compares the app's schema with the stored one.
pub(super) fn relate(
    connection: &Connection,
    app: &Schema,
) -> Result<Result<Relation, Misfit>, Failure> {
    let (newest, seen): (String, String) =
        connection.query_row("SELECT newest, app FROM fs_schema", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let newest = match Schema::parse(&newest) {
        Ok(newest) => newest,
        Err(error) => return Ok(Err(Misfit::Unreadable(error))),
    };
    let views_differ = seen != app.to_json();
    if newest == *app || newest.check_successor(app).is_ok() {
        return Ok(Ok(Relation::Covered { newest, views_differ }));
    }
    Ok(match app.check_successor(&newest) {
        Ok(()) => Ok(Relation::Newer { before: newest }),
        Err(source) => Err(Misfit::Conflict { stored: newest.version, source }),
    })
}

/// Makes the views for the app's schema, and remembers both schemas.
pub(super) fn save_schemas(
    connection: &Connection,
    newest: &Schema,
    layout: &Layout,
) -> Result<(), Failure> {
    let views = layout.app.collections.iter().filter_map(|collection| {
        let columns = collection.columns.iter().map(|column| column.name.clone()).collect();
        Some((layout.collection(collection.collection_id())?, columns))
    });
    tables::create_views(connection, views)?;
    connection.execute(
        "INSERT OR REPLACE INTO fs_schema (one, newest, app) VALUES (1, ?1, ?2)",
        params![newest.to_json(), layout.app.to_json()],
    )?;
    Ok(())
}

/// Creates the tables of every collection.
pub(super) fn create_collections(connection: &Connection, layout: &Layout) -> Result<(), Failure> {
    layout
        .collections()
        .try_for_each(|collection| tables::create_collection(connection, collection))?;
    Ok(())
}

/// Adds the collections and columns that `before` lacks. The rows follow with [`Tx::adopt_untyped`].
pub(super) fn extend_tables(
    connection: &Connection,
    before: &Schema,
    layout: &Layout,
) -> Result<(), Failure> {
    for collection in layout.collections() {
        match before.collection(collection.id) {
            None => tables::create_collection(connection, collection)?,
            Some(old) => {
                let added =
                    collection.columns.iter().filter(|column| old.column(column.id).is_none());
                added
                    .into_iter()
                    .try_for_each(|column| tables::add_column(connection, collection, column))?;
            }
        }
    }
    Ok(())
}

impl Tx<'_> {
    /// Moves values and rows into the columns and collections that a newer schema has named.
    pub(super) fn adopt_untyped(&mut self, before: &Schema) -> Result<(), Failure> {
        let layout = self.layout;
        for collection in layout.collections() {
            match before.collection(collection.id) {
                None => self.adopt_unknown_rows(collection.id)?,
                Some(old) => {
                    self.adopt_untyped_values(collection)?;
                    if defaults_differ(old, &collection.collection) {
                        self.show_new_defaults(collection)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn adopt_unknown_rows(&mut self, collection: CollectionId) -> Result<(), Failure> {
        let ids: Vec<[u8; 16]> = self
            .connection
            .prepare_cached("SELECT id FROM fs_unknown WHERE collection = ?1")?
            .query_map([collection.0], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for id in ids {
            let key = (collection, RowId::from_bytes(id));
            if let Some(stored) = self.load_unknown(key)? {
                self.save_again(key, stored)?;
            }
        }
        Ok(())
    }

    /// Rows whose metadata hold something for columns that had no place.
    fn adopt_untyped_values(&mut self, layout: &CollectionLayout) -> Result<(), Failure> {
        let ids: Vec<[u8; 16]> = self
            .connection
            .prepare(&format!("SELECT id FROM \"{}\" WHERE fs_meta >= ?1", layout.table()))?
            .query_map([UNTYPED_FROM], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        self.save_all_again(layout, &ids)
    }

    fn show_new_defaults(&mut self, layout: &CollectionLayout) -> Result<(), Failure> {
        let ids: Vec<[u8; 16]> = self
            .connection
            .prepare(&format!("SELECT id FROM \"{}\"", layout.table()))?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        self.save_all_again(layout, &ids)
    }

    fn save_all_again(
        &mut self,
        layout: &CollectionLayout,
        ids: &[[u8; 16]],
    ) -> Result<(), Failure> {
        for id in ids {
            let key = (layout.id, RowId::from_bytes(*id));
            if let Some(stored) = self.load(key)? {
                self.refresh_documents(
                    key,
                    stored.visible.as_ref().unwrap_or(&RowState::default()),
                );
                self.save_again(key, stored)?;
            }
        }
        Ok(())
    }

    fn save_again(&mut self, key: RowKey, stored: Stored) -> Result<(), Failure> {
        let Stored { head, visible } = stored;
        let scope = match head.scope {
            Some(scope) => Some(scope),
            None => self.resolved_scope(key, visible.as_ref())?,
        };
        let was_in = if head.place == Place::Typed { Place::Typed } else { Place::Unknown };
        self.save(key, Some(was_in), scope, head.sum, head.pending.as_ref(), visible.as_ref())
    }
}

/// Whether a column shows something else now in rows that were written without it.
fn defaults_differ(old: &Collection, new: &Collection) -> bool {
    old.columns.iter().any(|column| {
        new.column(column.column_id())
            .is_some_and(|same| same.default_value() != column.default_value())
    })
}

//! Where rows are kept: live ones in the table of their collection, deleted ones in `fs_graves`, and live ones of
//! collections without a table in `fs_unknown`.

use std::iter::Peekable;

use farshore_sync_core::digest::Sum;
use farshore_sync_core::hlc::Stamp;
use farshore_sync_core::ids::{CollectionId, ColumnId, RowId};
use farshore_sync_core::row::RowState;
use farshore_sync_core::schema::ColumnType;
use farshore_sync_core::value::Value;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, OptionalExtension as _, Row, params};

use super::error::Failure;
use super::layout::{CollectionLayout, FIRST_COLUMN_PARAMETER, FIRST_COLUMN_RESULT};
use super::numbers::ScopeNumber;
use super::pending::Pending;
use super::progress::to_sql;
use super::row_meta;
use super::transaction::{Tx, sum_from_sql, sum_to_sql};
use super::typed::{SqlParameter, fits, from_sql, set_json};

/// A row's place in the tenant: collection and identity.
pub(super) type RowKey = (CollectionId, RowId);

/// In which table a row is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Typed,
    Unknown,
    Grave,
}

/// What is beside a row's state, wherever the row is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub place: Place,
    /// The scope of the server's state; where the server has none, the scope that the row would be in.
    pub scope: Option<ScopeNumber>,
    /// The digest of the server's state, where that lives.
    pub sum: Option<Sum>,
    /// `None` where the visible state is the server's.
    pub pending: Option<Pending>,
}

/// A row with what the app sees of it.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub head: Head,
    /// `None` where nothing is to be seen of the row, while transactions wait for it.
    pub visible: Option<RowState>,
}

impl Stored {
    /// The server's state; `None` where the server has no such row.
    pub(super) fn base(&self) -> Result<Option<RowState>, Failure> {
        match &self.head.pending {
            None => Ok(self.visible.clone()),
            Some(pending) => pending.base.as_deref().map(decode_state).transpose(),
        }
    }
}

impl Head {
    /// The digest that the server's state is counted with.
    pub(super) fn counted(&self) -> Option<(ScopeNumber, Sum)> {
        self.scope.zip(self.sum)
    }
}

pub(super) fn decode_state(bytes: &[u8]) -> Result<RowState, Failure> {
    RowState::decode(bytes).map_err(|error| Failure::damaged(error.to_string()))
}

const SAVE_GRAVE: &str = "INSERT OR REPLACE INTO fs_graves \
     (collection, id, scope, sum, pending, state, since_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const SAVE_UNKNOWN: &str = "INSERT OR REPLACE INTO fs_unknown \
     (collection, id, scope, sum, pending, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const GRAVE_HEAD: &str =
    "SELECT scope, sum, pending FROM fs_graves WHERE collection = ?1 AND id = ?2";
const GRAVE: &str =
    "SELECT scope, sum, pending, state FROM fs_graves WHERE collection = ?1 AND id = ?2";
const UNKNOWN_HEAD: &str =
    "SELECT scope, sum, pending FROM fs_unknown WHERE collection = ?1 AND id = ?2";
const UNKNOWN: &str =
    "SELECT scope, sum, pending, state FROM fs_unknown WHERE collection = ?1 AND id = ?2";

impl<'a> Tx<'a> {
    /// What is beside a row's state; `None` where nothing is kept of the row.
    pub(super) fn head(&self, key: RowKey) -> Result<Option<Head>, Failure> {
        let found = match self.layout.collection(key.0) {
            Some(layout) => self
                .connection
                .prepare_cached(&layout.sql.head)?
                .query_row([key.1.as_bytes()], |row| Ok(read_head(row, Place::Typed)))
                .optional()?,
            None => self.side_head(UNKNOWN_HEAD, Place::Unknown, key)?,
        };
        match found {
            Some(head) => head.map(Some),
            None if self.known.has_graves => {
                self.side_head(GRAVE_HEAD, Place::Grave, key)?.transpose()
            }
            None => Ok(None),
        }
    }

    fn side_head(
        &self,
        sql: &str,
        place: Place,
        key: RowKey,
    ) -> Result<Option<Result<Head, Failure>>, Failure> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let head = statement
            .query_row(params![key.0.0, key.1.as_bytes()], |row| Ok(read_head(row, place)));
        Ok(head.optional()?)
    }

    /// A row; `None` where nothing is kept of it.
    pub(super) fn load(&self, key: RowKey) -> Result<Option<Stored>, Failure> {
        let found = match self.layout.collection(key.0) {
            Some(layout) => self.load_typed(layout, key.1)?,
            None => self.load_side(UNKNOWN, Place::Unknown, key)?,
        };
        match found {
            None if self.known.has_graves => self.load_side(GRAVE, Place::Grave, key),
            found => Ok(found),
        }
    }

    /// A live row of a collection that had no table until now.
    pub(super) fn load_unknown(&self, key: RowKey) -> Result<Option<Stored>, Failure> {
        self.load_side(UNKNOWN, Place::Unknown, key)
    }

    fn load_typed(&self, layout: &CollectionLayout, row: RowId) -> Result<Option<Stored>, Failure> {
        let mut statement = self.connection.prepare_cached(&layout.sql.load)?;
        let mut rows = statement.query([row.as_bytes()])?;
        let Some(found) = rows.next()? else { return Ok(None) };
        let head = read_head(found, Place::Typed)?;
        let meta = blob(found, 3)?;
        let visible = read_state(found, layout, meta, &|number| self.known.devices.id_of(number))?;
        Ok(Some(Stored { head, visible: Some(visible) }))
    }

    fn load_side(&self, sql: &str, place: Place, key: RowKey) -> Result<Option<Stored>, Failure> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![key.0.0, key.1.as_bytes()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let visible = match row.get_ref(3)? {
            ValueRef::Null => None,
            _ => Some(decode_state(blob(row, 3)?)?),
        };
        Ok(Some(Stored { head: read_head(row, place)?, visible }))
    }

    /// Puts a row where it belongs now, and takes it away from where it was.
    pub(super) fn save(
        &mut self,
        key: RowKey,
        was_in: Option<Place>,
        scope: Option<ScopeNumber>,
        sum: Option<Sum>,
        pending: Option<&Pending>,
        visible: Option<&RowState>,
    ) -> Result<(), Failure> {
        let layout = self.layout;
        let typed = layout.collection(key.0);
        let place = match (visible, typed) {
            (Some(state), Some(_)) if !state.is_deleted() => Some(Place::Typed),
            (Some(state), None) if !state.is_deleted() => Some(Place::Unknown),
            (None, _) if pending.is_none() => None,
            _ => Some(Place::Grave),
        };
        if let Some(was_in) = was_in
            && place != Some(was_in)
        {
            self.delete(key, was_in)?;
        }
        self.touch(key.0);
        match (place, typed, visible) {
            (Some(Place::Typed), Some(layout), Some(state)) => {
                self.save_typed(layout, key.1, scope, sum, pending, state)?;
                match was_in {
                    Some(Place::Typed) => {}
                    // Changes may have come while the row was in its grave, and its state there does not count them.
                    Some(_) => self.refresh_every_document(key, layout),
                    None => self.refresh_documents(key, state),
                }
            }
            (Some(place), ..) => {
                self.known.has_graves |= place == Place::Grave;
                let since_ms =
                    (place == Place::Grave).then(|| to_sql(self.known.progress.server_ms));
                let sql = if since_ms.is_some() { SAVE_GRAVE } else { SAVE_UNKNOWN };
                let mut statement = self.connection.prepare_cached(sql)?;
                statement.raw_bind_parameter(1, key.0.0)?;
                statement.raw_bind_parameter(2, &key.1.as_bytes()[..])?;
                statement.raw_bind_parameter(3, scope.map(|scope| scope.0))?;
                statement.raw_bind_parameter(4, sum.map(sum_to_sql))?;
                statement.raw_bind_parameter(5, pending.map(Pending::encode))?;
                statement.raw_bind_parameter(6, visible.map(RowState::encode))?;
                if let Some(since_ms) = since_ms {
                    statement.raw_bind_parameter(7, since_ms)?;
                }
                statement.raw_execute()?;
            }
            (None, ..) => {}
        }
        Ok(())
    }

    fn save_typed(
        &mut self,
        layout: &CollectionLayout,
        row: RowId,
        scope: Option<ScopeNumber>,
        sum: Option<Sum>,
        pending: Option<&Pending>,
        state: &RowState,
    ) -> Result<(), Failure> {
        let meta = row_meta::encode(state, layout, &mut self.devices())?;
        let mut statement = self.connection.prepare_cached(&layout.sql.save)?;
        bind_hidden(
            &mut statement,
            row,
            scope,
            sum,
            pending.map(Pending::encode).as_deref(),
            &meta,
        )?;
        bind_state(&mut statement, layout, state)?;
        statement.raw_execute()?;
        Ok(())
    }

    /// Inserts a live row of which nothing was kept; `false` where its id is there already.
    pub(super) fn insert_state(
        &mut self,
        layout: &CollectionLayout,
        row: RowId,
        scope: ScopeNumber,
        sum: Sum,
        state: &RowState,
    ) -> Result<bool, Failure> {
        let meta = row_meta::encode(state, layout, &mut self.devices())?;
        let mut statement = self.connection.prepare_cached(&layout.sql.insert)?;
        bind_hidden(&mut statement, row, Some(scope), Some(sum), None, &meta)?;
        bind_state(&mut statement, layout, state)?;
        let inserted = statement.raw_execute()? == 1;
        drop(statement);
        if inserted {
            self.touch(layout.id);
            self.refresh_documents((layout.id, row), state);
        }
        Ok(inserted)
    }

    /// Inserts a row that this device makes, in one statement and without a [`RowState`]; `false` where its id is
    /// there already.
    pub(super) fn insert_local(
        &mut self,
        layout: &'a CollectionLayout,
        row: RowId,
        scope: Option<ScopeNumber>,
        pending: &[u8],
        cells: &[(ColumnId, &Value)],
        stamp: Stamp,
    ) -> Result<bool, Failure> {
        let meta = row_meta::encode_single_write(cells, stamp, layout, &mut self.devices())?;
        let statement = self.inserting(layout)?;
        bind_hidden(statement, row, scope, None, Some(pending), &meta)?;
        bind_columns(statement, layout, &mut cells.iter().copied().peekable(), None)?;
        let inserted = statement.raw_execute()? == 1;
        self.touch(layout.id);
        Ok(inserted)
    }

    /// The statement that inserts into a collection, at hand for the next row.
    fn inserting(
        &mut self,
        layout: &'a CollectionLayout,
    ) -> Result<&mut CachedStatement<'a>, Failure> {
        let at_hand = self.at_hand.take().filter(|(collection, _)| *collection == layout.id);
        let (_, statement) = match at_hand {
            Some(at_hand) => self.at_hand.insert(at_hand),
            None => {
                let statement = self.connection.prepare_cached(&layout.sql.insert)?;
                self.at_hand.insert((layout.id, statement))
            }
        };
        Ok(statement)
    }

    /// Writes another sum beside a row, whose state stays as it is.
    pub(super) fn set_sum(&self, key: RowKey, place: Place, sum: Sum) -> Result<(), Failure> {
        let (sum, row) = (sum_to_sql(sum), key.1.as_bytes());
        match (place, self.layout.collection(key.0)) {
            (Place::Typed, layout) => {
                let table = layout.map(CollectionLayout::table).unwrap_or_default();
                let sql = format!("UPDATE \"{table}\" SET fs_sum = ?1 WHERE id = ?2");
                self.connection.prepare_cached(&sql)?.execute(params![sum, row])?;
            }
            (Place::Unknown | Place::Grave, _) => {
                let table = side_table(place);
                let sql = format!("UPDATE {table} SET sum = ?1 WHERE collection = ?2 AND id = ?3");
                self.connection.prepare_cached(&sql)?.execute(params![sum, key.0.0, row])?;
            }
        }
        Ok(())
    }

    fn delete(&self, key: RowKey, place: Place) -> Result<(), Failure> {
        match (place, self.layout.collection(key.0)) {
            (Place::Typed, Some(layout)) => {
                self.connection.prepare_cached(&layout.sql.delete)?.execute([key.1.as_bytes()])?;
            }
            (Place::Typed, None) => {}
            (Place::Unknown | Place::Grave, _) => {
                let table = side_table(place);
                let sql = format!("DELETE FROM {table} WHERE collection = ?1 AND id = ?2");
                self.connection
                    .prepare_cached(&sql)?
                    .execute(params![key.0.0, key.1.as_bytes()])?;
            }
        }
        Ok(())
    }
}

/// The table of rows that are not in one of a collection.
const fn side_table(place: Place) -> &'static str {
    match place {
        Place::Grave => "fs_graves",
        Place::Unknown | Place::Typed => "fs_unknown",
    }
}

fn read_head(row: &Row<'_>, place: Place) -> Result<Head, Failure> {
    let scope: Option<i64> = row.get(0)?;
    let sum: Option<[u8; 16]> = row.get(1)?;
    let pending = match row.get_ref(2)? {
        ValueRef::Null => None,
        _ => Some(Pending::decode(blob(row, 2)?)?),
    };
    Ok(Head { place, scope: scope.map(ScopeNumber), sum: sum.map(sum_from_sql), pending })
}

/// The row in a result of [`super::layout::CollectionSql::load`].
pub(super) fn read_state(
    row: &Row<'_>,
    layout: &CollectionLayout,
    meta: &[u8],
    device_of: &dyn Fn(u64) -> Option<farshore_sync_core::ids::DeviceId>,
) -> Result<RowState, Failure> {
    row_meta::decode(meta, layout, device_of, &|at| {
        let column = &layout.columns[at];
        let place = column.place.ok_or_else(|| Failure::damaged("a document among the values"))?;
        from_sql(column.column.column_type, row.get_ref(FIRST_COLUMN_RESULT + place)?)
    })
}

pub(super) fn blob<'r>(row: &'r Row<'_>, at: usize) -> Result<&'r [u8], Failure> {
    match row.get_ref(at)? {
        ValueRef::Blob(bytes) => Ok(bytes),
        other => Err(Failure::damaged(format!("{} where bytes should be", other.data_type()))),
    }
}

fn bind_hidden(
    statement: &mut CachedStatement<'_>,
    row: RowId,
    scope: Option<ScopeNumber>,
    sum: Option<Sum>,
    pending: Option<&[u8]>,
    meta: &[u8],
) -> Result<(), Failure> {
    statement.raw_bind_parameter(1, &row.as_bytes()[..])?;
    statement.raw_bind_parameter(2, scope.map(|scope| scope.0))?;
    statement.raw_bind_parameter(3, sum.map(sum_to_sql))?;
    statement.raw_bind_parameter(4, pending)?;
    statement.raw_bind_parameter(5, meta)?;
    Ok(())
}

fn bind_state(
    statement: &mut CachedStatement<'_>,
    layout: &CollectionLayout,
    state: &RowState,
) -> Result<(), Failure> {
    let mut cells = state.cells.iter().map(|cell| (cell.column, &cell.value)).peekable();
    bind_columns(statement, layout, &mut cells, Some(state))
}

/// Binds every column that a row is saved with: its cell, its default, or what a counter or set sums up to.
fn bind_columns<'v>(
    statement: &mut CachedStatement<'_>,
    layout: &CollectionLayout,
    cells: &mut Peekable<impl Iterator<Item = (ColumnId, &'v Value)>>,
    collected: Option<&RowState>,
) -> Result<(), Failure> {
    for column in &layout.columns {
        let Some(place) = column.place else { continue };
        let parameter = FIRST_COLUMN_PARAMETER + place;
        while cells.next_if(|(cell, _)| *cell < column.id).is_some() {}
        match column.column.column_type {
            ColumnType::Counter => {
                let sum = collected.map_or(0, |state| state.counter(column.id));
                statement.raw_bind_parameter(parameter, sum)?;
            }
            ColumnType::Set => {
                let json = collected
                    .map_or_else(|| "[]".to_owned(), |state| set_json(state.set(column.id)));
                statement.raw_bind_parameter(parameter, json)?;
            }
            column_type => {
                let cell = cells.next_if(|(cell, _)| *cell == column.id).map(|(_, value)| value);
                let value = match cell {
                    None => &column.default,
                    Some(value) if fits(column_type, value) => value,
                    Some(_) => &Value::Null,
                };
                statement.raw_bind_parameter(parameter, SqlParameter(value))?;
            }
        }
    }
    Ok(())
}

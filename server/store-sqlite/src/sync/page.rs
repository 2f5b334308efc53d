//! Pages of changes.

use farshore_store::page::{PageFill, Room, deletion_stamp};
use farshore_store::sync::{
    ChangedRow, Chunk, PageRead, PageRequest, RowChange, RowKey, ScopeRead,
};
use farshore_store::sync_core::digest::Totals;
use farshore_store::sync_core::ids::{CollectionId, ColumnId, RowId};
use rusqlite::{Connection, Row, Transaction, params};

use super::{load, standing, sums};
use crate::failure::Failure;
use crate::place::Place;
use crate::tenant::OpenTenant;

const LIVING: u8 = 0;
const DELETED: u8 = 1;

pub(super) fn read(
    tenant: &OpenTenant,
    snapshot: &Transaction<'_>,
    request: &PageRequest,
) -> Result<PageRead, Failure> {
    let mut page = PageFill::new(request, standing::read(snapshot)?.head);
    for read in &request.scopes {
        let number = tenant.scopes.number(snapshot, &read.scope)?;
        if let Some(number) = number
            && fill(snapshot, &mut page, read, number)? == Room::Full
        {
            break;
        }
        page.exhausted();
    }
    let totals = match page.is_complete() {
        true => sums::totals(tenant, snapshot, request.scopes.iter().map(|read| &read.scope))?,
        false => Totals::new(),
    };
    Ok(page.finish(totals))
}

/// Takes the changes of one scope until there are no more or the page is full.
fn fill(
    snapshot: &Connection,
    page: &mut PageFill,
    read: &ScopeRead,
    number: i64,
) -> Result<Room, Failure> {
    let query = "SELECT place, kind, collection, id, document, state FROM changes \
        WHERE place BETWEEN ?1 AND ?2 ORDER BY place";
    let mut statement = snapshot.prepare_cached(query)?;
    let places = Place::after(number, read.after)?;
    let mut rows = statement.query(params![places.start(), places.end()])?;
    while let Some(row) = rows.next()? {
        if page.room() == Room::Full {
            return Ok(Room::Full);
        }
        page.push(changed_row(snapshot, read, row)?);
    }
    Ok(Room::Left)
}

fn changed_row(
    snapshot: &Connection,
    read: &ScopeRead,
    row: &Row<'_>,
) -> Result<ChangedRow, Failure> {
    let mut chunks = Vec::new();
    let change = match row.get(1)? {
        LIVING => {
            if let Some(document) = row.get(4)? {
                chunks = chunks_after(snapshot, document, read.changes_after)?;
            }
            RowChange::State(row.get(5)?)
        }
        DELETED => RowChange::Deleted(deletion_stamp(&row.get::<_, Vec<u8>>(5)?)?),
        _ => RowChange::Departed,
    };
    Ok(ChangedRow {
        seq: row.get::<_, Place>(0)?.seq(),
        scope: read.scope.clone(),
        collection: CollectionId(row.get(2)?),
        row: RowId::from_bytes(row.get(3)?),
        change,
        chunks,
    })
}

/// All document changes of a row.
pub(super) fn all_chunks(snapshot: &Connection, key: RowKey) -> Result<Vec<Chunk>, Failure> {
    match load::row(snapshot, key)?.and_then(|(row, _)| row.document) {
        Some(document) => chunks_after(snapshot, document, 0),
        None => Ok(Vec::new()),
    }
}

/// The document changes of a row after a seq. Within a row the seq rises with the number.
fn chunks_after(snapshot: &Connection, document: i64, after: u64) -> Result<Vec<Chunk>, Failure> {
    let query = "SELECT column_id, bytes FROM chunks WHERE document = ?1 AND seq > ?2 \
        ORDER BY seq, number";
    let mut statement = snapshot.prepare_cached(query)?;
    let chunks = statement.query_map(params![document, after.cast_signed()], |row| {
        Ok(Chunk { column: ColumnId(row.get(0)?), bytes: row.get(1)? })
    })?;
    Ok(chunks.collect::<Result<_, _>>()?)
}

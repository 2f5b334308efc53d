//! Loading what a commit needs.

use std::collections::HashMap;

use farshore_store::plan::{ChangeKey, DeviceMark, Loaded, Needs, StoredOutcome, StoredRow};
use farshore_store::sync::RowKey;
use farshore_store::sync_core::hlc::Hlc;
use farshore_store::sync_core::ids::DeviceId;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::unwritten::Unwritten;
use crate::failure::Failure;
use crate::place::Place;
use crate::tenant::OpenTenant;

/// Where the rows are that a commit loaded.
pub(super) type Known = HashMap<RowKey, KnownRow>;

/// Where a row is.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownRow {
    pub place: Place,
    pub document: Option<i64>,
}

pub(super) fn load(
    tenant: &OpenTenant,
    database: &Connection,
    needs: &Needs,
    unwritten: &Unwritten,
) -> Result<(Loaded, Known), Failure> {
    let mut loaded = Loaded::default();
    let mut known = Known::new();
    for key in &needs.rows {
        if let Some((row, state)) = row(database, *key)? {
            let scope = tenant.scopes.scope(database, row.place.scope())?;
            loaded.rows.insert(*key, StoredRow { scope, state });
            known.insert(*key, row);
        }
    }
    for device in &needs.devices {
        if let Some(mark) = unwritten.mark(database, *device)? {
            loaded.devices.insert(*device, mark);
        }
    }
    for (device, number) in &needs.outcomes {
        let is_answered = |mark: &DeviceMark| *number <= mark.high_water;
        if loaded.devices.get(device).is_some_and(is_answered)
            && let Some(outcome) = unwritten.outcome(database, *device, *number)?
        {
            loaded.outcomes.insert((*device, *number), outcome);
        }
    }
    for change in &needs.changes {
        let document = known.get(&change.0).and_then(|row| row.document);
        if let Some(document) = document
            && has_change(database, document, change)?
        {
            loaded.changes.insert(*change);
        }
    }
    Ok((loaded, known))
}

/// A row, living or deleted, with its canonical bytes.
pub(super) fn row(
    database: &Connection,
    key: RowKey,
) -> Result<Option<(KnownRow, Vec<u8>)>, Failure> {
    let query = "SELECT place, document, state FROM changes \
        WHERE collection = ?1 AND id = ?2 AND kind < 2";
    let mut statement = database.prepare_cached(query)?;
    let row = statement.query_row(params![key.0.0, key.1.as_bytes()], |row| {
        Ok((KnownRow { place: row.get(0)?, document: row.get(1)? }, row.get(2)?))
    });
    Ok(row.optional()?)
}

pub(super) fn mark(database: &Connection, device: DeviceId) -> Result<Option<DeviceMark>, Failure> {
    let query = "SELECT high_water, settled, last_stamp FROM marks WHERE device = ?1";
    let mut statement = database.prepare_cached(query)?;
    let mark = statement.query_row([device.as_bytes()], |row| {
        let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let last_stamp = Hlc(number(2)?);
        Ok(DeviceMark { high_water: number(0)?, settled: number(1)?, last_stamp })
    });
    Ok(mark.optional()?)
}

pub(super) fn outcome(
    database: &Connection,
    device: DeviceId,
    number: u64,
) -> Result<Option<StoredOutcome>, Failure> {
    let query = "SELECT content, answer FROM outcomes WHERE device = ?1 AND number = ?2";
    let mut statement = database.prepare_cached(query)?;
    let stored = statement.query_row(params![device.as_bytes(), number.cast_signed()], |row| {
        Ok(StoredOutcome::from_stored(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?))
    });
    match stored.optional()? {
        Some(None) => Err(Failure::Damaged(format!("the answer to transaction {number}"))),
        Some(outcome) => Ok(outcome),
        None => Ok(None),
    }
}

fn has_change(
    database: &Connection,
    document: i64,
    (_, column, hash): &ChangeKey,
) -> Result<bool, Failure> {
    let query = "SELECT 1 FROM chunks WHERE document = ?1 AND column_id = ?2 AND hash = ?3";
    Ok(database.prepare_cached(query)?.exists(params![document, column.0, hash.0])?)
}

//! Loading what a commit needs, in one statement, and another one where something is pushed again.

use std::collections::{BTreeSet, HashMap};

use farshore_store::plan::{DeviceMark, Loaded, Needs, StoredOutcome, StoredRow};
use farshore_store::sync::{DeviceProgress, RowKey};
use farshore_store::sync_core::document::ChangeHash;
use farshore_store::sync_core::hlc::Hlc;
use farshore_store::sync_core::ids::{CollectionId, ColumnId, DeviceId, RowId, Scope};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::sums::{self, LoadedParts, PartKey};
use crate::database::Transaction;
use crate::failure::Failure;
use crate::names::Names;
use crate::query::{Parts, Query};

// What a row of the answer is, in its first column. The others are three numbers, two byte strings and a text.
const ROW: i32 = 0;
const MARK: i32 = 1;
const CHANGE: i32 = 2;
const SCHEMA: i32 = 3;
const SUMS: i32 = 4;

// Each of what is asked for is looked up by itself (`OFFSET 0` keeps it so), whatever the statistics say of a table that
// has just grown. What names many tables takes longer to plan than to run: nothing is here that is rarely needed.
const ROWS: &str = "SELECT 0, r.collection::bigint, r.document, NULL::bigint, r.id, r.state, r.scope \
    FROM unnest($1::integer[], $2::bytea[]) AS n(collection, id), \
    LATERAL (SELECT r.collection, r.document, r.id, r.state, r.scope FROM main.changes r \
        WHERE r.collection = n.collection AND r.id = n.id AND r.kind < 2 OFFSET 0) r";
const MARKS: &str = "SELECT 1, m.high_water, m.settled, m.last_stamp, m.device, NULL, NULL \
    FROM main.marks m WHERE m.device = ANY($1::bytea[])";
const CHANGES: &str = "SELECT 2, n.collection::bigint, n.column_id::bigint, NULL, n.id, n.hash, NULL \
    FROM unnest($1::integer[], $2::bytea[], $3::integer[], $4::bytea[]) \
        AS n(collection, id, column_id, hash), \
    LATERAL (SELECT r.document FROM main.changes r \
        WHERE r.collection = n.collection AND r.id = n.id AND r.kind < 2 OFFSET 0) r, \
    LATERAL (SELECT FROM main.chunks k WHERE k.document = r.document \
        AND k.column_id = n.column_id AND k.hash = n.hash OFFSET 0) k";
const NEWEST_SCHEMA: &str = "SELECT 3, s.version, NULL, NULL, NULL, NULL, NULL \
    FROM (SELECT version FROM main.schemas ORDER BY version DESC LIMIT 1) s";
const OUTCOMES: &str = "SELECT o.device, o.number, o.content, o.answer \
    FROM unnest($1::bytea[], $2::bigint[]) AS n(device, number), \
    LATERAL (SELECT o.device, o.number, o.content, o.answer FROM main.outcomes o \
        WHERE o.device = n.device AND o.number = n.number OFFSET 0) o";

/// Under which number the changes of a row's documents lie.
pub(super) type Documents = HashMap<RowKey, i64>;

/// What was loaded.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub loaded: Loaded,
    pub documents: Documents,
    /// The version of the newest schema.
    pub schema_version: Option<u64>,
    pub sums: LoadedParts,
}

pub(super) async fn load(
    names: &Names,
    transaction: &mut Transaction,
    needs: &Needs,
    candidates: BTreeSet<PartKey>,
) -> Result<Load, Failure> {
    let mut parts = Parts::new(" UNION ALL ");
    let collections: Vec<i32> =
        needs.rows.iter().map(|(collection, _)| collection.0.into()).collect();
    let ids: Vec<&[u8]> = needs.rows.iter().map(|(_, id)| &id.as_bytes()[..]).collect();
    parts.part(&names.qualify(ROWS)).bind(collections).bind(ids);
    let devices: Vec<&[u8]> = needs.devices.iter().map(|device| &device.as_bytes()[..]).collect();
    parts.part(&names.qualify(MARKS)).bind(devices);
    if !needs.changes.is_empty() {
        let changes = || needs.changes.iter();
        let collections: Vec<i32> = changes().map(|((row, _), ..)| row.0.into()).collect();
        let ids: Vec<&[u8]> = changes().map(|((_, id), ..)| &id.as_bytes()[..]).collect();
        let columns: Vec<i32> = changes().map(|(_, column, _)| column.0.into()).collect();
        let hashes: Vec<&[u8]> = changes().map(|(_, _, hash)| &hash.0[..]).collect();
        let part = parts.part(&names.qualify(CHANGES));
        part.bind(collections).bind(ids).bind(columns).bind(hashes);
    }
    parts.part(&names.qualify(NEWEST_SCHEMA));
    if !candidates.is_empty() {
        let (scopes, collections, numbers) = sums::part_keys(candidates.iter());
        let select = format!(
            "SELECT {SUMS}, s.collection::bigint, s.part::bigint, NULL, NULL, s.sums, s.scope {}",
            sums::SELECT_PARTS
        );
        parts.part(&names.qualify(&select)).bind(scopes).bind(collections).bind(numbers);
    }
    let mut load = Load::default();
    load.sums.candidates = candidates;
    for row in transaction.rows(parts.into_query()).await? {
        take(&mut load, &row)?;
    }
    load.loaded.outcomes = outcomes(names, transaction, needs, &load.loaded.devices).await?;
    Ok(load)
}

/// The answers to what was pushed before and is pushed again.
async fn outcomes(
    names: &Names,
    transaction: &mut Transaction,
    needs: &Needs,
    marks: &HashMap<DeviceId, DeviceMark>,
) -> Result<HashMap<(DeviceId, u64), StoredOutcome>, Failure> {
    let is_answered =
        |device, number| marks.get(device).is_some_and(|mark| number <= mark.high_water);
    let (devices, numbers): (Vec<&[u8]>, Vec<i64>) = needs
        .outcomes
        .iter()
        .filter(|(device, number)| is_answered(device, *number))
        .map(|(device, number)| (&device.as_bytes()[..], number.cast_signed()))
        .unzip();
    if devices.is_empty() {
        return Ok(HashMap::new());
    }
    let query = Query::new(names.qualify(OUTCOMES)).bind(devices).bind(numbers);
    let rows = transaction.rows(query).await?;
    let outcome = |row: &PgRow| {
        let number = row.try_get::<i64, _>(1)?.cast_unsigned();
        let outcome = StoredOutcome::from_stored(row.try_get(2)?, row.try_get(3)?)
            .ok_or_else(|| Failure::Damaged(format!("the answer to transaction {number}")))?;
        Ok(((DeviceId::from_bytes(row.try_get(0)?), number), outcome))
    };
    rows.iter().map(outcome).collect()
}

fn take(load: &mut Load, row: &PgRow) -> Result<(), Failure> {
    match row.try_get(0)? {
        ROW => {
            let key = (collection(row.try_get(1)?)?, RowId::from_bytes(row.try_get(4)?));
            let document: Option<i64> = row.try_get(2)?;
            load.documents.extend(document.map(|document| (key, document)));
            let stored = StoredRow { scope: scope(row.try_get(6)?)?, state: row.try_get(5)? };
            load.loaded.rows.insert(key, stored);
        }
        MARK => {
            let number = |column: usize| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
            let last_stamp = Hlc(number(3)?);
            let mark = DeviceMark { high_water: number(1)?, settled: number(2)?, last_stamp };
            load.loaded.devices.insert(DeviceId::from_bytes(row.try_get(4)?), mark);
        }
        CHANGE => {
            let key = (collection(row.try_get(1)?)?, RowId::from_bytes(row.try_get(4)?));
            let change = (key, column(row.try_get(2)?)?, ChangeHash(row.try_get(5)?));
            load.loaded.changes.insert(change);
        }
        SUMS => {
            let (name, collection) = (row.try_get(6)?, row.try_get(1)?);
            let (key, part) =
                sums::stored_part(name, collection, row.try_get(2)?, row.try_get(5)?)?;
            load.sums.stored.insert(key, part);
        }
        SCHEMA => {
            let version: Option<i64> = row.try_get(1)?;
            load.schema_version = version.map(i64::cast_unsigned);
        }
        other => return Err(Failure::Damaged(format!("a row of kind {other}"))),
    }
    Ok(())
}

/// What is known of a device's transactions, and the version of the newest schema, which is 0 before the first.
pub(super) async fn progress(
    names: &Names,
    transaction: &mut Transaction,
    device: DeviceId,
) -> Result<(DeviceProgress, u32), Failure> {
    let query = "SELECT coalesce(max(s.version), 0), max(m.high_water), max(m.settled) \
        FROM (SELECT max(version) AS version FROM main.schemas) s \
        LEFT JOIN main.marks m ON m.device = $1";
    let query = Query::new(names.qualify(query)).bind(&device.as_bytes()[..]);
    let row = transaction.rows(query).await?.pop().ok_or(sqlx::Error::RowNotFound)?;
    let number = |column: usize| {
        let number: Option<i64> = row.try_get(column)?;
        Ok::<_, sqlx::Error>(number.unwrap_or_default().cast_unsigned())
    };
    let version = u32::try_from(number(0)?);
    let version = version.map_err(|_| Failure::Damaged("the version of a schema".to_owned()))?;
    Ok((DeviceProgress { high_water: number(1)?, settled: number(2)? }, version))
}

pub(super) fn scope(name: &str) -> Result<Scope, Failure> {
    name.parse().map_err(|error| Failure::Damaged(format!("{error}")))
}

pub(super) fn collection(number: i64) -> Result<CollectionId, Failure> {
    let number = u16::try_from(number);
    number.map(CollectionId).map_err(|_| Failure::Damaged("the number of a collection".to_owned()))
}

pub(super) fn column(number: i64) -> Result<ColumnId, Failure> {
    let number = u16::try_from(number);
    number.map(ColumnId).map_err(|_| Failure::Damaged("the number of a column".to_owned()))
}

//! The sums by which a device and the server compare what they hold.

use std::collections::BTreeMap;

use farshore_store::scrub::{AllBuckets, Recount};
use farshore_store::sync::BucketRow;
use farshore_store::sync_core::digest::{Buckets, SUM_BYTES, Sum, Totals};
use farshore_store::sync_core::ids::{CollectionId, RowId, Scope};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::standing;
use crate::failure::Failure;
use crate::place::Place;
use crate::tenant::OpenTenant;

const COLLECTION_BITS: u32 = u16::BITS;

const UPDATE: &str = "UPDATE sums SET total = ?2, buckets = ?3 WHERE place = ?1";
const INSERT: &str = "INSERT INTO sums (place, total, buckets) VALUES (?1, ?2, ?3)";

/// Where the sums of one collection in one scope lie.
pub(super) const fn place(scope: i64, collection: CollectionId) -> i64 {
    (scope << COLLECTION_BITS) | collection.0 as i64
}

pub(super) const fn collection_at(place: i64) -> CollectionId {
    // The cast keeps the low bits, which are the collection's.
    CollectionId(place as u16)
}

/// The sums of one collection in one scope, as they are to be.
#[derive(Debug)]
pub(super) struct StandingSums {
    buckets: Buckets,
    are_in_table: bool,
}

impl StandingSums {
    /// Those that lie at a place.
    pub fn load(database: &Connection, place: i64) -> Result<Self, Failure> {
        let stored = stored(database, place)?;
        Ok(Self { are_in_table: stored.is_some(), buckets: stored.unwrap_or_default() })
    }

    /// Adds changes.
    pub fn add(&mut self, changes: &BTreeMap<u8, Sum>) {
        for (bucket, change) in changes {
            self.buckets.bucket_mut(*bucket).add(*change);
        }
    }

    /// Writes them to their place.
    pub fn write(&self, database: &Connection, place: i64) -> Result<(), Failure> {
        let put = if self.are_in_table { UPDATE } else { INSERT };
        let total = self.buckets.total().0.to_le_bytes();
        database.prepare_cached(put)?.execute(params![place, total, self.buckets.to_bytes()])?;
        Ok(())
    }
}

/// Adds changes to the sums that lie at a place.
pub(super) fn add(
    database: &Connection,
    place: i64,
    changes: &BTreeMap<u8, Sum>,
) -> Result<(), Failure> {
    let mut sums = StandingSums::load(database, place)?;
    sums.add(changes);
    sums.write(database, place)
}

/// The sums of one collection in one scope.
pub(super) fn read(
    database: &Connection,
    scope: i64,
    collection: CollectionId,
) -> Result<Buckets, Failure> {
    Ok(stored(database, place(scope, collection))?.unwrap_or_default())
}

fn stored(database: &Connection, place: i64) -> Result<Option<Buckets>, Failure> {
    let mut get = database.prepare_cached("SELECT buckets FROM sums WHERE place = ?1")?;
    let stored = get.query_row([place], |row| Ok(Buckets::from_bytes(row.get_ref(0)?.as_blob()?)));
    stored.optional()?.map(|buckets| buckets.ok_or_else(damaged)).transpose()
}

/// The places of all collections in a scope.
pub(super) const fn places(scope: i64) -> [i64; 2] {
    [place(scope, CollectionId(0)), place(scope, CollectionId(u16::MAX))]
}

/// The totals of every collection in some scopes.
pub(super) fn totals<'a>(
    tenant: &OpenTenant,
    snapshot: &Connection,
    scopes: impl Iterator<Item = &'a Scope>,
) -> Result<Totals, Failure> {
    let mut totals = Totals::new();
    let query = "SELECT place, total FROM sums WHERE place BETWEEN ?1 AND ?2";
    for_each_collection(tenant, snapshot, query, scopes, |scope, collection, row| {
        let total: [u8; SUM_BYTES] = row.get(1)?;
        totals.insert((scope.clone(), collection), Sum(u128::from_le_bytes(total)));
        Ok(())
    })?;
    Ok(totals)
}

/// The buckets of every collection in some scopes.
pub(super) fn buckets(
    tenant: &OpenTenant,
    snapshot: &Connection,
    scopes: &[Scope],
) -> Result<AllBuckets, Failure> {
    let mut all = AllBuckets::new();
    let query = "SELECT place, buckets FROM sums WHERE place BETWEEN ?1 AND ?2";
    for_each_collection(tenant, snapshot, query, scopes.iter(), |scope, collection, row| {
        let bytes: Vec<u8> = row.get(1)?;
        let buckets = Buckets::from_bytes(&bytes).ok_or_else(damaged)?;
        all.insert((scope.clone(), collection), buckets);
        Ok(())
    })?;
    Ok(all)
}

fn for_each_collection<'a>(
    tenant: &OpenTenant,
    snapshot: &Connection,
    query: &'static str,
    scopes: impl Iterator<Item = &'a Scope>,
    mut take: impl FnMut(&Scope, CollectionId, &Row<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut statement = snapshot.prepare_cached(query)?;
    for scope in scopes {
        let Some(number) = tenant.scopes.number(snapshot, scope)? else { continue };
        let mut rows = statement.query(places(number))?;
        while let Some(row) = rows.next()? {
            take(scope, collection_at(row.get(0)?), row)?;
        }
    }
    Ok(())
}

/// The live rows of one bucket, by id.
pub(super) fn bucket_rows(
    tenant: &OpenTenant,
    snapshot: &Connection,
    scope: &Scope,
    collection: CollectionId,
    bucket: u8,
) -> Result<Vec<BucketRow>, Failure> {
    let Some(number) = tenant.scopes.number(snapshot, scope)? else { return Ok(Vec::new()) };
    let query = "SELECT id, state FROM changes WHERE place BETWEEN ?1 AND ?2 \
        AND kind = 0 AND collection = ?3 AND substr(id, -1) = ?4 ORDER BY id";
    let mut statement = snapshot.prepare_cached(query)?;
    let places = Place::after(number, 0)?;
    let values = params![places.start(), places.end(), collection.0, [bucket]];
    let rows = statement.query_map(values, |row| {
        Ok(BucketRow { row: RowId::from_bytes(row.get(0)?), state: row.get(1)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The buckets whose stored sums differ from the rows.
pub(super) fn scrub(
    tenant: &OpenTenant,
    snapshot: &Transaction<'_>,
) -> Result<Vec<(Scope, CollectionId, u8)>, Failure> {
    let mut recount = Recount::new(standing::read(snapshot)?.digest_key);
    let query = "SELECT place, collection, id, state FROM changes WHERE kind = 0";
    let mut statement = snapshot.prepare(query)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let scope = tenant.scopes.scope(snapshot, row.get::<_, Place>(0)?.scope())?;
        let key = (CollectionId(row.get(1)?), RowId::from_bytes(row.get(2)?));
        recount.count(scope, key, &row.get::<_, Vec<u8>>(3)?);
    }
    Ok(recount.differing(&buckets(tenant, snapshot, &every_scope(snapshot)?)?))
}

fn every_scope(snapshot: &Connection) -> Result<Vec<Scope>, Failure> {
    let mut statement = snapshot.prepare("SELECT name FROM scopes")?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    names.map(|name| name?.parse().map_err(|error| Failure::Damaged(format!("{error}")))).collect()
}

pub(super) fn damaged() -> Failure {
    Failure::Damaged("the sums of a collection have another length".to_owned())
}

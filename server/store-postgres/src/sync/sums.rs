//! The sums by which a device and the server compare what they hold.

use std::collections::{BTreeMap, BTreeSet};

use farshore_store::scrub::{AllBuckets, Recount};
use farshore_store::sync::{BucketRow, RowKey};
use farshore_store::sync_core::digest::{
    BUCKETS, Buckets, DigestKey, SUM_BYTES, Sum, Totals, bucket_of,
};
use farshore_store::sync_core::ids::{CollectionId, RowId, Scope};
use futures_util::TryStreamExt as _;
use sqlx::Row as _;

use super::load::{collection, scope};
use crate::database::Transaction;
use crate::failure::Failure;
use crate::names::Names;
use crate::query::{self, Query};

/// Buckets of one stored part.
const BUCKETS_PER_PART: usize = 64;
/// Most parts that are loaded before it is known whether they change.
const MAX_CANDIDATES: usize = 64;
/// Parts of the sums of one collection in one scope.
const PARTS: usize = BUCKETS / BUCKETS_PER_PART;

/// A part of the sums of one collection in one scope.
pub(super) type PartKey = (Scope, CollectionId, u8);

/// The sums of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part([Sum; BUCKETS_PER_PART]);

/// What was loaded of the sums before it was known which of them change.
#[derive(Debug, Default)]
pub(super) struct LoadedParts {
    /// What was asked for.
    pub candidates: BTreeSet<PartKey>,
    /// What of it is stored; the rest is zero.
    pub stored: Parts,
}

impl Part {
    const ZERO: Self = Self([Sum(0); BUCKETS_PER_PART]);

    fn from_bytes(bytes: &[u8]) -> Result<Self, Failure> {
        let mut part = Self::ZERO;
        if bytes.len() != BUCKETS_PER_PART * SUM_BYTES {
            return Err(damaged());
        }
        for (sum, bytes) in part.0.iter_mut().zip(bytes.chunks_exact(SUM_BYTES)) {
            *sum = sum_of(bytes)?;
        }
        Ok(part)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|sum| sum.0.to_le_bytes()).collect()
    }

    pub fn total(&self) -> [u8; SUM_BYTES] {
        let total = self.0.iter().fold(0_u128, |total, sum| total.wrapping_add(sum.0));
        total.to_le_bytes()
    }
}

/// The stored parts of some sums; those that are not stored yet are zero.
pub(super) type Parts = BTreeMap<PartKey, Part>;

/// What selects stored parts by scope, collection and number.
pub(super) const SELECT_PARTS: &str = "FROM unnest($1::text[], $2::integer[], $3::smallint[]) \
        AS n(scope, collection, part), \
    LATERAL (SELECT s.scope, s.collection, s.part, s.sums FROM main.sums s WHERE s.scope = n.scope \
        AND s.collection = n.collection AND s.part = n.part OFFSET 0) s";

/// The values for [`SELECT_PARTS`].
pub(super) fn part_keys<'a>(
    keys: impl Iterator<Item = &'a PartKey> + Clone,
) -> (Vec<&'a str>, Vec<i32>, Vec<i16>) {
    let scopes = keys.clone().map(|(scope, ..)| scope.as_str()).collect();
    let collections = keys.clone().map(|(_, collection, _)| collection.0.into()).collect();
    (scopes, collections, keys.map(|(.., part)| (*part).into()).collect())
}

/// The parts of which a commit may change the sums, unless they are many: those of the rows that it touches, in every
/// scope in which one of its devices may write. A row is in such a scope before and after it is written.
pub(super) fn candidates<'a>(
    rows: impl Iterator<Item = &'a RowKey> + Clone,
    scopes: &BTreeSet<Scope>,
) -> BTreeSet<PartKey> {
    let places: BTreeSet<(CollectionId, u8)> =
        rows.map(|(collection, row)| (*collection, part_of(bucket_of(*row)).0)).collect();
    if places.len() * scopes.len() > MAX_CANDIDATES {
        return BTreeSet::new();
    }
    scopes
        .iter()
        .flat_map(|scope| {
            places.iter().map(|(collection, part)| (scope.clone(), *collection, *part))
        })
        .collect()
}

/// The parts that change, as they are after the change. Those that were not loaded before are read now.
pub(super) async fn changed(
    names: &Names,
    transaction: &mut Transaction,
    digests: &BTreeMap<(Scope, CollectionId), BTreeMap<u8, Sum>>,
    loaded: &LoadedParts,
) -> Result<Parts, Failure> {
    let keys = digests.iter().flat_map(|((scope, collection), changes)| {
        changes.keys().map(|bucket| (scope.clone(), *collection, part_of(*bucket).0))
    });
    let mut parts: Parts = keys.map(|key| (key, Part::ZERO)).collect();
    let missing: Vec<&PartKey> =
        parts.keys().filter(|key| !loaded.candidates.contains(*key)).collect();
    let mut stored = Vec::new();
    if !missing.is_empty() {
        let (scopes, collections, numbers) = part_keys(missing.iter().copied());
        let query =
            format!("SELECT s.scope, s.collection::bigint, s.part::bigint, s.sums {SELECT_PARTS}");
        let query = Query::new(names.qualify(&query)).bind(scopes).bind(collections).bind(numbers);
        for row in transaction.rows(query).await? {
            stored.push(stored_part(
                row.try_get(0)?,
                row.try_get(1)?,
                row.try_get(2)?,
                row.try_get(3)?,
            )?);
        }
    }
    for (key, part) in stored.iter().map(|(key, part)| (key, part)).chain(&loaded.stored) {
        if let Some(place) = parts.get_mut(key) {
            place.clone_from(part);
        }
    }
    for ((scope, collection), changes) in digests {
        for (bucket, change) in changes {
            let (number, within) = part_of(*bucket);
            let part = parts.get_mut(&(scope.clone(), *collection, number));
            part.expect("every part that changes is there").0[within].add(*change);
        }
    }
    Ok(parts)
}

/// A part as it is stored.
pub(super) fn stored_part(
    name: &str,
    number_of_collection: i64,
    number: i64,
    sums: &[u8],
) -> Result<(PartKey, Part), Failure> {
    let number = u8::try_from(number).map_err(|_| damaged())?;
    Ok(((scope(name)?, collection(number_of_collection)?, number), Part::from_bytes(sums)?))
}

/// In which part a bucket is, and where in it.
fn part_of(bucket: u8) -> (u8, usize) {
    const PER_PART: u8 = BUCKETS_PER_PART as u8;
    (bucket / PER_PART, usize::from(bucket % PER_PART))
}

/// The totals of every collection in some scopes.
pub(super) async fn totals(
    names: &Names,
    transaction: &mut Transaction,
    scopes: &[&str],
) -> Result<Totals, Failure> {
    let query = "SELECT scope, collection, total FROM main.sums WHERE scope = ANY($1::text[])";
    let mut totals = Totals::new();
    for row in transaction.rows(Query::new(names.qualify(query)).bind(scopes)).await? {
        let place = (scope(row.try_get(0)?)?, collection(row.try_get::<i32, _>(1)?.into())?);
        totals.entry(place).or_default().add(sum_of(row.try_get(2)?)?);
    }
    Ok(totals)
}

/// The buckets of every collection in some scopes.
pub(super) async fn buckets(
    names: &Names,
    transaction: &mut Transaction,
    scopes: &[Scope],
) -> Result<AllBuckets, Failure> {
    let scopes: Vec<&str> = scopes.iter().map(Scope::as_str).collect();
    let query = "SELECT scope, collection, part, sums FROM main.sums WHERE scope = ANY($1::text[])";
    let mut all = AllBuckets::new();
    for row in transaction.rows(Query::new(names.qualify(query)).bind(scopes)).await? {
        let place = (scope(row.try_get(0)?)?, collection(row.try_get::<i32, _>(1)?.into())?);
        take_part(all.entry(place).or_default(), row.try_get(2)?, row.try_get(3)?)?;
    }
    Ok(all)
}

pub(super) fn take_part(buckets: &mut Buckets, number: i16, bytes: &[u8]) -> Result<(), Failure> {
    let number = usize::try_from(number).ok().filter(|number| *number < PARTS);
    let first = number.ok_or_else(damaged)? * BUCKETS_PER_PART;
    for (bucket, sum) in (first..).zip(Part::from_bytes(bytes)?.0) {
        let bucket = u8::try_from(bucket).expect("the last part ends with the last bucket");
        *buckets.bucket_mut(bucket) = sum;
    }
    Ok(())
}

const PUT_PARTS: &str = "INSERT INTO main.sums (scope, collection, part, total, sums) \
    SELECT * FROM unnest($1::text[], $2::integer[], $3::smallint[], $4::bytea[], $5::bytea[]) \
    ON CONFLICT (scope, collection, part) \
    DO UPDATE SET total = excluded.total, sums = excluded.sums";

/// Adds what writes parts as they are now to a statement: as a part of it of that name, or as all of it.
pub(super) fn put(statement: &mut query::Parts, name: Option<&str>, parts: &Parts) {
    let (scopes, collections, numbers) = part_keys(parts.keys());
    let totals: Vec<_> = parts.values().map(Part::total).collect();
    let bytes: Vec<_> = parts.values().map(Part::to_bytes).collect();
    let put = name.map_or(PUT_PARTS.to_owned(), |name| format!("{name} AS ({PUT_PARTS})"));
    let put = statement.part(&put).bind(scopes).bind(collections).bind(numbers);
    put.bind(totals).bind(bytes);
}

/// The live rows of one bucket, by id.
pub(super) async fn bucket_rows(
    names: &Names,
    transaction: &mut Transaction,
    scope: &Scope,
    collection: CollectionId,
    bucket: u8,
) -> Result<Vec<BucketRow>, Failure> {
    let query = "SELECT id, state FROM main.changes WHERE scope = $1 AND kind = 0 \
        AND collection = $2 AND get_byte(id, 15) = $3 ORDER BY id";
    let query = Query::new(names.qualify(query))
        .bind(scope.as_str())
        .bind(i32::from(collection.0))
        .bind(i32::from(bucket));
    let rows = transaction.rows(query).await?;
    let row = |row: &sqlx::postgres::PgRow| {
        Ok(BucketRow { row: RowId::from_bytes(row.try_get(0)?), state: row.try_get(1)? })
    };
    rows.iter().map(row).collect()
}

/// The buckets whose stored sums differ from the rows, which are read one by one.
pub(super) async fn scrub(
    names: &Names,
    transaction: &mut Transaction,
    digest_key: DigestKey,
) -> Result<Vec<(Scope, CollectionId, u8)>, Failure> {
    let mut recount = Recount::new(digest_key);
    let query = "SELECT scope, collection, id, state FROM main.changes WHERE kind = 0";
    let mut rows = transaction.stream(names.qualify(query));
    while let Some(row) = rows.try_next().await? {
        let key =
            (collection(row.try_get::<i32, _>(1)?.into())?, RowId::from_bytes(row.try_get(2)?));
        recount.count(scope(row.try_get(0)?)?, key, row.try_get(3)?);
    }
    drop(rows);
    let query = "SELECT scope, collection, part, sums FROM main.sums";
    let mut stored = AllBuckets::new();
    for row in transaction.rows(Query::new(names.qualify(query))).await? {
        let place = (scope(row.try_get(0)?)?, collection(row.try_get::<i32, _>(1)?.into())?);
        take_part(stored.entry(place).or_default(), row.try_get(2)?, row.try_get(3)?)?;
    }
    Ok(recount.differing(&stored))
}

fn sum_of(bytes: &[u8]) -> Result<Sum, Failure> {
    let bytes = bytes.try_into().map_err(|_| damaged())?;
    Ok(Sum(u128::from_le_bytes(bytes)))
}

fn damaged() -> Failure {
    Failure::Damaged("the sums of a collection have another length".to_owned())
}

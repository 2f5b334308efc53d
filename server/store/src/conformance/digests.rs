//! The sums by which copies are compared.

use std::collections::BTreeMap;

use farshore_sync_core::digest::{Buckets, Sum, Totals, bucket_of, row_sum};

use super::Storage;
use super::fixture::{Device, all_scopes, sample_store};
use super::reader::Reader;
use super::sample::{
    delete, insert_note, insert_visit, like, move_visit, note, restore, retitle, site, tenant,
    visit,
};
use crate::SharedTenantStore;
use crate::sync::BucketRow;

/// The buckets that the live rows of a reader make.
async fn recount(store: &SharedTenantStore, reader: &Reader) -> BTreeMap<String, Buckets> {
    let key = store.digest_key().await.unwrap();
    let mut sums: BTreeMap<String, Buckets> = BTreeMap::new();
    for ((collection, row), held) in &reader.rows {
        let sum = row_sum(&key, *collection, *row, &held.state);
        let place = format!("{} {collection}", held.scope);
        sums.entry(place).or_default().bucket_mut(bucket_of(*row)).add(sum);
    }
    sums
}

fn without_zeros(totals: &Totals) -> BTreeMap<String, Sum> {
    let totals = totals.iter().filter(|(_, total)| **total != Sum::default());
    totals.map(|((scope, collection), total)| (format!("{scope} {collection}"), *total)).collect()
}

/// Totals of a page, the changes that commits report, and a recount agree after every commit.
pub async fn totals_follow_every_write(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    let mut followed = Totals::new();
    let commits = [
        vec![insert_note(1, "a"), insert_note(2, "b"), insert_visit(1, "a")],
        vec![retitle(1, "c"), like(2, 1)],
        vec![delete(note(2)), move_visit(1, "b")],
        vec![restore(note(2))],
        vec![delete(note(1)), delete(note(2)), delete(visit(1))],
    ];
    for mutations in commits {
        let committed = device.commit(&store, mutations).await;
        for (place, change) in committed.totals {
            followed.entry(place).or_default().add(change);
        }
        let reader = Reader::everything(&store).await;
        let counted = recount(&store, &reader).await;
        let counted: BTreeMap<_, _> =
            counted.iter().map(|(place, buckets)| (place.clone(), buckets.total())).collect();
        assert_eq!(without_zeros(&reader.totals), counted);
        assert_eq!(without_zeros(&followed), counted);
    }
    assert!(without_zeros(&followed).is_empty(), "deleted rows do not count");
}

/// The stored sums are those of the stored rows.
pub async fn sums_equal_a_recount(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    for number in 0..40 {
        let mutations = [insert_note(number, "x"), insert_visit(number, "a")];
        device.commit(&store, mutations).await;
        device.commit(&store, [retitle(number / 2, "y"), move_visit(number / 3, "b")]).await;
    }
    device.commit(&store, [delete(note(7)), delete(visit(7))]).await;
    assert_eq!(store.scrub().await.unwrap(), []);
    let counted = recount(&store, &Reader::everything(&store).await).await;
    let stored = store.buckets(&all_scopes()).await.unwrap();
    let stored: BTreeMap<_, _> = stored
        .into_iter()
        .map(|((scope, collection), buckets)| (format!("{scope} {collection}"), buckets))
        .collect();
    assert_eq!(stored, counted);
}

/// A bucket lists its live rows, and no others.
pub async fn buckets_name_their_rows(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    // 3 and 259 share a bucket, 4 has another; 515 shares it too, and is deleted.
    let notes = [3, 259, 4, 515].map(|number| insert_note(number, "x"));
    device.commit(&store, notes).await;
    device.commit(&store, [delete(note(515)), insert_visit(3, "a")]).await;
    let reader = Reader::everything(&store).await;
    let in_bucket = |number| {
        let key = note(number);
        BucketRow { row: key.1, state: reader.rows[&key].state.clone() }
    };
    let rows = store.bucket_rows(&tenant(), note(3).0, bucket_of(note(3).1)).await.unwrap();
    assert_eq!(rows, [in_bucket(3), in_bucket(259)]);
    assert_eq!(store.bucket_rows(&tenant(), note(3).0, 200).await.unwrap(), []);
    assert_eq!(store.bucket_rows(&site("a"), note(3).0, 3).await.unwrap(), []);
    assert_eq!(store.bucket_rows(&site("none"), note(3).0, 3).await.unwrap(), []);
    assert_eq!(store.buckets(&[site("none")]).await.unwrap().len(), 0);
}

/// A row that moves counts in its new scope only.
pub async fn a_moved_row_counts_where_it_is(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    device.commit(&store, [insert_visit(1, "a")]).await;
    device.commit(&store, [move_visit(1, "b")]).await;
    let buckets = store.buckets(&[site("a"), site("b")]).await.unwrap();
    let total = |scope| buckets.get(&(scope, visit(1).0)).map(Buckets::total).unwrap_or_default();
    assert_eq!(total(site("a")), Sum::default());
    assert_ne!(total(site("b")), Sum::default());
    assert_eq!(store.scrub().await.unwrap(), []);
}

/// A tenant keeps its digest key.
pub async fn the_digest_key_stays(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let key = store.digest_key().await.unwrap();
    Device::new(1).commit(&store, [insert_note(1, "x")]).await;
    store.begin_epoch(5).await.unwrap();
    assert_eq!(store.digest_key().await.unwrap(), key);
}

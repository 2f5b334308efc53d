//! A tenant copied from one place to another.

use farshore_sync_core::ids::{TenantId, UserId};
use farshore_sync_core::wire::Rights;

use super::Storage;
use super::fixture::{Device, commit_notes, sample_store_of, sample_tenant_named, scope_of};
use super::reader::Reader;
use super::sample::{
    BODY, NOW_MS, change, delete, insert_note, insert_visit, like, move_visit, note, restore,
    retitle, tag, typing, visit,
};
use crate::catalog::{Catalog, CatalogError};
use crate::copy::{Arriving, CopyDigest, CopyError, Record, RecordSink, Tally, verify};
use crate::devices::DeviceRecord;
use crate::scope::TenantScope;
use crate::signing_keys::{SigningAlgorithm, SigningKeyRecord};
use crate::{SharedTenantStore, StoreError};

/// All records of a copy.
#[derive(Default)]
struct Collected(Vec<Record>);

#[async_trait::async_trait]
impl RecordSink for Collected {
    async fn take(&mut self, records: Vec<Record>) -> Result<(), StoreError> {
        self.0.extend(records);
        Ok(())
    }
}

async fn copy_of(store: &SharedTenantStore) -> Vec<Record> {
    let mut collected = Collected::default();
    store.copy_out(&mut collected).await.unwrap();
    collected.0
}

async fn digest_of(store: &SharedTenantStore) -> CopyDigest {
    let mut tally = Tally::default();
    store.copy_out(&mut tally).await.unwrap();
    tally.digest()
}

fn key(kid: &str, created_at_ms: u64) -> SigningKeyRecord {
    SigningKeyRecord {
        kid: kid.to_owned(),
        algorithm: SigningAlgorithm::EdDsa,
        sealed_private_key: vec![7; 90],
        public_jwk: "{}".to_owned(),
        created_at_ms,
        retired_at_ms: None,
    }
}

/// A tenant with something of everything, and the device that wrote it.
async fn full_tenant(catalog: &dyn Catalog, scope: &TenantScope) -> (SharedTenantStore, Device) {
    let store = sample_store_of(catalog, scope).await;
    store.rotate_signing_key(&key("first", NOW_MS)).await.unwrap();
    store.rotate_signing_key(&key("second", NOW_MS + 1)).await.unwrap();
    let mut device = Device::new(1);
    let record = DeviceRecord {
        id: device.id,
        user: UserId::from_bytes([4; 16]),
        name: "Tablet 4".to_owned(),
        grants: device.grants.clone(),
        suspended: true,
        created_at_ms: NOW_MS,
    };
    store.put_device(&record).await.unwrap();
    let changes = typing(note(1), BODY, &["one ", "two ", "three"]);
    device.commit(&store, [insert_note(1, "x"), insert_note(2, "y"), insert_visit(1, "a")]).await;
    for made in &changes {
        device.commit(&store, [change(note(1), BODY, made)]).await;
    }
    device.commit(&store, [like(1, 5), tag(1, "urgent")]).await;
    device.commit(&store, [delete(note(2)), move_visit(1, "b")]).await;
    device.refused(&store, [retitle(9, "there is no such note")]).await;
    commit_notes(&store, 300).await;
    let mut other = Device::new(2);
    other.grants.iter_mut().for_each(|grant| grant.rights = Rights::Read);
    other.refused(&store, [retitle(1, "may not")]).await;
    (store, device)
}

/// Copies a tenant to where it may arrive, and verifies it.
async fn copy_to(
    catalog: &dyn Catalog,
    scope: &TenantScope,
    arriving: Arriving,
    records: Vec<Record>,
    digest: CopyDigest,
) -> SharedTenantStore {
    let mut arrival = catalog.receive(scope, arriving).await.unwrap();
    let mut records = records.into_iter().peekable();
    // More batches than one.
    while records.peek().is_some() {
        arrival.put(records.by_ref().take(50).collect()).await.unwrap();
    }
    verify(&*arrival, scope.tenant(), None, digest).await.unwrap();
    arrival.finish().await.unwrap()
}

/// A copy is the same tenant: to readers, to devices that go on, and to whoever copies it again.
pub async fn a_copy_holds_everything(storage: &dyn Storage) {
    let (catalog, authority) = storage.open().await;
    let (store, mut device) = full_tenant(&*catalog, &scope_of(&authority, "demo")).await;
    let (records, digest) = (copy_of(&store).await, digest_of(&store).await);
    let kinds: std::collections::BTreeSet<_> = records.iter().map(kind_of).collect();
    assert_eq!(kinds.len(), 4 + crate::copy::PLAIN_TABLES.len(), "the sample has all kinds");

    let scope = scope_of(&authority, "copied");
    let copy = copy_to(&*catalog, &scope, Arriving::New, records, digest).await;
    assert_eq!(digest_of(&copy).await, digest);
    assert_eq!(copy.head().await.unwrap(), store.head().await.unwrap());
    assert_eq!(copy.signing_keys().await.unwrap(), store.signing_keys().await.unwrap());
    assert_eq!(copy.devices(None, 10).await.unwrap(), store.devices(None, 10).await.unwrap());
    assert_eq!(copy.schema().await.unwrap(), store.schema().await.unwrap());
    let readers = (Reader::everything(&copy).await, Reader::everything(&store).await);
    assert!(readers.0 == readers.1, "readers get the same");

    // Both go on, and in the same way: the next change of the document, the row that comes back, the one that moves.
    let next = typing(note(1), BODY, &["one ", "two ", "three", " four"]).pop().unwrap();
    let goes_on = [change(note(1), BODY, &next), restore(note(2)), move_visit(1, "a")];
    let transaction = device.transaction(goes_on);
    for store in [&store, &copy] {
        let push = device.push([transaction.clone()]);
        let committed = super::fixture::commit(store, [push]).await;
        assert_eq!(super::fixture::answers(&committed.results[0])[0].refused, None);
        assert_eq!(store.scrub().await.unwrap(), []);
    }
    assert_eq!(digest_of(&copy).await, digest_of(&store).await);
    assert!(Reader::everything(&copy).await.rows.contains_key(&visit(1)));

    // And it is there after a restart.
    drop((store, copy, catalog));
    let (catalog, authority) = storage.open().await;
    let copy = catalog.open(&scope_of(&authority, "copied")).await.unwrap();
    let store = catalog.open(&scope_of(&authority, "demo")).await.unwrap();
    assert_eq!(digest_of(&copy).await, digest_of(&store).await);
    let names: Vec<_> = catalog.tenants().await.unwrap().into_iter().map(String::from).collect();
    assert_eq!(names, ["copied", "demo"]);
}

fn kind_of(record: &Record) -> (u8, u8) {
    match record {
        Record::Standing(_) => (0, 0),
        Record::Plain(table, _) => (1, *table),
        Record::Change(_) => (2, 0),
        Record::Chunk(_) => (3, 0),
        Record::Sums(_) => (4, 0),
        Record::Forget(_) => (5, 0),
    }
}

/// A copy takes a tenant's place in one step; whoever has the tenant open finds that out.
pub async fn a_copy_takes_the_place_of_a_tenant(storage: &dyn Storage) {
    let (catalog, authority) = storage.open().await;
    let scope = scope_of(&authority, "demo");
    let (store, _) = full_tenant(&*catalog, &scope).await;
    let (records, digest) = (copy_of(&store).await, digest_of(&store).await);
    let before = store.head().await.unwrap();
    commit_notes(&store, 20).await;

    let mut arrival = catalog.receive(&scope, Arriving::Replacing).await.unwrap();
    arrival.put(records).await.unwrap();
    assert_eq!(store.head().await.unwrap().seq, before.seq + 20, "the tenant works meanwhile");
    commit_notes(&store, 1).await;
    verify(&*arrival, scope.tenant(), None, digest).await.unwrap();
    let epoch = arrival.store().begin_epoch(77).await.unwrap();
    let replaced = arrival.finish().await.unwrap();
    let after = replaced.head().await.unwrap();
    assert_eq!((after.seq, after.epoch), (before.seq, epoch));
    match store.head().await {
        Ok(head) => assert_eq!(head, after, "an open store goes on with the new one"),
        Err(error) => assert!(matches!(error, StoreError::BegunAnew), "{error}"),
    }
    assert_eq!(catalog.open(&scope).await.unwrap().head().await.unwrap(), after);
    commit_notes(&replaced, 2).await;
    assert_eq!(replaced.scrub().await.unwrap(), []);
    drop((store, replaced, catalog));
    let (catalog, authority) = storage.open().await;
    let reopened = catalog.open(&scope_of(&authority, "demo")).await.unwrap();
    assert_eq!(reopened.head().await.unwrap().seq, before.seq + 2);
}

/// What was not finished does not count, and is no hindrance.
pub async fn an_unfinished_copy_leaves_nothing(storage: &dyn Storage) {
    let (catalog, authority) = storage.open().await;
    let scope = scope_of(&authority, "demo");
    let store = sample_tenant_named(&*catalog, &scope, 5).await;
    let (records, digest, head) =
        (copy_of(&store).await, digest_of(&store).await, store.head().await.unwrap());
    for (arriving, to) in [(Arriving::Replacing, "demo"), (Arriving::New, "other")] {
        let mut arrival = catalog.receive(&scope_of(&authority, to), arriving).await.unwrap();
        arrival.put(records.clone()).await.unwrap();
    }
    assert_eq!(store.head().await.unwrap(), head);
    let other = scope_of(&authority, "other");
    assert!(matches!(catalog.open(&other).await, Err(CatalogError::UnknownTenant { .. })));
    let names: Vec<_> = catalog.tenants().await.unwrap().into_iter().map(String::from).collect();
    assert_eq!(names, ["demo"]);
    drop(catalog);
    let (catalog, authority) = storage.open().await;
    for (arriving, to) in [(Arriving::Replacing, "demo"), (Arriving::New, "other")] {
        let scope = scope_of(&authority, to);
        copy_to(&*catalog, &scope, arriving, records.clone(), digest).await;
    }
}

/// A copy says what it expects to find, and finds it again when it takes its place.
pub async fn a_copy_arrives_only_where_it_may(storage: &dyn Storage) {
    let (catalog, authority) = storage.open().await;
    let (there, gone) = (scope_of(&authority, "there"), scope_of(&authority, "gone"));
    let store = sample_tenant_named(&*catalog, &there, 1).await;
    let receive = async |name: &str, arriving| {
        catalog.receive(&scope_of(&authority, name), arriving).await.err()
    };
    let exists = receive("there", Arriving::New).await;
    assert!(matches!(exists, Some(CatalogError::TenantExists { .. })));
    let unknown = receive("nobody", Arriving::Replacing).await;
    assert!(matches!(unknown, Some(CatalogError::UnknownTenant { .. })));
    sample_tenant_named(&*catalog, &gone, 1).await;
    catalog.erase(&gone).await.unwrap();
    for arriving in [Arriving::New, Arriving::Replacing] {
        let erased = receive("gone", arriving).await;
        assert!(matches!(erased, Some(CatalogError::Erased { .. })));
    }

    // Somebody else creates the tenant, or erases it, while the copy arrives.
    let records = copy_of(&store).await;
    let mut arrival = catalog.receive(&scope_of(&authority, "late"), Arriving::New).await.unwrap();
    arrival.put(records.clone()).await.unwrap();
    catalog.create(&scope_of(&authority, "late"), NOW_MS).await.unwrap();
    assert!(matches!(arrival.finish().await.err(), Some(CatalogError::TenantExists { .. })));
    let late = catalog.open(&scope_of(&authority, "late")).await.unwrap();
    assert_eq!(late.head().await.unwrap().seq, 0, "what was there stays");
    let mut arrival = catalog.receive(&there, Arriving::Replacing).await.unwrap();
    arrival.put(records).await.unwrap();
    catalog.erase(&there).await.unwrap();
    assert!(matches!(arrival.finish().await.err(), Some(CatalogError::Erased { .. })));
}

/// What was altered on its way, or before it was copied, does not become a tenant.
pub async fn an_altered_copy_is_noticed(storage: &dyn Storage) {
    let (catalog, authority) = storage.open().await;
    let (store, _) = full_tenant(&*catalog, &scope_of(&authority, "demo")).await;
    let (records, digest) = (copy_of(&store).await, digest_of(&store).await);
    let tenant: TenantId = "other".parse().unwrap();
    let scope = authority.scope(tenant.clone());

    let mut arrival = catalog.receive(&scope, Arriving::New).await.unwrap();
    let mut fewer = records.clone();
    let answer = |record: &Record| matches!(record, Record::Plain(4, _));
    fewer.remove(records.iter().position(answer).unwrap());
    arrival.put(fewer).await.unwrap();
    let error = verify(&*arrival, &tenant, None, digest).await.unwrap_err();
    assert!(matches!(error, CopyError::Differs { .. }), "{error}");
    drop(arrival);

    // A row that is lost, or was altered before: the sums do not fit.
    let living = |record: &Record| matches!(record, Record::Change(change) if change.kind == 0);
    let at = records.iter().position(living).unwrap();
    let mut fewer = records.clone();
    fewer.remove(at);
    let mut arrival = catalog.receive(&scope, Arriving::New).await.unwrap();
    does_not_add_up(arrival.put(fewer).await);
    drop(arrival);
    let mut altered = records;
    let Record::Change(change) = &mut altered[at] else { unreachable!("it was just found") };
    let last = change.state.len() - 1;
    change.state[last] ^= 1;
    let mut arrival = catalog.receive(&scope, Arriving::New).await.unwrap();
    does_not_add_up(arrival.put(altered).await);
}

fn does_not_add_up(put: Result<(), StoreError>) {
    let error = put.unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, StoreError::Damaged { .. }), "{said}");
    assert!(said.contains("1 buckets of collection") && said.contains("do not add up"), "{said}");
}

/// What has changed since a copy arrived brings it up to date, again and again, whatever has changed.
pub async fn a_copy_is_brought_up_to_date(storage: &dyn Storage) {
    let (catalog, authority) = storage.open().await;
    let scope = scope_of(&authority, "demo");
    let (store, mut device) = full_tenant(&*catalog, &scope).await;
    let arrives = scope_of(&authority, "copied");
    let mut arrival = catalog.receive(&arrives, Arriving::New).await.unwrap();
    arrival.put(copy_of(&store).await).await.unwrap();
    let mut seq = store.head().await.unwrap().seq;
    let typed = typing(note(1), BODY, &["one ", "two ", "three", " four", " five"]);
    for round in 0..7 {
        match round {
            // Nothing has changed.
            0 => {}
            1 => {
                device
                    .commit(&store, [insert_note(3, "new"), change(note(1), BODY, &typed[3])])
                    .await;
                device.refused(&store, [retitle(9, "there is still no such note")]).await;
            }
            2 => {
                device.commit(&store, [delete(note(1)), restore(note(2)), like(3, 1)]).await;
            }
            3 => {
                device.commit(&store, [move_visit(1, "a"), restore(note(1))]).await;
            }
            4 => {
                device.commit(&store, [move_visit(1, "b"), change(note(1), BODY, &typed[4])]).await;
                store.rotate_signing_key(&key("third", NOW_MS + 2)).await.unwrap();
            }
            // Everything that was deleted or left a scope so far is purged: what has arrived, and not what is new.
            5 => {
                device.commit(&store, [delete(note(2))]).await;
                let before = store.head().await.unwrap();
                let all = copy_since(&store, seq).await;
                arrival.put(all).await.unwrap();
                seq = before.seq;
                assert!(store.purge(2 * NOW_MS).await.unwrap() > 0);
                assert_eq!(store.head().await.unwrap().horizon, before.seq);
            }
            _ => {
                device.commit(&store, [delete(note(3)), insert_visit(2, "b")]).await;
                commit_notes(&store, 3).await;
            }
        }
        let mut sent = Tally::default();
        store.copy_since(seq, &mut sent).await.unwrap();
        let records = copy_since(&store, seq).await;
        for records in records.chunks(7) {
            arrival.put(records.to_vec()).await.unwrap();
        }
        verify(&*arrival, arrives.tenant(), Some(seq), sent.digest()).await.unwrap();
        assert_eq!(digest_of(&arrival.store()).await, digest_of(&store).await, "round {round}");
        assert_eq!(arrival.store().scrub().await.unwrap(), []);
        seq = store.head().await.unwrap().seq;
    }
    let copy = arrival.finish().await.unwrap();
    let readers = (Reader::everything(&copy).await, Reader::everything(&store).await);
    assert!(readers.0 == readers.1, "readers get the same");
    device.commit(&copy, [restore(note(3)), move_visit(1, "a")]).await;
    assert_eq!(copy.scrub().await.unwrap(), []);
}

async fn copy_since(store: &SharedTenantStore, seq: u64) -> Vec<Record> {
    let mut collected = Collected::default();
    store.copy_since(seq, &mut collected).await.unwrap();
    collected.0
}

/// What brings a copy up to date is told where it is not whole.
pub async fn a_copy_that_is_not_up_to_date_is_noticed(storage: &dyn Storage) {
    let (catalog, authority) = storage.open().await;
    let scope = scope_of(&authority, "demo");
    let (store, mut device) = full_tenant(&*catalog, &scope).await;
    let (first, seq) = (copy_of(&store).await, store.head().await.unwrap().seq);
    device.commit(&store, [like(1, 1), move_visit(1, "a")]).await;
    let mut sent = Tally::default();
    store.copy_since(seq, &mut sent).await.unwrap();
    let records = copy_since(&store, seq).await;
    let arrives = scope_of(&authority, "copied");
    let begin = async || {
        let mut arrival = catalog.receive(&arrives, Arriving::New).await.unwrap();
        arrival.put(first.clone()).await.unwrap();
        arrival
    };

    // A row that changed does not come, as if nobody had noticed that it changed.
    let mut arrival = begin().await;
    let forgets =
        |record: &Record| matches!(record, Record::Forget(row) if row.collection == note(1).0.0);
    let at = records.iter().position(forgets).unwrap();
    let mut fewer = records.clone();
    fewer.drain(at..at + 2);
    fewer.retain(|record| !matches!(record, Record::Chunk(_)));
    does_not_add_up(arrival.put(fewer).await);

    // A tombstone, a departure or an answer does not come.
    for lost in [
        |record: &Record| matches!(record, Record::Change(change) if change.kind == 2),
        |record: &Record| matches!(record, Record::Plain(4, _)),
        |record: &Record| matches!(record, Record::Chunk(_)),
    ] {
        let mut arrival = begin().await;
        let mut fewer = records.clone();
        fewer.remove(records.iter().position(lost).unwrap());
        arrival.put(fewer).await.unwrap();
        let verified = verify(&*arrival, arrives.tenant(), Some(seq), sent.digest()).await;
        assert!(matches!(verified, Err(CopyError::Differs { .. })), "{verified:?}");
    }
}

/// Of two copies that arrive for one tenant the one that began last counts.
pub async fn the_last_of_two_copies_counts(storage: &dyn Storage) {
    let (catalog, authority) = storage.open().await;
    let scope = scope_of(&authority, "demo");
    let store = sample_tenant_named(&*catalog, &scope, 3).await;
    let (records, digest) = (copy_of(&store).await, digest_of(&store).await);
    let mut first = catalog.receive(&scope, Arriving::Replacing).await.unwrap();
    first.put(records[..1].to_vec()).await.unwrap();
    let mut second = catalog.receive(&scope, Arriving::Replacing).await.unwrap();
    second.put(records[..2].to_vec()).await.unwrap();
    let pushed_aside = match first.put(records[1..].to_vec()).await {
        Err(error) => CatalogError::from(error),
        Ok(()) => first.finish().await.err().expect("the first copy does not count"),
    };
    assert!(pushed_aside.to_string().contains("another copy"), "{pushed_aside}");
    second.put(records[2..].to_vec()).await.unwrap();
    verify(&*second, scope.tenant(), None, digest).await.unwrap();
    second.finish().await.unwrap();
}

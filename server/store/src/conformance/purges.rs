//! Purging what is long gone, and epochs.

use farshore_sync_core::mutation::Mutation;

use super::Storage;
use super::fixture::{Device, answers, commit_at, note_batch, sample_store};
use super::reader::{Limits, Reader};
use super::sample::{
    BODY, NOW_MS, change, delete, insert_note, insert_visit, move_visit, note, site, tenant,
    typing, visit,
};
use crate::sync::{Batch, DevicePush, Head};
use crate::{SharedTenantStore, StoreError};

async fn write_at(
    device: &mut Device,
    store: &SharedTenantStore,
    now_ms: u64,
    mutations: impl Into<Vec<Mutation>>,
) {
    let transaction = device.transaction(mutations);
    let committed = commit_at(store, now_ms, [device.push([transaction])]).await;
    assert_eq!(answers(&committed.results[0])[0].refused, None);
}

/// Old tombstones and departures go, and the horizon says so; what lives is as it was.
pub async fn a_purge_moves_the_horizon(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    let setup = [insert_note(1, "x"), insert_note(2, "y"), insert_visit(1, "a")];
    write_at(&mut device, &store, NOW_MS, setup).await;
    write_at(&mut device, &store, NOW_MS, [delete(note(1))]).await;
    write_at(&mut device, &store, NOW_MS, [move_visit(1, "b")]).await;
    let before = Reader::everything(&store).await;
    assert_eq!(store.purge(NOW_MS + 1).await.unwrap(), 2);
    // The tombstone has seq 4, the departure 5, the arrival in the other scope 6.
    let head = store.head().await.unwrap();
    assert_eq!((head.seq, head.horizon), (6, 5));
    assert_eq!(Reader::everything(&store).await, before);
    let gone = Reader::new(vec![site("a")]).page(&store, Limits::NONE).await;
    assert_eq!(gone.rows, []);
    assert_eq!(store.scrub().await.unwrap(), []);
    assert_eq!(store.purge(NOW_MS + 1).await.unwrap(), 0, "nothing is left to purge");
    assert_eq!(store.head().await.unwrap().horizon, 5);
}

/// Young tombstones and living rows stay, however old those are.
pub async fn a_purge_leaves_what_is_young_or_alive(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    let setup = [insert_note(1, "x"), insert_note(2, "y"), insert_visit(1, "a")];
    write_at(&mut device, &store, NOW_MS, setup).await;
    let leave = [delete(note(1)), move_visit(1, "b")];
    write_at(&mut device, &store, NOW_MS + 1_000, leave).await;
    assert_eq!(store.purge(NOW_MS + 1_000).await.unwrap(), 0);
    assert_eq!(store.head().await.unwrap().horizon, 0);
    let rows = Reader::new(vec![tenant()]).page(&store, Limits::NONE).await.rows;
    assert_eq!(rows.len(), 2, "the living row and the tombstone");
    assert_eq!(Reader::new(vec![site("a")]).page(&store, Limits::NONE).await.rows.len(), 1);
}

/// A purged row is unknown: it can be inserted anew, and nothing of its documents is left.
pub async fn a_purged_row_can_be_inserted_anew(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    let body = typing(note(1), BODY, &["old"]);
    let typed = change(note(1), BODY, &body[0]);
    write_at(&mut device, &store, NOW_MS, [insert_note(1, "x"), typed.clone()]).await;
    write_at(&mut device, &store, NOW_MS, [delete(note(1))]).await;
    assert_eq!(store.purge(NOW_MS + 1).await.unwrap(), 1);
    assert_eq!(store.chunks(note(1)).await.unwrap(), []);
    write_at(&mut device, &store, NOW_MS, [insert_note(1, "again")]).await;
    assert_eq!(store.chunks(note(1)).await.unwrap(), []);
    write_at(&mut device, &store, NOW_MS, [typed]).await;
    let reader = Reader::everything(&store).await;
    assert_eq!(reader.rows[&note(1)].chunks.len(), 1);
    assert_eq!(store.scrub().await.unwrap(), []);
}

/// A row whose tombstone was purged before an earlier departure leaves its scope again as if for the first time.
pub async fn a_purged_row_departs_anew(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    write_at(&mut device, &store, NOW_MS, [insert_visit(1, "a")]).await;
    write_at(&mut device, &store, NOW_MS + 1_000, [move_visit(1, "b")]).await;
    // The server's clock went back.
    write_at(&mut device, &store, NOW_MS, [delete(visit(1))]).await;
    assert_eq!(store.purge(NOW_MS + 1).await.unwrap(), 1, "the departure is younger");
    write_at(&mut device, &store, NOW_MS, [insert_visit(1, "a")]).await;
    write_at(&mut device, &store, NOW_MS, [move_visit(1, "b")]).await;
    let left = Reader::new(vec![site("a")]).page(&store, Limits::NONE).await;
    assert_eq!(left.rows.len(), 1, "of several departures only the last one comes");
}

/// Every epoch differs from the one before it and is never zero; the order goes on.
pub async fn an_epoch_is_new_and_never_zero(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    Device::new(1).commit(&store, [insert_note(1, "x")]).await;
    let mut epochs = vec![store.head().await.unwrap().epoch];
    for entropy in [0, 7, 7, u64::MAX, u64::MAX] {
        let epoch = store.begin_epoch(entropy).await.unwrap();
        let head = store.head().await.unwrap();
        assert_eq!(head, Head { seq: 1, horizon: 0, epoch });
        assert_ne!(epoch, 0);
        assert_ne!(Some(&epoch), epochs.last());
        epochs.push(epoch);
    }
}

/// What a device pushes under an epoch that is over is not committed: it has to compare digests first.
pub async fn a_push_of_another_epoch_is_not_committed(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let batch = note_batch(&*store, 2).await;
    store.begin_epoch(7).await.unwrap();
    let before = store.head().await.unwrap();
    let error = store.commit(batch.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::BegunAnew), "{error}");
    assert_eq!(store.head().await.unwrap(), before);
    let again = batch.pushes.into_iter().map(|push| DevicePush { epoch: before.epoch, ..push });
    let again = Batch { now_ms: NOW_MS, pushes: again.collect() };
    assert_eq!(store.commit(again).await.unwrap().seq, before.seq + 2);
}

//! Restarts and several handles.

use super::Storage;
use super::fixture::{Device, commit, sample_store_of, scope_of};
use super::reader::Reader;
use super::sample::{
    BODY, NOW_MS, change, delete, insert_note, insert_visit, move_visit, note, retitle, typing,
};
use crate::signing_keys::{SigningAlgorithm, SigningKeyRecord};

/// Rows, order, sums, answers and resources are there after a restart, and the next commit goes on.
pub async fn everything_is_there_after_a_restart(storage: &dyn Storage) {
    let mut device = Device::new(1);
    let (catalog, authority) = storage.open().await;
    let scope = scope_of(&authority, "demo");
    let store = sample_store_of(&*catalog, &scope).await;
    let body = typing(note(1), BODY, &["typed"]);
    let typed = change(note(1), BODY, &body[0]);
    device.commit(&store, [insert_note(1, "x"), typed, insert_visit(1, "a")]).await;
    device.commit(&store, [move_visit(1, "b"), insert_note(2, "y"), delete(note(2))]).await;
    let transaction = device.transaction([retitle(1, "z")]);
    let last = commit(&store, [device.push([transaction.clone()])]).await;
    let key = SigningKeyRecord {
        kid: "kid".to_owned(),
        algorithm: SigningAlgorithm::EdDsa,
        sealed_private_key: vec![1, 2],
        public_jwk: "{}".to_owned(),
        created_at_ms: NOW_MS,
        retired_at_ms: None,
    };
    store.rotate_signing_key(&key).await.unwrap();
    let (head, rows) = (store.head().await.unwrap(), Reader::everything(&store).await);
    drop((store, catalog));

    let (catalog, authority) = storage.open().await;
    let store = catalog.open(&scope_of(&authority, "demo")).await.unwrap();
    assert_eq!(store.head().await.unwrap(), head);
    assert_eq!(Reader::everything(&store).await, rows);
    assert_eq!(store.signing_keys().await.unwrap(), [key]);
    assert_eq!(store.scrub().await.unwrap(), []);
    let again = commit(&store, [device.push([transaction])]).await;
    assert_eq!(again.results, last.results);
    let next = device.commit(&store, [retitle(1, "next")]).await;
    assert_eq!((next.seq_before, next.seq), (head.seq, head.seq + 1));
}

/// Two handles of one tenant are one store.
pub async fn a_second_handle_sees_the_commits_of_the_first(storage: &dyn Storage) {
    let (catalog, authority) = storage.open().await;
    let scope = scope_of(&authority, "demo");
    let first = sample_store_of(&*catalog, &scope).await;
    let second = catalog.open(&scope).await.unwrap();
    let mut device = Device::new(1);
    device.commit(&first, [insert_note(1, "x")]).await;
    assert_eq!(Reader::everything(&second).await.rows.len(), 1);
    let committed = device.commit(&second, [insert_note(2, "y")]).await;
    assert_eq!((committed.seq_before, committed.seq), (1, 2));
    assert_eq!(Reader::everything(&first).await, Reader::everything(&second).await);
}

//! Live queries: coalesced, bounded, and silent where nothing changed.

use std::sync::Mutex;
use std::sync::mpsc;

use futures_util::StreamExt;

use super::{PATIENCE, Place, insert};
use crate::client::Client;
use crate::error::Classified as _;
use crate::live::{LiveQuery, LiveResult};

fn names(client: &Client) -> LiveQuery {
    client.live("SELECT name FROM airlines ORDER BY name", &[]).unwrap()
}

fn rows_of(result: &LiveResult) -> usize {
    result.as_ref().unwrap().rows.len()
}

#[test]
fn each_commit_that_changes_the_result_brings_a_new_one() {
    let place = Place::new();
    let client = place.client();
    let mut live = names(&client);
    assert_eq!(rows_of(&live.recv_timeout(PATIENCE).unwrap()), 0);
    insert(&client, "a");
    assert_eq!(rows_of(&live.recv_timeout(PATIENCE).unwrap()), 1);
    assert_eq!(rows_of(&live.latest().unwrap()), 1);
}

#[test]
fn what_does_not_change_the_result_is_not_told() {
    let place = Place::new();
    let client = place.client();
    let row = insert(&client, "a");
    let mut live = names(&client);
    live.recv_timeout(PATIENCE).unwrap().unwrap();
    // Another collection, and a row written as it was.
    client.write(|tx| tx.insert("stock", None, &[])).unwrap();
    client.write(|tx| tx.update("airlines", row, &[("name", "a".into())])).unwrap();
    insert(&client, "b");
    assert_eq!(rows_of(&live.recv_timeout(PATIENCE).unwrap()), 2);
}

#[test]
fn a_slow_callback_sees_the_newest_result_and_not_every_one() {
    const WRITES: usize = 50;
    let place = Place::new();
    let client = place.client();
    let (told, calls) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let subscription = names(&client).on_change(move |result| {
        told.send(rows_of(&result)).unwrap();
        // Until the other end is dropped, which ends every wait.
        let _ = gate.lock().unwrap().recv();
    });
    assert_eq!(calls.recv_timeout(PATIENCE).unwrap(), 0);
    for n in 0..WRITES {
        insert(&client, &n.to_string());
    }
    drop(release);
    let mut seen = Vec::new();
    while seen.last() != Some(&WRITES) {
        seen.push(calls.recv_timeout(PATIENCE).unwrap());
    }
    assert!(seen.len() < WRITES, "{seen:?}");
    drop(subscription);
}

#[tokio::test]
async fn a_live_query_is_a_stream() {
    let place = Place::new();
    let (client, _place) =
        tokio::task::spawn_blocking(move || (place.client(), place)).await.unwrap();
    let mut live = names(&client);
    assert_eq!(rows_of(&live.next().await.unwrap()), 0);
    let writer = client.clone();
    let writing = tokio::task::spawn_blocking(move || insert(&writer, "a"));
    assert_eq!(rows_of(&StreamExt::next(&mut live).await.unwrap()), 1);
    writing.await.unwrap();

    let mut statuses = client.watch_status();
    assert!(statuses.next().await.is_some());
    drop(client);
    assert!(live.next().await.is_none(), "the client is gone");
    assert!(statuses.next().await.is_none(), "the client is gone");
}

#[test]
fn a_live_query_is_silent_while_suspended_and_goes_on_after() {
    let place = Place::new();
    let client = place.client();
    let mut live = names(&client);
    live.recv_timeout(PATIENCE).unwrap().unwrap();
    client.suspend().unwrap();
    assert_eq!(client.live("SELECT 1", &[]).err().unwrap().code(), "suspended");
    client.resume().unwrap();
    insert(&client, "a");
    assert_eq!(rows_of(&live.recv_timeout(PATIENCE).unwrap()), 1);
}

#[test]
fn a_query_that_is_refused_never_gets_live() {
    let place = Place::new();
    let client = place.client();
    for (sql, code) in
        [("SELECT nothing FROM airlines", "sql"), ("PRAGMA user_version = 7", "not_read_only")]
    {
        assert_eq!(client.live(sql, &[]).err().unwrap().code(), code);
    }
}

#[test]
fn a_dropped_live_query_frees_its_place() {
    let place = Place::new();
    let client = place.client();
    let queries: Vec<_> = (0..crate::live::MAX_LIVE_QUERIES).map(|_| names(&client)).collect();
    let too_many = client.live("SELECT 1", &[]).err().unwrap();
    assert_eq!(too_many.code(), "too_many_live_queries");
    drop(queries);
    // Their tasks end in their own time.
    while client.live("SELECT 1", &[]).is_err() {
        std::thread::yield_now();
    }
}

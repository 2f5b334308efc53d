//! Document changes and the rows that they come with.

use farshore_sync_core::document::Change;
use farshore_sync_core::mutation::Mutation;
use farshore_sync_core::reason::ReasonCode;

use super::Storage;
use super::fixture::{Device, commit, row, sample_store};
use super::reader::{Limits, Reader};
use super::sample::{
    BODY, REPORT, change, delete, insert_note, insert_visit, move_visit, note, restore, retitle,
    site, tenant, typing, visit,
};
use crate::sync::{ChangedRow, Chunk};

/// Changes of the body of note 1.
fn body(words: &[&str]) -> Vec<Change> {
    typing(note(1), BODY, words)
}

fn type_body(changes: &[Change]) -> Vec<Mutation> {
    changes.iter().map(|made| change(note(1), BODY, made)).collect()
}

fn chunks_of(changes: &[Change]) -> Vec<Chunk> {
    changes.iter().map(|made| Chunk { column: BODY, bytes: made.bytes.clone() }).collect()
}

fn only(rows: Vec<ChangedRow>) -> ChangedRow {
    let [row] = <[ChangedRow; 1]>::try_from(rows).expect("one row");
    row
}

/// A row comes with its changes in the order in which they were made, and so does the answer to the commit.
pub async fn changes_come_with_their_row(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    let changes = body(&["hello ", "wide ", "world"]);
    device.commit(&store, [insert_note(1, "x")]).await;
    let committed = device.commit(&store, type_body(&changes)).await;
    assert_eq!(only(committed.rows).chunks, chunks_of(&changes));
    let page = Reader::new(vec![tenant()]).page(&store, Limits::NONE).await;
    assert_eq!(only(page.rows).chunks, chunks_of(&changes));
    assert_eq!(store.chunks(note(1)).await.unwrap(), chunks_of(&changes));
    assert_eq!(store.chunks(note(2)).await.unwrap(), []);
    let summary = row(&store, note(1)).await.documents[&BODY];
    assert_eq!(summary.changes, 3);
}

/// A reader that has some changes gets the others; one of another column's edit gets none.
pub async fn only_changes_after_the_cursor_come(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    let changes = body(&["a", "b", "c"]);
    device.commit(&store, [insert_note(1, "x"), change(note(1), BODY, &changes[0])]).await;
    let mut reader = Reader::new(vec![tenant()]);
    reader.page(&store, Limits::NONE).await;
    device.commit(&store, type_body(&changes[1..2])).await;
    device.commit(&store, type_body(&changes[2..])).await;
    let page = reader.page(&store, Limits::NONE).await;
    assert_eq!(only(page.rows).chunks, chunks_of(&changes[1..]));
    device.commit(&store, [retitle(1, "y")]).await;
    assert_eq!(only(reader.page(&store, Limits::NONE).await.rows).chunks, []);
    assert_eq!(reader, {
        let mut fresh = Reader::new(vec![tenant()]);
        fresh.page(&store, Limits::NONE).await;
        fresh
    });
}

/// A row that changes between two pages moves to a later one, and brings what it would have brought before.
pub async fn a_row_that_moved_to_a_later_page_brings_its_changes(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    let changes = body(&["a", "b"]);
    device.commit(&store, [insert_note(1, "x"), insert_note(2, "x")]).await;
    let mut reader = Reader::new(vec![tenant()]);
    reader.follow(&store, Limits::NONE).await;
    device.commit(&store, [retitle(2, "y")]).await;
    device.commit(&store, type_body(&changes)).await;
    device.commit(&store, [insert_note(3, "x")]).await;
    assert!(!reader.page(&store, Limits::rows(1)).await.complete);
    device.commit(&store, [retitle(1, "y")]).await;
    reader.follow(&store, Limits::rows(1)).await;
    assert_eq!(reader.rows, Reader::everything(&store).await.rows);
}

/// A change that two devices deliver counts once.
pub async fn a_change_twice_is_kept_once(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let (mut device, mut other) = (Device::new(1), Device::new(2));
    let changes = body(&["a", "b"]);
    device.commit(&store, [insert_note(1, "x"), change(note(1), BODY, &changes[0])]).await;
    let again = other.commit(&store, type_body(&changes)).await;
    assert_eq!(only(again.rows).chunks, chunks_of(&changes[1..]));
    let third = device.commit(&store, type_body(&changes)).await;
    assert_eq!(third.rows, [], "nothing is new");
    assert_eq!(store.chunks(note(1)).await.unwrap(), chunks_of(&changes));
}

/// A deleted row gains no change, and one that it has already harms nobody: whoever fills anew cannot see it.
pub async fn a_deleted_row_takes_a_change_that_it_has(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let (mut device, mut other) = (Device::new(1), Device::new(2));
    let changes = body(&["a", "b"]);
    device.commit(&store, [insert_note(1, "x"), change(note(1), BODY, &changes[0])]).await;
    device.commit(&store, [delete(note(1))]).await;
    let known = other.commit(&store, type_body(&changes[..1])).await;
    assert_eq!(known.rows, [], "nothing is new");
    let new = other.refused(&store, type_body(&changes[1..])).await;
    assert_eq!(new, ReasonCode::RowDeleted);
    device.commit(&store, [restore(note(1))]).await;
    assert_eq!(store.chunks(note(1)).await.unwrap(), chunks_of(&changes[..1]));
}

/// A change that builds on a missing one is refused until that one is there.
pub async fn a_missing_dependency_is_named(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    let changes = body(&["a", "b", "c"]);
    device.commit(&store, [insert_note(1, "x"), insert_note(2, "y")]).await;
    let reason = device.refused(&store, type_body(&changes[1..])).await;
    assert_eq!(reason, ReasonCode::MissingDependency);
    device.commit(&store, type_body(&changes[..1])).await;
    device.commit(&store, type_body(&changes[1..])).await;
    // A change of one row is none of another.
    let elsewhere = change(note(2), BODY, &changes[1]);
    assert_eq!(device.refused(&store, [elsewhere]).await, ReasonCode::MissingDependency);
}

/// Who reads the scope that a row enters has none of its changes yet.
pub async fn all_changes_come_to_the_scope_that_a_row_enters(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    let changes = typing(visit(1), REPORT, &["a", "b", "c"]);
    let report = |made| change(visit(1), REPORT, made);
    device.commit(&store, [insert_visit(1, "a"), report(&changes[0])]).await;
    device.commit(&store, [report(&changes[1])]).await;
    let mut reader = Reader::new(vec![site("b")]);
    reader.page(&store, Limits::NONE).await;
    let moved = device.commit(&store, [move_visit(1, "b"), report(&changes[2])]).await;
    assert!(moved.documents_came_anew);
    let page = reader.page(&store, Limits::NONE).await;
    let came: Vec<_> = only(page.rows).chunks.into_iter().map(|chunk| chunk.bytes).collect();
    let all: Vec<_> = changes.into_iter().map(|made| made.bytes).collect();
    assert_eq!(came, all);
}

/// Who dropped a deleted row gets all of its changes when it is back.
pub async fn all_changes_come_with_a_row_that_is_restored(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    let changes = body(&["a", "b"]);
    device.commit(&store, [insert_note(1, "x")]).await;
    device.commit(&store, type_body(&changes)).await;
    device.commit(&store, [delete(note(1))]).await;
    let mut reader = Reader::new(vec![tenant()]);
    let tombstone = only(reader.page(&store, Limits::NONE).await.rows);
    assert_eq!(tombstone.chunks, [], "a tombstone brings nothing");
    let restored = commit(
        &store,
        [{
            let transaction = device.transaction([restore(note(1))]);
            device.push([transaction])
        }],
    )
    .await;
    assert!(restored.documents_came_anew);
    let page = reader.page(&store, Limits::NONE).await;
    assert_eq!(only(page.rows).chunks, chunks_of(&changes));
}

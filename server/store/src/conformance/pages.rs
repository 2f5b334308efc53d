//! Pages of changes.

use farshore_sync_core::document::Change;

use super::Storage;
use super::fixture::{Device, all_scopes, commit, sample_store};
use super::reader::{Limits, Reader};
use super::sample::{
    REPORT, change, delete, insert_note, insert_visit, like, move_visit, note, restore, retitle,
    site, tenant, typing, visit,
};
use crate::SharedTenantStore;
use crate::sync::{PageRequest, RowChange};

/// Before the first commit there is nothing, and that is complete.
pub async fn an_empty_tenant_has_an_empty_complete_page(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut reader = Reader::new(all_scopes());
    let page = reader.page(&store, Limits::rows(1)).await;
    assert!(page.complete && page.rows.is_empty() && page.totals.is_empty());
    let nothing = PageRequest { scopes: Vec::new(), target_bytes: 1, max_rows: 1 };
    assert!(store.page(nothing).await.unwrap().complete, "no scopes are in step");
}

/// A row comes once, in its latest state.
pub async fn only_what_changed_after_the_cursor_comes(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    device.commit(&store, [insert_note(1, "a"), insert_note(2, "b")]).await;
    let mut reader = Reader::new(vec![tenant()]);
    assert_eq!(reader.page(&store, Limits::NONE).await.rows.len(), 2);
    assert_eq!(reader.page(&store, Limits::NONE).await.rows, []);
    device.commit(&store, [retitle(1, "c")]).await;
    device.commit(&store, [retitle(1, "d")]).await;
    let page = reader.page(&store, Limits::NONE).await;
    let changed: Vec<_> = page.rows.iter().map(|row| (row.seq, row.row)).collect();
    assert_eq!(changed, [(4, note(1).1)]);
    assert_eq!(page.head.seq, 4);
}

/// A page has at most so many rows; the cursor stands at the last one.
pub async fn a_page_ends_at_its_rows(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let notes: Vec<_> = (1..=5).map(|number| insert_note(number, "x")).collect();
    Device::new(1).commit(&store, notes).await;
    let mut reader = Reader::new(vec![tenant()]);
    let page = reader.page(&store, Limits::rows(2)).await;
    assert_eq!((page.rows.len(), page.positions, page.complete), (2, vec![2], false));
    assert_eq!(reader.follow(&store, Limits::rows(2)).await, 2);
    assert_eq!(reader.rows.len(), 5);
    let mut reader = Reader::new(vec![tenant()]);
    assert_eq!(reader.follow(&store, Limits::rows(0)).await, 5, "a page has at least one row");
}

/// A page ends with the row that reaches its bytes, and has one row at least.
pub async fn a_page_ends_at_its_bytes(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let long = "x".repeat(1_000);
    let notes: Vec<_> = (1..=4).map(|number| insert_note(number, &long)).collect();
    Device::new(1).commit(&store, notes).await;
    for (target_bytes, rows) in [(0, 1), (1, 1), (1_500, 2), (2_500, 3), (100_000, 4)] {
        let mut reader = Reader::new(vec![tenant()]);
        let page = reader.page(&store, Limits::bytes(target_bytes)).await;
        assert_eq!(page.rows.len(), rows, "{target_bytes} bytes");
    }
}

/// A page that is full with the last row says that nothing is left.
pub async fn a_page_that_ends_exactly_is_complete(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mutations = [insert_visit(1, "a"), insert_note(1, "x"), insert_note(2, "y")];
    Device::new(1).commit(&store, mutations).await;
    let mut reader = Reader::new(all_scopes());
    let page = reader.page(&store, Limits::rows(3)).await;
    assert_eq!((page.rows.len(), page.complete), (3, true));
    assert_eq!(page.totals.len(), 2, "site/a and tenant have rows");
}

/// Scopes are read one after the other; those that the page did not reach stay where they stood.
pub async fn a_page_over_several_scopes_stops_within_one(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mutations = [
        insert_note(1, "x"),
        insert_visit(1, "a"),
        insert_visit(2, "b"),
        insert_visit(3, "b"),
        insert_note(2, "y"),
    ];
    Device::new(1).commit(&store, mutations).await;
    let mut reader = Reader::new(all_scopes());
    let page = reader.page(&store, Limits::rows(2)).await;
    let scopes: Vec<_> = page.rows.iter().map(|row| row.scope.clone()).collect();
    assert_eq!(scopes, [site("a"), site("b")]);
    assert_eq!(page.positions, [5, 3, 0], "read out, stopped within, not reached");
    assert_eq!(reader.follow(&store, Limits::rows(2)).await, 2);
    assert_eq!(reader, Reader::everything(&store).await);
}

/// A deleted row comes with the stamp of its delete and nothing else.
pub async fn a_deleted_row_comes_as_a_tombstone(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    device.commit(&store, [insert_note(1, "x")]).await;
    let committed = device.commit(&store, [delete(note(1))]).await;
    let mut reader = Reader::new(vec![tenant()]);
    let page = reader.page(&store, Limits::NONE).await;
    assert_eq!(page.rows, committed.rows);
    assert_eq!(page.rows[0].change, RowChange::Deleted(device.stamp()));
}

/// Wherever a reader stopped and however its pages are cut, it ends with what is read at once.
pub async fn any_cursor_and_the_rest_is_everything(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    let report = typing(visit(1), REPORT, &["one ", "two ", "three ", "four"]);
    let mut readers = vec![Reader::new(all_scopes())];
    for step in 0..24 {
        busy_step(&mut device, &store, &report, step).await;
        let mut reader = Reader::new(all_scopes());
        reader.follow(&store, Limits::rows(1 + step % 3)).await;
        readers.push(reader);
        // Some readers follow on in between, some stop within a page.
        let behind = step / 2;
        readers[behind].page(&store, Limits::rows(1)).await;
    }
    let everything = Reader::everything(&store).await;
    assert!(everything.rows.len() > 5, "the steps leave rows of every kind");
    for (index, reader) in readers.iter_mut().enumerate() {
        let limits = if index % 2 == 0 { Limits::bytes(60) } else { Limits::rows(2) };
        reader.follow(&store, limits).await;
        assert_eq!(*reader, everything, "the reader that began at step {index}");
    }
}

/// One commit of a busy tenant: inserts, edits, moves, deletes, restores and document changes.
async fn busy_step(device: &mut Device, store: &SharedTenantStore, report: &[Change], step: usize) {
    let number = step as u16;
    let mut transactions =
        vec![device.transaction([insert_note(number, "x"), like(number / 2, 1)])];
    let more = match step {
        0 => vec![insert_visit(1, "a"), insert_visit(2, "b")],
        1..=4 => vec![change(visit(1), REPORT, &report[step - 1])],
        5 | 13 => vec![move_visit(1, "b"), move_visit(2, "a")],
        9 | 17 => vec![move_visit(1, "a")],
        7 | 19 => vec![delete(visit(2)), delete(note(3))],
        11 => vec![restore(visit(2))],
        21 => vec![restore(note(3)), restore(visit(2)), move_visit(2, "b")],
        _ => vec![retitle(number / 3, "y")],
    };
    transactions.push(device.transaction(more));
    commit(store, [device.push(transactions)]).await;
}

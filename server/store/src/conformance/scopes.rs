//! Rows that move between scopes.

use super::Storage;
use super::fixture::{Device, sample_store};
use super::reader::{Limits, Reader};
use super::sample::{insert_note, insert_visit, move_visit, site, tenant, visit};
use crate::sync::RowChange;

/// Readers of the scope that a row left hear that it left; readers of the other one get it.
pub async fn a_row_that_moves_departs(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    device.commit(&store, [insert_visit(1, "a")]).await;
    let (mut left, mut entered) = (Reader::new(vec![site("a")]), Reader::new(vec![site("b")]));
    left.follow(&store, Limits::NONE).await;
    entered.follow(&store, Limits::NONE).await;
    let committed = device.commit(&store, [move_visit(1, "b")]).await;
    assert_eq!(committed.rows.len(), 2, "a departure and an arrival");
    let departure = left.page(&store, Limits::NONE).await.rows;
    assert_eq!(departure.len(), 1);
    assert_eq!((&departure[0].scope, &departure[0].change), (&site("a"), &RowChange::Departed));
    assert!(left.rows.is_empty());
    entered.follow(&store, Limits::NONE).await;
    assert_eq!(entered.rows.keys().collect::<Vec<_>>(), [&visit(1)]);
}

/// Of a row that is back, readers do not hear that it ever left.
pub async fn a_row_that_comes_back_does_not_depart(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    device.commit(&store, [insert_visit(1, "a")]).await;
    device.commit(&store, [move_visit(1, "b")]).await;
    device.commit(&store, [move_visit(1, "a")]).await;
    let rows = Reader::new(vec![site("a")]).page(&store, Limits::NONE).await.rows;
    assert_eq!(rows.len(), 1);
    assert!(matches!(rows[0].change, RowChange::State(_)));
    let rows = Reader::new(vec![site("b")]).page(&store, Limits::NONE).await.rows;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].change, RowChange::Departed);
}

/// Of several departures of a row from a scope only the last one comes.
pub async fn a_row_leaves_the_same_scope_twice(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    device.commit(&store, [insert_visit(1, "a")]).await;
    for target in ["b", "a", "b"] {
        device.commit(&store, [move_visit(1, target)]).await;
    }
    let head = store.head().await.unwrap().seq;
    let rows = Reader::new(vec![site("a")]).page(&store, Limits::NONE).await.rows;
    let departures: Vec<_> = rows.iter().map(|row| (row.seq, row.change.clone())).collect();
    assert_eq!(departures, [(head - 1, RowChange::Departed)]);
}

/// A page holds the scopes that were asked for, and no others.
pub async fn unread_scopes_do_not_show(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mutations = [insert_note(1, "x"), insert_visit(1, "a"), insert_visit(2, "b")];
    Device::new(1).commit(&store, mutations).await;
    for scope in [tenant(), site("a"), site("b")] {
        let mut reader = Reader::new(vec![scope.clone()]);
        let page = reader.page(&store, Limits::NONE).await;
        assert_eq!(reader.rows.len(), 1);
        assert!(page.totals.keys().all(|(of, _)| *of == scope));
        assert_eq!(page.totals.len(), 1);
    }
    let mut reader = Reader::new(vec![site("nowhere")]);
    assert!(reader.page(&store, Limits::NONE).await.complete);
    assert!(reader.rows.is_empty());
}

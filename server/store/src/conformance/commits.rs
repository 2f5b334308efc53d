//! What commits do to rows.

use farshore_sync_core::hlc::{Hlc, Stamp};
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::value::Value;

use super::Storage;
use super::fixture::{Device, answers, commit, row, sample_store, scope_of};
use super::reader::Reader;
use super::sample::{
    LIKES, NOW_MS, TAGS, TITLE, delete, insert_note, insert_visit, like, note, rate, restore,
    retitle, site, tag, tenant, untag, visit,
};
use crate::StoreError;
use crate::sync::{Batch, RowChange};

/// Without a schema nothing can be pushed.
pub async fn a_commit_without_a_schema_is_refused(storage: &dyn Storage) {
    let (catalog, authority) = storage.open().await;
    let store = catalog.create(&scope_of(&authority, "demo"), NOW_MS).await.unwrap();
    let mut device = Device::new(1);
    let transaction = device.transaction([insert_note(1, "x")]);
    let batch = Batch { now_ms: NOW_MS, pushes: vec![device.push([transaction])] };
    assert!(matches!(store.commit(batch).await, Err(StoreError::NoSchema)));
}

/// What was inserted is read, and the answer to the commit says the same as the page.
pub async fn an_insert_is_read_back(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let committed = Device::new(1).commit(&store, [insert_note(1, "hello")]).await;
    assert_eq!(row(&store, note(1)).await.value(TITLE), Some(&Value::from("hello")));
    assert_eq!((committed.seq_before, committed.seq), (0, 1));
    let reader = Reader::everything(&store).await;
    let [changed] = &committed.rows[..] else { panic!("one row changed: {committed:?}") };
    let held = &reader.rows[&note(1)];
    assert_eq!((changed.seq, &changed.scope), (1, &tenant()));
    assert_eq!(changed.change, RowChange::State(held.state.clone()));
}

/// Cells, counters and sets of several transactions of one commit add up.
pub async fn every_kind_of_mutation_is_kept(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    device.commit(&store, [insert_note(1, "draft"), tag(1, "old"), tag(1, "kept")]).await;
    let seen = vec![device.stamp()];
    let transactions = [
        device.transaction([retitle(1, "final"), like(1, 5)]),
        device.transaction([like(1, -2), untag(1, "old", seen), tag(1, "new")]),
    ];
    commit(&store, [device.push(transactions)]).await;
    let row = row(&store, note(1)).await;
    assert_eq!(row.value(TITLE), Some(&Value::from("final")));
    assert_eq!(row.counter(LIKES), 3);
    let tags: Vec<_> = row.set(TAGS).collect();
    assert_eq!(tags, [&Value::from("kept"), &Value::from("new")]);
}

/// Each row that is written takes the next seq; a row written twice in a commit takes one.
pub async fn the_seq_rises_without_gaps(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    let mut expected = 0;
    for number in 1..=5 {
        let mutations = [insert_note(number, "a"), insert_visit(number, "a"), retitle(number, "b")];
        let committed = device.commit(&store, mutations).await;
        assert_eq!(committed.seq_before, expected);
        let seqs: Vec<_> = committed.rows.iter().map(|row| row.seq).collect();
        assert_eq!(seqs, [expected + 1, expected + 2]);
        expected += 2;
        assert_eq!(committed.seq, expected);
        assert_eq!(store.head().await.unwrap().seq, expected);
    }
}

/// A delete keeps the values for a restore; until then edits are refused.
pub async fn a_deleted_row_comes_back_with_its_values(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let (mut device, mut other) = (Device::new(1), Device::new(2));
    device.commit(&store, [insert_note(1, "kept"), like(1, 2)]).await;
    device.commit(&store, [delete(note(1))]).await;
    assert!(Reader::everything(&store).await.rows.is_empty());
    assert_eq!(other.refused(&store, [retitle(1, "late")]).await, ReasonCode::RowDeleted);
    device.commit(&store, [restore(note(1))]).await;
    let row = row(&store, note(1)).await;
    assert_eq!((row.value(TITLE), row.counter(LIKES)), (Some(&Value::from("kept")), 2));
}

/// A transaction is refused as a whole; those before and after it apply.
pub async fn a_refused_transaction_leaves_the_others(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    let cut_short = |mut bytes: Vec<u8>| {
        bytes.pop();
        bytes
    };
    let transactions = [
        device.transaction([insert_note(1, "first")]),
        device.transaction([insert_note(2, "half"), rate(1, 9)]),
        cut_short(device.transaction([insert_note(9, "cut short")])),
        device.transaction([retitle(7, "nobody")]),
        device.transaction([insert_note(3, "last")]),
    ];
    let committed = commit(&store, [device.push(transactions)]).await;
    let reasons = answers(&committed.results[0]).iter().map(|answer| {
        (answer.number, answer.refused.as_ref().map(|refused| (refused.index, refused.code)))
    });
    let expected = [
        (1, None),
        (2, Some((1, ReasonCode::OutOfRange))),
        (3, Some((0, ReasonCode::Malformed))),
        (4, Some((0, ReasonCode::RowMissing))),
        (5, None),
    ];
    assert_eq!(reasons.collect::<Vec<_>>(), expected);
    let keys: Vec<_> = Reader::everything(&store).await.rows.into_keys().collect();
    assert_eq!(keys, [note(1), note(3)]);
    let high_water = store.device_progress(device.id).await.unwrap().high_water;
    assert_eq!(high_water, 5, "refused transactions are answered too");
}

/// Pushes of several devices commit in their order, each under its own rights.
pub async fn devices_commit_together(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let (mut left, mut right) = (Device::new(1), Device::new(2));
    right.grants.retain(|grant| grant.scope == site("a"));
    let pushes = [
        left.transaction([insert_note(1, "left"), like(1, 1)]),
        left.transaction([insert_visit(1, "a")]),
    ];
    let theirs = [right.transaction([insert_visit(2, "a")]), right.transaction([like(1, 10)])];
    let committed = commit(&store, [left.push(pushes), right.push(theirs)]).await;
    assert!(answers(&committed.results[0]).iter().all(|answer| answer.refused.is_none()));
    let answers = answers(&committed.results[1]);
    assert_eq!(answers[0].refused, None);
    assert!(answers[1].refused.is_some(), "no right in the scope of the notes");
    let reader = Reader::everything(&store).await;
    assert_eq!(reader.rows.into_keys().collect::<Vec<_>>(), [note(1), visit(1), visit(2)]);
    assert_eq!(row(&store, note(1)).await.counter(LIKES), 1);
}

/// The later stamp wins, whatever arrives last.
pub async fn a_late_write_does_not_win(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let (mut early, mut late) = (Device::new(1), Device::new(2));
    late.clock = Hlc::from_wall_ms(NOW_MS + 1_000);
    late.commit(&store, [insert_note(1, "later")]).await;
    early.commit(&store, [retitle(1, "earlier")]).await;
    assert_eq!(row(&store, note(1)).await.value(TITLE), Some(&Value::from("later")));
}

/// A stamp from far ahead is stored as the time of receipt, in order, and the device is told; the mark of it
/// outlives the commit.
pub async fn a_clock_far_ahead_is_corrected(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let mut device = Device::new(1);
    device.clock = Hlc::from_wall_ms(NOW_MS + 999_999_999);
    let mut corrected = Vec::new();
    for title in ["first", "second"] {
        let transaction = device.transaction([insert_note(1, title)]);
        let committed = commit(&store, [device.push([transaction])]).await;
        corrected.push(answers(&committed.results[0])[0].corrected.unwrap());
    }
    assert_eq!(corrected[0], Hlc::from_wall_ms(NOW_MS));
    assert_eq!(corrected[1], corrected[0].next());
    let row = row(&store, note(1)).await;
    let cell = row.cell(TITLE).unwrap();
    assert_eq!(cell.value, Value::from("second"));
    assert_eq!(cell.stamp, Stamp { hlc: corrected[1], device: device.id });
}

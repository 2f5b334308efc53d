//! The server's rows under pending transactions.

use farshore_sync_core::ids::{CollectionId, ColumnId, RowId};
use farshore_sync_core::mutation::{Cells, Op};
use farshore_sync_core::value::Value;

use super::super::{ColumnValue, GRAVE_RETENTION_MS, SqlValue};
use super::harness::{Device, NOW, device};
use super::server::Server;

const ITEMS: CollectionId = CollectionId(1);
const TITLE: ColumnId = ColumnId(1);
const SIZE: ColumnId = ColumnId(2);
const STOCK: ColumnId = ColumnId(9);

fn update(column: ColumnId, value: impl Into<Value>) -> Op {
    Op::Update { cells: Cells::new(vec![(column, value.into())]) }
}

/// An item that the server and a device in step with it have.
fn shared_item(device: &Device, server: &mut Server) -> RowId {
    let id = device.insert_item("shared");
    device.sync_in_step(server);
    id
}

#[test]
fn local_writes_come_back_confirmed_and_leave_the_outbox() {
    let (device, mut server) = (Device::new(1), Server::new());
    let id = device.write(|tx| {
        let id = tx.insert("items", None, &[("title", "x".into())])?;
        tx.increment("items", id, "stock", 3)?;
        tx.set_add("items", id, "tags", "t".into())?;
        Ok(id)
    });
    assert_eq!(device.store.counts().unwrap().unanswered, 1);
    device.sync_in_step(&mut server);
    let counts = device.store.counts().unwrap();
    assert_eq!((counts.unanswered, counts.unconfirmed, counts.cursor), (0, 0, server.seq));
    assert_eq!(device.stock(id), 3);
    assert_eq!(server.rows[&(ITEMS, id)].state.counter(STOCK), 3);
    let pending = device.hidden("SELECT count(*) FROM fs_rows_items WHERE fs_pending IS NOT NULL");
    assert_eq!(pending, [[SqlValue::Int(0)]]);
    device.check();
}

#[test]
fn pending_writes_stay_on_top_of_what_the_server_sends() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = shared_item(&local, &mut server);
    local.write(|tx| {
        tx.update("items", id, &[("title", "mine".into())])?;
        tx.increment("items", id, "stock", 5)
    });
    server.edit(device(9), NOW + 1, ((ITEMS, id), update(SIZE, 42)));
    server.edit(device(9), NOW + 2, ((ITEMS, id), Op::Increment { column: STOCK, delta: 10 }));
    let checked = local.pull(&server);
    assert!(checked.in_step, "digests are over what the server confirmed");
    assert_eq!(local.text("items", id, "title"), "mine");
    assert_eq!(local.column("items", id, "size"), ColumnValue::Scalar(42.into()));
    assert_eq!(local.stock(id), 15);
    local.check();
    local.sync_in_step(&mut server);
    assert_eq!(local.stock(id), 15);
    assert_eq!(server.rows[&(ITEMS, id)].state.value(TITLE), Some(&"mine".into()));
}

#[test]
fn a_later_write_of_another_device_wins_over_a_pending_one() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = shared_item(&local, &mut server);
    local.write(|tx| tx.update("items", id, &[("title", "mine".into())]));
    server.edit(device(9), NOW + 50_000, ((ITEMS, id), update(TITLE, "later")));
    local.pull(&server);
    assert_eq!(local.text("items", id, "title"), "later");
    local.write(|tx| tx.update("items", id, &[("title", "mine again".into())]));
    assert_eq!(
        local.text("items", id, "title"),
        "mine again",
        "a write follows what it was made upon"
    );
    local.sync_in_step(&mut server);
    assert_eq!(local.text("items", id, "title"), "mine again");
}

#[test]
fn a_delete_from_the_server_beats_a_pending_edit() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = shared_item(&local, &mut server);
    local.write(|tx| tx.update("items", id, &[("title", "mine".into())]));
    server.edit(device(9), NOW + 1, ((ITEMS, id), Op::Delete));
    local.pull(&server);
    assert!(!local.exists("items", id));
    local.check();
    local.sync_in_step(&mut server);
    let quarantined = local.store.quarantine().unwrap();
    assert_eq!(quarantined.len(), 1);
    assert_eq!(quarantined[0].code.as_str(), "row_deleted");
    local.write(|tx| tx.restore("items", id));
    assert_eq!(local.text("items", id, "title"), "shared");
    local.sync_in_step(&mut server);
    assert_eq!(local.text("items", id, "title"), "shared");
}

#[test]
fn a_pending_delete_hides_the_row_and_its_digest_stays_the_servers() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = shared_item(&local, &mut server);
    local.write(|tx| tx.delete("items", id));
    server.edit(device(9), NOW + 1, ((ITEMS, id), update(SIZE, 1)));
    assert!(local.pull(&server).in_step);
    assert!(!local.exists("items", id));
    local.check();
    local.sync_in_step(&mut server);
    assert!(!local.exists("items", id));
    local.check();
}

#[test]
fn an_answer_that_comes_after_its_checkpoint_confirms_at_once() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = shared_item(&local, &mut server);
    local.write(|tx| tx.increment("items", id, "stock", 5));
    let outcomes = server.push(local.id, &local.outbox());
    local.pull(&server);
    local.outcomes(outcomes);
    assert_eq!(local.stock(id), 5);
    assert_eq!(local.store.counts().unwrap().unconfirmed, 0);
    local.check();
}

#[test]
fn increments_whose_answer_was_lost_do_not_count_twice() {
    let (mut local, mut server) = (Device::new(1), Server::new());
    let id = shared_item(&local, &mut server);
    local.write(|tx| tx.increment("items", id, "stock", 5));
    server.push(local.id, &local.outbox());
    // The connection broke before the answer. The next one brings the row before it answers the resend.
    local.reopen();
    local.greet(&server);
    assert!(local.pull(&server).in_step);
    assert_eq!(local.stock(id), 5);
    assert_eq!(
        local.store.counts().unwrap().unanswered,
        1,
        "the answer still counts: it might be a refusal"
    );
    local.write(|tx| tx.increment("items", id, "stock", 1));
    assert_eq!(local.stock(id), 6);
    local.sync_in_step(&mut server);
    assert_eq!(local.stock(id), 6);
    assert_eq!(local.store.counts().unwrap().unconfirmed, 0);
    local.check();
}

#[test]
fn a_row_that_moves_between_scopes_follows() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.write(|tx| tx.insert("visits", None, &[("site", "a".into())]));
    local.sync_in_step(&mut server);
    local.write(|tx| tx.update("visits", id, &[("site", "b".into())]));
    local.check();
    local.sync_in_step(&mut server);
    local.check();
    let visits = CollectionId(3);
    server.edit(device(9), NOW + 1, ((visits, id), update(ColumnId(1), "elsewhere")));
    assert!(local.pull(&server).in_step);
    assert!(!local.exists("visits", id), "it left every scope of this device");
    server.edit(device(9), NOW + 2, ((visits, id), update(ColumnId(1), "a")));
    assert!(local.pull(&server).in_step);
    assert!(local.exists("visits", id));
    local.check();
}

#[test]
fn a_pending_edit_of_a_row_that_left_waits_for_its_answer() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.write(|tx| tx.insert("visits", None, &[("site", "a".into())]));
    local.sync_in_step(&mut server);
    local.write(|tx| tx.update("visits", id, &[("purpose", "mine".into())]));
    let visits = CollectionId(3);
    server.edit(device(9), NOW + 1, ((visits, id), update(ColumnId(1), "elsewhere")));
    local.pull(&server);
    assert!(!local.exists("visits", id));
    local.check();
    server.edit(device(9), NOW + 2, ((visits, id), update(ColumnId(1), "b")));
    local.pull(&server);
    assert_eq!(local.text("visits", id, "purpose"), "mine", "it came back under what waits");
    local.sync_in_step(&mut server);
    assert_eq!(local.text("visits", id, "purpose"), "mine");
    local.check();
}

#[test]
fn a_clock_that_runs_ahead_is_corrected_and_its_writes_are_kept() {
    let (local, mut server) = (Device::new(1), Server::new());
    let ahead = NOW + 365 * 86_400_000;
    let id = local
        .store
        .write(ahead, |tx| tx.insert("items", None, &[("title", "future".into())]))
        .unwrap();
    local.sync_in_step(&mut server);
    let counts = local.store.counts().unwrap();
    assert_eq!(counts.corrections, 1);
    assert_eq!(counts.last_correction_ms, -365 * 86_400_000);
    assert_eq!(local.text("items", id, "title"), "future");
    local.write(|tx| tx.update("items", id, &[("title", "now".into())]));
    assert_eq!(local.text("items", id, "title"), "now");
    local.sync_in_step(&mut server);
    assert_eq!(local.text("items", id, "title"), "now");
    assert_eq!(local.store.counts().unwrap().corrections, 1);
}

#[test]
fn a_later_local_write_wins_over_an_earlier_one_although_the_clock_was_corrected() {
    let (local, mut server) = (Device::new(1), Server::new());
    let ahead = NOW + 365 * 86_400_000;
    let id = local.store.write(ahead, |tx| tx.insert("items", None, &[])).unwrap();
    let first = local.outbox();
    local.store.write(ahead, |tx| tx.update("items", id, &[("title", "earlier".into())])).unwrap();
    local.greet(&server);
    let outcomes = server.push(local.id, &first);
    local.outcomes(outcomes);
    local.write(|tx| tx.update("items", id, &[("title", "later".into())]));
    assert_eq!(local.text("items", id, "title"), "later");
    local.sync_in_step(&mut server);
    assert_eq!(local.text("items", id, "title"), "later");
}

#[test]
fn a_local_write_wins_over_one_of_which_the_answer_came_and_the_page_did_not() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = shared_item(&local, &mut server);
    let ahead = NOW + 365 * 86_400_000;
    local.store.write(ahead, |tx| tx.update("items", id, &[("title", "earlier".into())])).unwrap();
    let outcomes = server.push(local.id, &local.outbox());
    assert!(outcomes[0].corrected.is_some());
    local.outcomes(outcomes);
    local.write(|tx| tx.update("items", id, &[("title", "later".into())]));
    assert_eq!(local.text("items", id, "title"), "later");
    local.sync_in_step(&mut server);
    assert_eq!(local.text("items", id, "title"), "later");
}

#[test]
fn deleted_rows_are_forgotten_after_their_retention() {
    let (local, mut server) = (Device::new(1), Server::new());
    let (id, waiting) = (shared_item(&local, &mut server), shared_item(&local, &mut server));
    local.write(|tx| tx.delete("items", id));
    local.sync_in_step(&mut server);
    let graves = || local.hidden("SELECT count(*) FROM fs_graves").remove(0).remove(0);
    assert_eq!(graves(), SqlValue::Int(1));
    let later = NOW + GRAVE_RETENTION_MS + 86_400_000;
    server.now_ms = later;
    local.store.write(later, |tx| tx.insert("items", None, &[])).unwrap();
    local.sync_in_step(&mut server);
    assert_eq!(graves(), SqlValue::Int(0));
    assert!(local.exists("items", waiting));
    local.check();
}

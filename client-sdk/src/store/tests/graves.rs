//! Deleted rows: what a device knows of them stays with it, since the server sends no values of them.

use farshore_sync_core::document::DocumentPath;
use farshore_sync_core::ids::{CollectionId, ColumnId};
use farshore_sync_core::mutation::{Cells, Op, Transaction};
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::value::Value;

use super::super::{GRAVE_RETENTION_MS, WriteError, WriteTransaction};
use super::harness::{Device, NOW, device};
use super::server::Server;

const ITEMS: CollectionId = CollectionId(1);
const VISITS: CollectionId = CollectionId(3);

#[test]
fn a_clock_that_jumps_by_years_makes_nobody_forget_a_deletion() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.insert_item("deleted");
    local.sync_in_step(&mut server);
    let backup = server.clone();
    local.write(|tx| tx.delete("items", id));
    local.sync_in_step(&mut server);
    let ahead = NOW + 2 * GRAVE_RETENTION_MS;
    local.store.write(ahead, |tx| tx.insert("items", None, &[])).unwrap();
    local.sync_in_step(&mut server);
    let mut restored = backup;
    restored.epoch += 1;
    local.sync(&mut restored);
    local.sync_in_step(&mut restored);
    assert!(!local.exists("items", id));
    assert!(restored.rows[&(ITEMS, id)].state.is_deleted());
    local.check();
}

#[test]
fn a_row_that_left_its_scope_and_was_deleted_at_once_has_a_grave() {
    let (local, other, mut server) = (Device::new(1), Device::new(2), Server::new());
    let visit = |tx: &mut WriteTransaction<'_>| {
        tx.insert("visits", None, &[("site", "a".into()), ("purpose", "audit".into())])
    };
    let id = local.write(visit);
    local.sync_in_step(&mut server);
    other.sync_in_step(&mut server);
    let backup = server.clone();
    local.write(|tx| {
        tx.update("visits", id, &[("site", "b".into())])?;
        tx.delete("visits", id)
    });
    local.sync_in_step(&mut server);
    other.sync_in_step(&mut server);
    for witness in [&local, &other] {
        let mut restored = backup.clone();
        restored.epoch += 1;
        witness.sync(&mut restored);
        witness.sync_in_step(&mut restored);
        assert!(!witness.exists("visits", id));
        assert!(restored.rows[&(VISITS, id)].state.is_deleted());
        witness.write(|tx| tx.restore("visits", id));
        assert_eq!(witness.text("visits", id, "purpose"), "audit");
        witness.check();
    }
}

#[test]
fn a_row_that_left_its_scope_and_was_deleted_at_once_keeps_its_document() {
    for rows_per_page in [1, 1_000] {
        let (local, other, mut server) = (Device::new(1), Device::new(2), Server::new());
        let id = local.write(|tx| tx.insert("visits", None, &[("site", "a".into())]));
        let type_word = |local: &Device, at: usize, word: &str| {
            local.write(|tx| tx.edit_text("visits", id, "report", "text", at, 0, word));
        };
        type_word(&local, 0, "one");
        local.sync_in_step(&mut server);
        server.rows_per_page = rows_per_page;
        type_word(&local, 3, " two");
        local.write(|tx| tx.update("visits", id, &[("site", "b".into())]));
        local.write(|tx| tx.delete("visits", id));
        local.greet(&server);
        let outcomes = server.push(local.id, &local.outbox());
        local.outcomes(outcomes);
        let pages = server.pages(&local.standing());
        let (last, first) = pages.split_last().unwrap();
        assert_eq!(first.is_empty(), rows_per_page > 1);
        for page in first {
            assert_eq!(local.page(page.clone()), None);
        }
        local.write(|tx| tx.restore("visits", id));
        assert!(local.page(last.clone()).unwrap().in_step);
        type_word(&local, 7, " three");
        local.check();
        local.sync_in_step(&mut server);
        other.sync_in_step(&mut server);
        for device in [&local, &other] {
            let path = DocumentPath::from(["text"]);
            let text = device.store.document_text("visits", id, "report", &path).unwrap();
            assert_eq!(text.as_deref(), Some("one two three"));
            device.check();
        }
    }
}

#[test]
fn a_row_that_comes_twice_before_its_deletion_keeps_what_was_done_to_it() {
    let (local, mut server) = (Device::new(1), Server::new());
    let (id, second) = (local.insert_item("first"), local.insert_item("second"));
    local.sync_in_step(&mut server);
    for row in [id, second] {
        let op = Op::Update { cells: Cells::new(vec![(ColumnId(2), 9.into())]) };
        server.edit(device(9), NOW + 5, ((ITEMS, row), op));
    }
    server.rows_per_page = 1;
    local.write(|tx| tx.increment("items", id, "stock", 8));
    local.write(|tx| tx.delete("items", id));
    local.greet(&server);
    local.page(server.pages(&local.standing())[0].clone());
    let outcomes = server.push(local.id, &local.outbox());
    local.outcomes(outcomes);
    assert!(local.pull(&server).in_step);
    local.check();
    local.write(|tx| tx.restore("items", id));
    assert_eq!(local.stock(id), 8);
}

#[test]
fn what_was_offered_of_a_deleted_row_stays_in_its_grave() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.insert_item("deleted");
    local.sync_in_step(&mut server);
    let mut restored = server.clone();
    restored.epoch += 1;
    local.write(|tx| tx.increment("items", id, "stock", 8));
    local.write(|tx| tx.delete("items", id));
    local.sync_in_step(&mut server);
    local.sync(&mut restored);
    // Somebody else offers the same first, so that this device's own offer changes nothing and brings no page.
    for (number, (_, bytes)) in (1..).zip(local.outbox()) {
        let offer = Transaction { number, ..Transaction::decode(&bytes).unwrap() };
        restored.push(device(9), &[(number, offer.encode())]);
    }
    assert!(local.pull(&restored).in_step);
    let outcomes = restored.push(local.id, &local.outbox());
    local.outcomes(outcomes);
    assert_eq!(local.store.counts().unwrap().unconfirmed, 0);
    local.check();
    local.write(|tx| tx.restore("items", id));
    assert_eq!(local.stock(id), 8);
}

/// The server sends no values of a deleted row, so that a device may bring one back of which it knows none.
#[test]
fn a_row_is_written_as_soon_as_it_is_brought_back() {
    let (writer, local, mut server) = (Device::new(1), Device::new(2), Server::new());
    let visit = writer.write(|tx| {
        tx.insert("visits", None, &[("site", "a".into()), ("purpose", "audit".into())])
    });
    writer.write(|tx| tx.delete("visits", visit));
    writer.sync_in_step(&mut server);
    // Its own row of that id is refused.
    local.write(|tx| tx.insert("visits", Some(visit), &[("site", "b".into())]));
    local.greet(&server);
    local.pull(&server);
    local.sync_in_step(&mut server);
    assert!(!local.exists("visits", visit));
    local.write(|tx| tx.restore("visits", visit));
    local.write(|tx| tx.update("visits", visit, &[("purpose", "repair".into())]));
    local.sync_in_step(&mut server);
    assert_eq!(local.text("visits", visit, "site"), "a");
    assert_eq!(local.text("visits", visit, "purpose"), "repair");
    let nowhere =
        |tx: &mut WriteTransaction<'_>| tx.update("visits", visit, &[("site", Value::Null)]);
    let error = local.store.write(NOW, nowhere).unwrap_err();
    assert!(matches!(error, WriteError::Invalid { code: ReasonCode::NoScope, .. }), "{error}");
    local.check();
}

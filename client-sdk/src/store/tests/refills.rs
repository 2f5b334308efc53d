//! Filling anew: below the horizon the server is right, in a new epoch what it lost is offered again.

use farshore_sync_core::document::DocumentPath;
use farshore_sync_core::ids::{CollectionId, ColumnId, RowId};
use farshore_sync_core::mutation::{Cells, Op, Transaction};
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::replica::{StoreReply, StoreRequest};
use farshore_sync_core::wire::{Refill, Rights};

use super::super::ColumnValue;
use super::harness::{Device, NOW, device, row, scope};
use super::server::Server;

const ITEMS: CollectionId = CollectionId(1);

/// The device is told that it is filled anew.
fn hear_of(local: &Device, server: &mut Server, refill: Refill) {
    server.refill = refill;
    local.greet(server);
    server.refill = Refill::No;
}

/// Greets with a refill and pulls; whether the outbox grew.
fn refill(local: &Device, server: &mut Server, refill: Refill) -> bool {
    hear_of(local, server, refill);
    let outcomes = server.push(local.id, &local.outbox());
    local.outcomes(outcomes);
    let mut grew = false;
    for page in server.pages(&local.standing()) {
        match local.handle(StoreRequest::Page(page)) {
            StoreReply::PageStored { outbox_grew, .. } => grew |= outbox_grew,
            other => panic!("{other:?}"),
        }
    }
    local.check();
    grew
}

#[test]
fn below_the_horizon_rows_that_do_not_come_again_are_gone() {
    let (mut local, mut server) = (Device::new(1), Server::new());
    server.rows_per_page = 1;
    let (kept, gone, edited) =
        (local.insert_item("kept"), local.insert_item("gone"), local.insert_item("edited"));
    let grave = local.insert_item("grave");
    local.insert_item("kept too");
    local.write(|tx| tx.delete("items", grave));
    local.sync_in_step(&mut server);
    for id in [gone, edited] {
        server.edit(device(9), NOW + 1, ((ITEMS, id), Op::Delete));
    }
    server.edit(device(9), NOW + 2, ((ITEMS, kept), Op::Update { cells: Cells::new(vec![]) }));
    server.purge();
    let unsent = local.insert_item("unsent");
    local.write(|tx| tx.update("items", edited, &[("size", 3.into())]));

    server.refill = Refill::BelowHorizon;
    local.greet(&server);
    server.refill = Refill::No;
    assert_eq!(local.standing().cursor, 0);
    let pages = server.pages(&local.standing());
    local.page(pages[0].clone());
    assert!(local.exists("items", gone), "nothing changes before the refill is complete");
    local.reopen();
    let grew = refill(&local, &mut server, Refill::BelowHorizon);
    assert!(!grew);
    assert!(local.exists("items", kept) && local.exists("items", unsent));
    assert!(!local.exists("items", gone) && !local.exists("items", edited));
    assert_eq!(local.hidden("SELECT count(*) FROM fs_graves"), [[super::super::SqlValue::Int(0)]]);
    let codes: Vec<_> =
        local.store.quarantine().unwrap().iter().map(|entry| entry.code.as_str()).collect();
    assert_eq!(codes, ["row_missing"]);
    local.sync_in_step(&mut server);
}

#[test]
fn a_refill_that_was_interrupted_goes_on_where_it_was() {
    let (mut local, mut server) = (Device::new(1), Server::new());
    server.rows_per_page = 2;
    let ids: Vec<_> = (0..6).map(|_| local.insert_item("x")).collect();
    local.sync_in_step(&mut server);
    server.rows.remove(&(ITEMS, ids[5]));
    server.refill = Refill::BelowHorizon;
    local.greet(&server);
    server.refill = Refill::No;
    let pages = server.pages(&local.standing());
    local.page(pages[0].clone());
    local.reopen();
    local.greet(&server);
    let rest = server.pages(&local.standing());
    assert_eq!(rest.iter().map(|page| page.rows.len()).sum::<usize>(), 3);
    assert!(local.pages(rest).unwrap().in_step);
    assert!(local.exists("items", ids[0]) && !local.exists("items", ids[5]));
    local.check();
}

#[test]
fn in_a_new_epoch_what_the_server_lost_is_offered_again() {
    let (local, mut server) = (Device::new(1), Server::new());
    let path = DocumentPath::from(["text"]);
    let old =
        local.write(|tx| tx.insert("items", None, &[("title", "old".into()), ("size", 1.into())]));
    let note = local.write(|tx| tx.insert("notes", None, &[("title", "note".into())]));
    local.write(|tx| tx.edit_text("notes", note, "body", "text", 0, 0, "backed up"));
    local.write(|tx| tx.increment("items", old, "stock", 4));
    local.sync_in_step(&mut server);
    let backup = server.clone();

    local.write(|tx| {
        tx.update("items", old, &[("title", "newer".into())])?;
        tx.increment("items", old, "stock", 6)?;
        tx.set_add("items", old, "tags", "t".into())
    });
    let lost = local.insert_item("lost");
    let lost_note = local.write(|tx| {
        let id = tx.insert("notes", None, &[("title", "lost note".into())])?;
        tx.edit_text("notes", id, "body", "text", 0, 0, "lost text")?;
        Ok(id)
    });
    local.write(|tx| tx.edit_text("notes", note, "body", "text", 9, 0, " and more"));
    local.sync_in_step(&mut server);
    // Answered, but its checkpoint has not come.
    local.write(|tx| tx.increment("items", old, "stock", 1));
    let outcomes = server.push(local.id, &local.outbox());
    local.outcomes(outcomes);
    // Not sent.
    local.write(|tx| tx.increment("items", old, "stock", 2));

    let mut restored = backup;
    restored.epoch = 8;
    restored.edit(
        device(9),
        NOW + 5,
        (
            (ITEMS, old),
            Op::Update {
                cells: Cells::new(vec![(farshore_sync_core::ids::ColumnId(2), 9.into())]),
            },
        ),
    );
    assert!(refill(&local, &mut restored, Refill::NewEpoch));
    assert_eq!(local.stock(old), 13);
    local.sync_in_step(&mut restored);
    assert_eq!(local.store.quarantine().unwrap(), []);
    assert_eq!(local.text("items", old, "title"), "newer");
    assert_eq!(local.column("items", old, "size"), super::super::ColumnValue::Scalar(9.into()));
    assert_eq!(local.stock(old), 13);
    assert_eq!(
        restored.rows[&(ITEMS, old)].state.counter(farshore_sync_core::ids::ColumnId(9)),
        13
    );
    assert_eq!(local.text("items", lost, "title"), "lost");
    for (id, text) in [(note, "backed up and more"), (lost_note, "lost text")] {
        assert_eq!(local.store.document_text("notes", id, "body", &path).unwrap().unwrap(), text);
        let other = Device::new(2);
        other.sync_in_step(&mut restored);
        assert_eq!(other.store.document_text("notes", id, "body", &path).unwrap().unwrap(), text);
    }
    local.check();
}

#[test]
fn a_part_of_a_first_fill_is_not_offered_and_what_was_answered_is() {
    let (mut local, mut server) = (Device::new(1), Server::new());
    server.rows_per_page = 2;
    let items: Vec<_> = (1..=3).map(row).collect();
    let insert = |title: &str| {
        let cells = Cells::new(vec![(ColumnId(1), title.into())]);
        Op::Insert { cells }
    };
    for id in &items {
        server.edit(device(9), NOW, ((ITEMS, *id), insert("of one transaction")));
    }
    let mine = local.insert_item("mine");
    local.greet(&server);
    let pages = server.pages(&local.standing());
    local.page(pages[0].clone());
    local.write(|tx| tx.update("items", items[0], &[("size", 3.into())]));
    let outcomes = server.push(local.id, &local.outbox());
    local.outcomes(outcomes);
    assert!(local.exists("items", items[1]) && !local.exists("items", items[2]));

    let mut restored = Server::new();
    restored.epoch += 1;
    local.reopen();
    assert!(refill(&local, &mut restored, Refill::NewEpoch));
    let offered: Vec<_> = local
        .outbox()
        .iter()
        .flat_map(|(_, bytes)| Transaction::decode(bytes).unwrap().mutations)
        .map(|mutation| mutation.row)
        .collect();
    assert!(offered.contains(&mine), "{offered:?}");
    assert!(!offered.contains(&items[1]) && !offered.contains(&items[2]), "{offered:?}");
    assert!(local.exists("items", mine) && !local.exists("items", items[1]));
    local.sync_in_step(&mut restored);
    // The device that wrote the three brings them back, and what this one wrote over them holds.
    for id in &items {
        restored.edit(device(9), NOW, ((ITEMS, *id), insert("of one transaction")));
    }
    local.sync_in_step(&mut restored);
    assert_eq!(local.column("items", items[0], "size"), ColumnValue::Scalar(3.into()));
    assert_eq!(local.text("items", items[0], "title"), "of one transaction");
}

#[test]
fn what_was_counted_in_a_first_fill_is_offered_once() {
    let (local, mut server) = (Device::new(1), Server::new());
    server.rows_per_page = 1;
    let items: Vec<_> = (1..=3).map(row).collect();
    let edit = |server: &mut Server, id, op| server.edit(device(9), NOW, ((ITEMS, id), op));
    for id in &items {
        edit(&mut server, *id, Op::Insert { cells: Cells::new(vec![]) });
    }
    local.greet(&server);
    local.page(server.pages(&local.standing())[0].clone());
    local.write(|tx| tx.increment("items", items[0], "stock", 3));
    let outcomes = server.push(local.id, &local.outbox());
    local.outcomes(outcomes);
    // The counted total comes with a page, and the fill is not over.
    edit(&mut server, row(4), Op::Insert { cells: Cells::new(vec![]) });
    let pages = server.pages(&local.standing());
    assert!(pages.iter().rev().skip(1).any(|page| page.rows[0].row == items[0]));
    for page in &pages[..pages.len() - 1] {
        assert_eq!(local.page(page.clone()), None);
    }

    let mut restored = Server::new();
    restored.epoch += 1;
    refill(&local, &mut restored, Refill::NewEpoch);
    local.sync_in_step(&mut restored);
    edit(&mut restored, items[0], Op::Insert { cells: Cells::new(vec![]) });
    local.sync_in_step(&mut restored);
    assert_eq!(local.stock(items[0]), 3);
}

#[test]
fn a_deletion_that_the_server_lost_is_offered_again() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.insert_item("x");
    local.sync_in_step(&mut server);
    let mut restored = server.clone();
    local.write(|tx| tx.delete("items", id));
    local.sync_in_step(&mut server);
    restored.epoch = 8;
    assert!(refill(&local, &mut restored, Refill::NewEpoch));
    assert!(!local.exists("items", id));
    local.sync_in_step(&mut restored);
    assert!(restored.rows[&(ITEMS, id)].state.is_deleted());
    local.check();
}

/// A row that has the title "new" on the device, and "old" on the server that was restored.
fn with_a_lost_title(local: &Device) -> (RowId, Server) {
    let mut server = Server::new();
    let id = local.insert_item("old");
    local.sync_in_step(&mut server);
    let mut restored = server.clone();
    restored.epoch = 8;
    local.write(|tx| tx.update("items", id, &[("title", "new".into())]));
    local.sync_in_step(&mut server);
    (id, restored)
}

/// Every device shows the title that the lost server had.
fn comes_back(local: &Device, mut restored: Server, id: RowId) {
    local.sync_in_step(&mut restored);
    let other = Device::new(2);
    other.sync_in_step(&mut restored);
    for device in [local, &other] {
        assert_eq!(device.text("items", id, "title"), "new");
        device.check();
    }
}

#[test]
fn what_the_server_lost_comes_back_with_a_restore_that_waits() {
    let local = Device::new(1);
    let (id, mut restored) = with_a_lost_title(&local);
    local.write(|tx| tx.delete("items", id));
    hear_of(&local, &mut restored, Refill::NewEpoch);
    let outcomes = restored.push(local.id, &local.outbox());
    local.outcomes(outcomes);
    local.write(|tx| tx.restore("items", id));
    local.pages(restored.pages(&local.standing()));
    comes_back(&local, restored, id);
}

#[test]
fn what_the_server_lost_comes_back_under_a_write_that_it_refuses() {
    let local = Device::new(1);
    let (id, mut restored) = with_a_lost_title(&local);
    local.write(|tx| tx.update("items", id, &[("title", "refused".into())]));
    let waiting = local.outbox();
    restored.refuse.insert((local.id, waiting[0].0), ReasonCode::RowMissing);
    hear_of(&local, &mut restored, Refill::NewEpoch);
    local.pages(restored.pages(&local.standing()));
    assert_eq!(local.text("items", id, "title"), "refused");
    let outcomes = restored.push(local.id, &waiting);
    local.outcomes(outcomes);
    assert_eq!(local.text("items", id, "title"), "new");
    comes_back(&local, restored, id);
}

#[test]
fn what_was_answered_and_had_not_come_back_is_offered_again() {
    let (local, mut server) = (Device::new(1), Server::new());
    local.sync_in_step(&mut server);
    let backup = server.clone();
    let lost = local.insert_item("lost");
    local.write(|tx| tx.increment("items", lost, "stock", 3));
    let outcomes = server.push(local.id, &local.outbox());
    local.outcomes(outcomes);
    let mut restored = backup;
    restored.epoch = 8;
    assert!(refill(&local, &mut restored, Refill::NewEpoch));
    assert_eq!((local.text("items", lost, "title"), local.stock(lost)), ("lost".to_owned(), 3));
    local.sync_in_step(&mut restored);
    let other = Device::new(2);
    other.sync_in_step(&mut restored);
    assert_eq!((other.text("items", lost, "title"), other.stock(lost)), ("lost".to_owned(), 3));
    local.check();
}

#[test]
fn a_remove_that_waits_is_not_undone_by_the_offer_of_its_add() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.insert_item("x");
    local.sync_in_step(&mut server);
    let mut restored = server.clone();
    restored.epoch = 8;
    local.write(|tx| tx.set_add("items", id, "tags", "t".into()));
    local.write(|tx| tx.set_add("items", id, "tags", "stays".into()));
    local.sync_in_step(&mut server);
    local.write(|tx| tx.set_remove("items", id, "tags", "t".into()));
    refill(&local, &mut restored, Refill::NewEpoch);
    local.sync_in_step(&mut restored);
    let other = Device::new(2);
    other.sync_in_step(&mut restored);
    for device in [&local, &other] {
        let left = super::super::ColumnValue::Set(vec!["stays".into()]);
        assert_eq!(device.column("items", id, "tags"), left);
    }
}

#[test]
fn what_was_counted_on_a_row_that_the_lost_server_had_deleted_adds_up() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.insert_item("x");
    local.sync_in_step(&mut server);
    let mut restored = server.clone();
    restored.epoch = 8;
    local.write(|tx| tx.increment("items", id, "stock", 9));
    local.write(|tx| tx.delete("items", id));
    local.sync_in_step(&mut server);
    // The restore is refused with another row, and what came after it is taken: there the row was never deleted.
    let number = local.standing().next_number;
    local.write(|tx| tx.restore("items", id));
    local.write(|tx| tx.increment("items", id, "stock", 2));
    restored.refuse.insert((local.id, number), ReasonCode::RowMissing);
    refill(&local, &mut restored, Refill::NewEpoch);
    local.sync_in_step(&mut restored);
    local.write(|tx| tx.restore("items", id));
    local.sync_in_step(&mut restored);
    assert_eq!(local.stock(id), 11);
    local.check();
}

#[test]
fn what_was_taken_on_a_row_that_is_deleted_here_is_offered_to_the_next_server() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.insert_item("old");
    local.sync_in_step(&mut server);
    let mut second = server.clone();
    second.epoch = 8;
    local.write(|tx| tx.delete("items", id));
    local.sync_in_step(&mut server);
    let third = second.clone();
    let number = local.standing().next_number;
    local.write(|tx| tx.restore("items", id));
    local.write(|tx| tx.update("items", id, &[("title", "new".into())]));
    second.refuse.insert((local.id, number), ReasonCode::RowMissing);
    // The second server takes the update and is lost before any page with it has come.
    local.greet(&second);
    let outcomes = second.push(local.id, &local.outbox());
    assert_eq!(outcomes.iter().filter(|outcome| outcome.refused.is_none()).count(), 1);
    local.outcomes(outcomes);
    let mut third = third;
    third.epoch = 9;
    refill(&local, &mut third, Refill::NewEpoch);
    local.sync_in_step(&mut third);
    local.write(|tx| tx.restore("items", id));
    local.sync_in_step(&mut third);
    assert_eq!(local.text("items", id, "title"), "new");
    assert_eq!(third.rows[&(ITEMS, id)].state.value(ColumnId(1)), Some(&"new".into()));
    local.check();
}

#[test]
fn what_was_taken_before_its_own_restore_is_offered_to_the_next_server() {
    let (local, away, mut server) = (Device::new(2), Device::new(1), Server::new());
    let id = local.insert_item("old");
    for device in [&local, &away] {
        device.sync_in_step(&mut server);
    }
    let mut second = server.clone();
    second.epoch = 8;
    let mut third = second.clone();
    third.epoch = 9;
    away.write(|tx| tx.delete("items", id));
    local.write(|tx| {
        tx.update("items", id, &[("title", "new".into())])?;
        tx.restore("items", id)
    });
    // The first server knows it as deleted, and the second one takes what was written: it never heard of that.
    away.sync_in_step(&mut server);
    local.pull(&server);
    local.greet(&second);
    let outcomes = second.push(local.id, &local.outbox());
    assert!(outcomes.iter().all(|outcome| outcome.refused.is_none()));
    local.outcomes(outcomes);
    refill(&local, &mut third, Refill::NewEpoch);
    local.sync_in_step(&mut third);
    assert_eq!(local.text("items", id, "title"), "new");
    assert_eq!(third.rows[&(ITEMS, id)].state.value(ColumnId(1)), Some(&"new".into()));
    local.check();
}

#[test]
fn what_was_taken_on_a_row_that_was_refused_here_is_offered_to_the_next_server() {
    let (local, other, mut first) = (Device::new(1), Device::new(2), Server::new());
    let (mut second, id) = (first.clone(), local.insert_item("old"));
    local.greet(&first);
    first.push(local.id, &local.outbox());
    other.sync_in_step(&mut first);
    local.write(|tx| tx.update("items", id, &[("title", "new".into())]));
    // The answer was lost with the first server. The second one has the row from the other device.
    second.epoch = 8;
    refill(&other, &mut second, Refill::NewEpoch);
    other.sync_in_step(&mut second);
    let mut third = second.clone();
    let number = local.outbox()[0].0;
    second.refuse.insert((local.id, number), ReasonCode::RowDeleted);
    local.greet(&second);
    let outcomes = second.push(local.id, &local.outbox());
    assert_eq!(outcomes.iter().filter(|outcome| outcome.refused.is_none()).count(), 1);
    local.outcomes(outcomes);
    third.epoch = 9;
    refill(&local, &mut third, Refill::NewEpoch);
    local.sync_in_step(&mut third);
    assert_eq!(local.text("items", id, "title"), "new");
    assert_eq!(third.rows[&(ITEMS, id)].state.value(ColumnId(1)), Some(&"new".into()));
    local.check();
}

#[test]
fn a_refused_offer_takes_no_other_row_with_it() {
    let (local, mut server) = (Device::new(1), Server::new());
    let mut restored = server.clone();
    restored.epoch = 8;
    let ids: Vec<_> = (0..5).map(|_| local.insert_item("x")).collect();
    local.sync_in_step(&mut server);
    assert!(refill(&local, &mut restored, Refill::NewEpoch));
    let offers = local.outbox();
    assert_eq!(offers.len(), 1);
    restored.refuse.insert((local.id, offers[0].0), ReasonCode::TooLarge);
    let outcomes = restored.push(local.id, &offers);
    local.outcomes(outcomes);
    local.check();
    let quarantined = local.store.quarantine().unwrap();
    assert_eq!((quarantined.len(), quarantined[0].mutations.len()), (1, 1));
    local.sync_in_step(&mut restored);
    let there = ids.iter().filter(|id| restored.rows.contains_key(&(ITEMS, **id))).count();
    assert_eq!((there, local.sql("SELECT id FROM items").len()), (4, 4));
    assert_eq!(local.store.counts().unwrap().unconfirmed, 0);
    local.check();
}

/// How far ahead the clock of a device is that was set wrongly, in milliseconds.
const FAR_AHEAD_MS: u64 = 100 * 86_400_000;

#[test]
fn what_is_offered_has_the_stamps_under_which_the_server_kept_it() {
    let (local, mut server) = (Device::new(1), Server::new());
    local.sync_in_step(&mut server);
    let mut restored = server.clone();
    restored.epoch = 8;
    let lost = local
        .store
        .write(NOW + FAR_AHEAD_MS, |tx| tx.insert("items", None, &[("title", "lost".into())]));
    let outcomes = server.push(local.id, &local.outbox());
    let corrected = outcomes[0].corrected.expect("the clock is far ahead");
    local.outcomes(outcomes);
    assert!(refill(&local, &mut restored, Refill::NewEpoch));
    let offered = Transaction::decode(&local.outbox()[0].1).unwrap();
    let Op::Offer { state } = &offered.mutations[0].op else { panic!("{offered:?}") };
    assert_eq!((offered.mutations[0].row, state.latest_hlc()), (lost.unwrap(), Some(corrected)));
}

#[test]
fn what_waits_for_its_answer_is_sent_and_not_offered() {
    let (local, other, mut server) = (Device::new(1), Device::new(2), Server::new());
    let id = local
        .store
        .write(NOW + FAR_AHEAD_MS, |tx| tx.insert("items", None, &[("title", "old".into())]));
    let id = id.unwrap();
    local.greet(&server);
    server.push(local.id, &local.outbox());
    other.sync_in_step(&mut server);
    other.write(|tx| tx.update("items", id, &[("title", "newer".into())]));
    other.sync_in_step(&mut server);
    // The backup has everything; only the answer never came.
    server.epoch = 8;
    assert!(!refill(&local, &mut server, Refill::NewEpoch));
    local.sync_in_step(&mut server);
    assert_eq!(local.text("items", id, "title"), "newer");
}

#[test]
fn what_is_newer_is_offered_although_the_row_has_moved_meanwhile() {
    let (local, mut server) = (Device::new(1), Server::new());
    let visit = |site: &str| [("site", site.into()), ("purpose", "old".into())];
    let id = local.write(|tx| tx.insert("visits", None, &visit("a")));
    local.sync_in_step(&mut server);
    let mut restored = server.clone();
    restored.epoch = 8;
    local.write(|tx| tx.update("visits", id, &[("purpose", "newer".into())]));
    local.sync_in_step(&mut server);
    local.write(|tx| tx.update("visits", id, &[("site", "b".into())]));
    assert!(refill(&local, &mut restored, Refill::NewEpoch));
    local.sync_in_step(&mut restored);
    assert_eq!(local.text("visits", id, "purpose"), "newer");
    let other = Device::new(2);
    other.sync_in_step(&mut restored);
    assert_eq!(other.text("visits", id, "purpose"), "newer");
    local.check();
}

#[test]
fn a_deletion_is_offered_although_the_restored_server_never_knew_the_row() {
    let (local, away, mut server) = (Device::new(1), Device::new(2), Server::new());
    let mut restored = server.clone();
    restored.epoch = 8;
    let id = local.insert_item("x");
    local.sync_in_step(&mut server);
    away.sync_in_step(&mut server);
    local.write(|tx| tx.delete("items", id));
    local.sync_in_step(&mut server);
    // Whoever has not heard of the deletion offers the row as it was.
    for device in [&local, &away, &local] {
        refill(device, &mut restored, Refill::NewEpoch);
        device.sync_in_step(&mut restored);
    }
    assert!(restored.rows[&(ITEMS, id)].state.is_deleted());
    assert!(!away.exists("items", id) && !local.exists("items", id));
}

#[test]
fn what_was_refused_for_the_lack_of_its_row_is_not_offered_with_it() {
    let (local, mut server) = (Device::new(1), Server::new());
    let mut restored = server.clone();
    restored.epoch = 8;
    let id = local.insert_item("x");
    local.sync_in_step(&mut server);
    hear_of(&local, &mut restored, Refill::NewEpoch);
    let pages = restored.pages(&local.standing());
    // Written after the greeting: its answer comes after the page.
    local.write(|tx| tx.increment("items", id, "stock", 5));
    let outcomes = restored.push(local.id, &local.outbox());
    local.pages(pages);
    local.outcomes(outcomes);
    local.sync_in_step(&mut restored);
    assert_eq!(local.store.quarantine().unwrap().len(), 1);
    assert_eq!((local.text("items", id, "title"), local.stock(id)), ("x".to_owned(), 0));
    local.check();
}

#[test]
fn a_deleted_row_keeps_no_other_row_from_its_document_changes() {
    let path = DocumentPath::from(["text"]);
    let (local, mut server) = (Device::new(1), Server::new());
    let notes = [0, 1].map(|_| local.write(|tx| tx.insert("notes", None, &[])));
    local.sync_in_step(&mut server);
    let mut restored = server.clone();
    restored.epoch = 8;
    for note in notes {
        local.write(|tx| tx.edit_text("notes", note, "body", "text", 0, 0, "word"));
    }
    local.write(|tx| tx.delete("notes", notes[0]));
    local.sync_in_step(&mut server);
    assert!(refill(&local, &mut restored, Refill::NewEpoch));
    local.sync_in_step(&mut restored);
    assert_eq!(local.store.quarantine().unwrap(), []);
    // What the deleted row held comes back with it.
    local.write(|tx| tx.restore("notes", notes[0]));
    local.sync_in_step(&mut restored);
    let other = Device::new(2);
    other.sync_in_step(&mut restored);
    for note in notes {
        let text = other.store.document_text("notes", note, "body", &path).unwrap();
        assert_eq!(text.as_deref(), Some("word"));
    }
    local.check();
}

#[test]
fn changes_that_are_offered_upon_what_the_next_server_lacks_as_well_come_back() {
    let path = DocumentPath::from(["text"]);
    let (local, mut server) = (Device::new(1), Server::new());
    let mut empty = server.clone();
    empty.epoch = 9;
    let note = local.write(|tx| tx.insert("notes", None, &[]));
    local.write(|tx| tx.edit_text("notes", note, "body", "text", 0, 0, "first"));
    local.sync_in_step(&mut server);
    let mut restored = server.clone();
    restored.epoch = 8;
    local.write(|tx| tx.edit_text("notes", note, "body", "text", 5, 0, " second"));
    local.sync_in_step(&mut server);
    assert!(refill(&local, &mut restored, Refill::NewEpoch), "the second change is offered");
    // Before that server hears of it, it is restored from an older backup.
    assert!(refill(&local, &mut empty, Refill::NewEpoch));
    local.sync_in_step(&mut empty);
    assert_eq!(local.store.quarantine().unwrap(), []);
    let other = Device::new(2);
    other.sync_in_step(&mut empty);
    for device in [&local, &other] {
        let text = device.store.document_text("notes", note, "body", &path).unwrap();
        assert_eq!(text.as_deref(), Some("first second"));
    }
    local.check();
}

#[test]
fn edits_of_several_documents_that_the_restored_server_cannot_take_stay_together() {
    let (local, mut server) = (Device::new(1), Server::new());
    let mut restored = server.clone();
    restored.epoch = 8;
    let notes = [0, 1].map(|_| local.write(|tx| tx.insert("notes", None, &[])));
    local.sync_in_step(&mut server);
    local.write(|tx| {
        tx.edit_text("notes", notes[0], "body", "text", 0, 0, "one")?;
        tx.edit_text("notes", notes[1], "body", "text", 0, 0, "two")
    });
    refill(&local, &mut restored, Refill::NewEpoch);
    local.sync_in_step(&mut restored);
    let kept = local.store.quarantine().unwrap();
    assert_eq!(kept.iter().map(|of| of.mutations.len()).collect::<Vec<_>>(), [2]);
    local.store.resubmit(kept[0].id, NOW).unwrap();
    local.sync_in_step(&mut restored);
    let other = Device::new(2);
    other.sync_in_step(&mut restored);
    for (note, word) in notes.into_iter().zip(["one", "two"]) {
        let path = DocumentPath::from(["text"]);
        let text = other.store.document_text("notes", note, "body", &path).unwrap();
        assert_eq!(text.as_deref(), Some(word));
    }
}

#[test]
fn what_a_grave_holds_is_offered_although_its_document_changes_are_refused() {
    let (local, away, mut server) = (Device::new(1), Device::new(2), Server::new());
    let note = local.write(|tx| tx.insert("notes", None, &[("title", "old".into())]));
    for device in [&local, &away] {
        device.sync_in_step(&mut server);
    }
    let mut restored = server.clone();
    restored.epoch = 8;
    local.write(|tx| tx.edit_text("notes", note, "body", "text", 0, 0, "word"));
    local.write(|tx| tx.update("notes", note, &[("title", "newer".into())]));
    local.write(|tx| tx.delete("notes", note));
    for device in [&local, &away] {
        device.sync_in_step(&mut server);
    }
    // Whoever only heard of the deletion offers it first: the row takes no document changes any more.
    for device in [&away, &local] {
        refill(device, &mut restored, Refill::NewEpoch);
        device.sync_in_step(&mut restored);
    }
    local.write(|tx| tx.restore("notes", note));
    local.sync_in_step(&mut restored);
    assert_eq!(local.text("notes", note, "title"), "newer");
    local.check();
}

#[test]
fn changes_that_a_deleted_row_has_stay_although_others_are_refused() {
    let path = DocumentPath::from(["text"]);
    let (local, away, mut server) = (Device::new(1), Device::new(2), Server::new());
    let note = local.write(|tx| tx.insert("notes", None, &[]));
    local.write(|tx| tx.edit_text("notes", note, "body", "text", 0, 0, "kept"));
    for device in [&local, &away] {
        device.sync_in_step(&mut server);
    }
    let mut restored = server.clone();
    restored.epoch = 8;
    local.write(|tx| tx.edit_text("notes", note, "body", "text", 4, 0, " and lost"));
    local.sync_in_step(&mut server);
    away.write(|tx| tx.delete("notes", note));
    refill(&away, &mut restored, Refill::NewEpoch);
    // It comes as a deleted row, without a word on its changes.
    refill(&local, &mut restored, Refill::NewEpoch);
    local.sync_in_step(&mut restored);
    local.write(|tx| tx.restore("notes", note));
    let text = || local.store.document_text("notes", note, "body", &path).unwrap();
    assert_eq!(text().as_deref(), Some("kept"));
    local.sync_in_step(&mut restored);
    assert_eq!(text().as_deref(), Some("kept"));
    local.check();
}

#[test]
fn where_the_device_may_only_read_the_restored_server_is_right() {
    let (writer, local, mut server) = (Device::new(1), Device::new(2), Server::new());
    let backup = server.clone();
    let note = writer.write(|tx| {
        let id = tx.insert("notes", None, &[])?;
        tx.edit_text("notes", id, "body", "text", 0, 0, "x")?;
        Ok(id)
    });
    writer.sync_in_step(&mut server);
    for grant in server.grants.iter_mut().filter(|grant| grant.scope == scope("tenant")) {
        grant.rights = Rights::Read;
    }
    local.sync_in_step(&mut server);
    assert!(local.exists("notes", note));
    let mut restored = backup;
    restored.grants = server.grants.clone();
    restored.epoch = 8;
    assert!(!refill(&local, &mut restored, Refill::NewEpoch));
    assert!(!local.exists("notes", note));
    assert_eq!(local.hidden("SELECT count(*) FROM fs_chunks"), [[super::super::SqlValue::Int(0)]]);
    local.check();
}

/// A device that typed into a note of which the restored server knows nothing, and has heard that it refused that.
fn with_a_word_that_the_restored_server_refused(rights: Rights) -> (Device, Server) {
    let (writer, local, mut server) = (Device::new(1), Device::new(2), Server::new());
    let mut restored = server.clone();
    restored.epoch = 8;
    let note = writer.write(|tx| tx.insert("notes", None, &[]));
    writer.sync_in_step(&mut server);
    for grants in [&mut server.grants, &mut restored.grants] {
        let mut of_notes = grants.iter_mut().filter(|grant| grant.scope == scope("tenant"));
        of_notes.next().unwrap().rights = rights;
    }
    local.sync_in_step(&mut server);
    local.write(|tx| tx.edit_text("notes", note, "body", "text", 0, 0, "word"));
    hear_of(&local, &mut restored, Refill::NewEpoch);
    let outcomes = restored.push(local.id, &local.outbox());
    assert!(outcomes[0].refused.is_some());
    local.outcomes(outcomes);
    (local, restored)
}

fn refused_for(local: &Device) -> Vec<ReasonCode> {
    local.store.quarantine().unwrap().iter().map(|refused| refused.code).collect()
}

#[test]
fn what_is_typed_where_the_device_may_only_read_is_refused_and_kept() {
    let (local, restored) = with_a_word_that_the_restored_server_refused(Rights::Read);
    assert_eq!(refused_for(&local), [ReasonCode::RowMissing]);
    local.pull(&restored);
    assert_eq!(refused_for(&local), [ReasonCode::RowMissing]);
    local.check();
}

#[test]
fn what_waits_for_the_end_of_a_refill_is_kept_where_the_right_to_write_goes_meanwhile() {
    let (local, mut restored) = with_a_word_that_the_restored_server_refused(Rights::Write);
    let again = restored.push(local.id, &local.outbox());
    assert_eq!(again.len(), 1, "it is sent again, and gets the same answer");
    local.outcomes(again);
    assert_eq!(refused_for(&local), []);
    assert_eq!(local.store.counts().unwrap().unanswered, 1);
    for grant in &mut restored.grants {
        grant.rights = Rights::Read;
    }
    local.greet(&restored);
    local.pull(&restored);
    assert_eq!(refused_for(&local), [ReasonCode::PermissionDenied]);
    assert_eq!(local.store.counts().unwrap().unanswered, 0);
    local.check();
}

#[test]
fn what_waits_for_the_end_of_a_refill_is_kept_where_its_scope_is_revoked_meanwhile() {
    let (local, mut restored) = with_a_word_that_the_restored_server_refused(Rights::Write);
    restored.grants.retain(|grant| grant.scope != scope("tenant"));
    local.greet(&restored);
    assert_eq!(refused_for(&local), [ReasonCode::ScopeRevoked]);
    local.pull(&restored);
    assert_eq!(local.store.counts().unwrap().unanswered, 0);
    local.check();
}

/// The lost server took a transaction whose answer was lost with it, and the restored one refuses it.
#[test]
fn a_remove_is_not_undone_by_an_add_that_only_another_device_knows_to_be_taken() {
    let (local, away, mut server) = (Device::new(1), Device::new(2), Server::new());
    let kept = local.insert_item("kept");
    local.sync_in_step(&mut server);
    let mut restored = server.clone();
    restored.epoch = 8;
    let lost = local.insert_item("lost");
    local.sync_in_step(&mut server);
    local.write(|tx| {
        tx.increment("items", lost, "stock", 1)?;
        tx.set_add("items", kept, "tags", "t".into())
    });
    server.push(local.id, &local.outbox());
    away.sync_in_step(&mut server);
    local.write(|tx| tx.set_remove("items", kept, "tags", "t".into()));
    for device in [&local, &away, &local, &away] {
        refill(device, &mut restored, Refill::NewEpoch);
        device.sync_in_step(&mut restored);
    }
    assert_eq!(refused_for(&local), [ReasonCode::RowMissing]);
    for device in [&local, &away] {
        assert_eq!(device.column("items", kept, "tags"), ColumnValue::Set(vec![]));
        assert_eq!(device.column("items", lost, "stock"), ColumnValue::Counter(1));
        device.check();
    }
}

/// It was taken on what another device had offered, and answered before the device offered the row itself.
#[test]
fn what_was_taken_on_a_row_that_another_device_offered_is_offered_to_the_next_server() {
    let (local, away, mut server) = (Device::new(1), Device::new(2), Server::new());
    let [mut restored, mut empty] = [8, 9].map(|epoch| {
        let mut copy = server.clone();
        copy.epoch = epoch;
        copy
    });
    let id = local.insert_item("old");
    for device in [&local, &away] {
        device.sync_in_step(&mut server);
    }
    local.write(|tx| tx.update("items", id, &[("title", "newer".into())]));
    hear_of(&local, &mut restored, Refill::NewEpoch);
    let without_the_row = restored.pages(&local.standing());
    refill(&away, &mut restored, Refill::NewEpoch);
    away.sync_in_step(&mut restored);
    let outcomes = restored.push(local.id, &local.outbox());
    assert!(outcomes[0].refused.is_none());
    local.outcomes(outcomes);
    for page in without_the_row {
        local.handle(StoreRequest::Page(page));
    }
    local.outcomes(restored.push(local.id, &local.outbox()));
    // Before it sends any of that, it is restored once more.
    refill(&local, &mut empty, Refill::NewEpoch);
    local.sync_in_step(&mut empty);
    assert_eq!(local.text("items", id, "title"), "newer");
    local.check();
}

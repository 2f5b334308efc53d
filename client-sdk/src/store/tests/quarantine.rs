//! Refused transactions: undone, kept, repaired, resubmitted, discarded.

use farshore_sync_core::document::{DocumentEdit, DocumentPath};
use farshore_sync_core::reason::ReasonCode;

use super::super::{Changes, OutboxState, WriteError};
use super::harness::{Device, NOW};
use super::server::Server;

fn codes(local: &Device) -> Vec<(u64, ReasonCode)> {
    local.store.quarantine().unwrap().iter().map(|entry| (entry.id, entry.code)).collect()
}

#[test]
fn a_refusal_undoes_the_whole_transaction_and_the_rest_goes_on() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.insert_item("kept");
    let gone = local.write(|tx| {
        tx.update("items", id, &[("title", "refused".into())])?;
        tx.increment("items", id, "stock", 5)?;
        tx.insert("items", None, &[("title", "refused too".into())])
    });
    local.write(|tx| tx.update("items", id, &[("size", 7.into())]));
    server.refuse.insert((local.id, 2), ReasonCode::QuotaExceeded);
    local.sync_in_step(&mut server);
    assert_eq!(local.text("items", id, "title"), "kept");
    assert_eq!(local.stock(id), 0);
    assert_eq!(server.rows.len(), 1);
    assert!(!local.exists("items", gone));
    let quarantined = local.store.quarantine().unwrap();
    assert_eq!(quarantined.len(), 1);
    let entry = &quarantined[0];
    assert_eq!(
        (entry.id, entry.code, entry.refused_index, entry.since_ms),
        (2, ReasonCode::QuotaExceeded, 0, NOW)
    );
    let described: Vec<_> = entry
        .mutations
        .iter()
        .map(|mutation| (mutation.operation, mutation.columns.join(",")))
        .collect();
    let expected = [("update", "title"), ("increment", "stock"), ("insert", "title")];
    assert_eq!(described, expected.map(|(operation, columns)| (operation, columns.to_owned())));
    let counts = local.store.counts().unwrap();
    assert_eq!((counts.unanswered, counts.unconfirmed, counts.quarantined), (0, 0, 1));
    local.check();
}

#[test]
fn what_depends_on_a_refused_insert_says_so() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.insert_item("refused");
    local.write(|tx| tx.update("items", id, &[("size", 7.into())]));
    local.write(|tx| tx.increment("items", id, "stock", 1));
    server.refuse.insert((local.id, 1), ReasonCode::OutOfRange);
    local.sync_in_step(&mut server);
    let depends = ReasonCode::DependsOnRefused;
    assert_eq!(codes(&local), [(1, ReasonCode::OutOfRange), (2, depends), (3, depends)]);
    assert!(!local.exists("items", id));
    local.check();
}

#[test]
fn what_depends_on_a_refused_document_change_says_so() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.write(|tx| tx.insert("notes", None, &[("title", "n".into())]));
    let type_text =
        |text: &str| local.write(|tx| tx.edit_text("notes", id, "body", "text", 0, 0, text));
    type_text("a");
    type_text("b");
    server.refuse.insert((local.id, 2), ReasonCode::QuotaExceeded);
    local.sync_in_step(&mut server);
    assert_eq!(codes(&local), [(2, ReasonCode::QuotaExceeded), (3, ReasonCode::DependsOnRefused)]);
    let path = DocumentPath::from(["text"]);
    assert_eq!(local.store.document_text("notes", id, "body", &path).unwrap().unwrap(), "");
    type_text("c");
    local.sync_in_step(&mut server);
    assert_eq!(local.store.document_text("notes", id, "body", &path).unwrap().unwrap(), "c");
    local.store.resubmit(2, NOW).unwrap();
    local.store.resubmit(3, NOW).unwrap();
    local.sync_in_step(&mut server);
    let text = local.store.document_text("notes", id, "body", &path).unwrap().unwrap();
    assert_eq!((text.len(), codes(&local).len()), (3, 0), "{text}");
    local.check();
}

#[test]
fn a_row_that_is_missing_for_another_reason_is_missing() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.insert_item("x");
    local.sync_in_step(&mut server);
    server.rows.clear();
    local.write(|tx| tx.update("items", id, &[("size", 7.into())]));
    local.sync(&mut server);
    assert_eq!(codes(&local), [(2, ReasonCode::RowMissing)]);
}

#[test]
fn a_resubmitted_transaction_is_a_new_one_on_the_present_rows() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.insert_item("x");
    local.write(|tx| tx.increment("items", id, "stock", 5));
    server.refuse.insert((local.id, 2), ReasonCode::QuotaExceeded);
    local.sync_in_step(&mut server);
    local.write(|tx| tx.increment("items", id, "stock", 1));
    let seen = local.store.changes().version();
    local.store.resubmit(2, NOW).unwrap();
    let changes = local.store.changes().since(seen);
    assert!(matches!(changes, Changes { outbox: true, quarantine: true, .. }));
    assert_eq!(local.stock(id), 6);
    assert!(local.store.quarantine().unwrap().is_empty());
    local.sync_in_step(&mut server);
    assert_eq!(local.stock(id), 6);
    local.check();
}

#[test]
fn a_resubmission_that_no_longer_applies_stays_in_the_quarantine() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.insert_item("x");
    local.write(|tx| tx.increment("items", id, "stock", 5));
    server.refuse.insert((local.id, 2), ReasonCode::QuotaExceeded);
    local.sync_in_step(&mut server);
    local.write(|tx| tx.delete("items", id));
    assert!(matches!(local.store.resubmit(2, NOW), Err(WriteError::RowDeleted { .. })));
    assert_eq!(codes(&local), [(2, ReasonCode::QuotaExceeded)]);
    assert!(matches!(local.store.resubmit(99, NOW), Err(WriteError::NotQuarantined { id: 99 })));
    local.check();
}

#[test]
fn a_refused_transaction_can_be_replaced_or_discarded() {
    let (local, mut server) = (Device::new(1), Server::new());
    let first = local.insert_item("bad");
    local.insert_item("worse");
    server.refuse.insert((local.id, 1), ReasonCode::OutOfRange);
    server.refuse.insert((local.id, 2), ReasonCode::OutOfRange);
    local.sync_in_step(&mut server);
    let failed =
        local.store.resubmit_with(1, NOW, |_| Err::<(), _>(WriteError::Aborted(String::new())));
    assert!(failed.is_err());
    assert_eq!(codes(&local).len(), 2);
    local
        .store
        .resubmit_with(1, NOW, |tx| tx.insert("items", Some(first), &[("title", "good".into())]))
        .unwrap();
    local.store.discard(2).unwrap();
    assert!(matches!(local.store.discard(2), Err(WriteError::NotQuarantined { id: 2 })));
    local.sync_in_step(&mut server);
    assert_eq!(local.text("items", first, "title"), "good");
    assert_eq!((server.rows.len(), local.store.counts().unwrap().quarantined), (1, 0));
    local.check();
}

#[test]
fn the_outbox_says_what_waits_and_what_was_answered() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.insert_item("x");
    local.write(|tx| tx.set_add("items", id, "tags", "t".into()));
    let first = local.outbox().remove(0);
    local.greet(&server);
    let outcomes = server.push(local.id, &[first]);
    assert_eq!(local.outcomes(outcomes.clone()), 1);
    let states: Vec<_> = local
        .store
        .outbox(10)
        .unwrap()
        .into_iter()
        .map(|entry| (entry.number, entry.state))
        .collect();
    assert_eq!(states, [(1, OutboxState::Answered { seq: 1 }), (2, OutboxState::Waiting)]);
    assert_eq!(local.store.outbox(1).unwrap()[0].mutations[0].operation, "insert");
    assert_eq!(local.outbox().len(), 1, "what was answered is not sent again");
    assert_eq!(local.outcomes(outcomes), 1, "the same answer again changes nothing");
    let mut unknown = server.push(local.id, &local.outbox());
    unknown[0].number = 77;
    assert_eq!(local.outcomes(unknown), 1);
    assert_eq!(local.store.counts().unwrap().unanswered, 1);
    local.check();
}

#[test]
fn an_edit_that_does_not_fit_a_document_changes_nothing() {
    let local = Device::new(1);
    let id = local.write(|tx| tx.insert("notes", None, &[]));
    let bad = DocumentEdit::SpliceText {
        path: DocumentPath::from(["nothing"]),
        position: 0,
        delete: 0,
        insert: "x".into(),
    };
    let error =
        local.store.write(NOW, |tx| tx.edit_document("notes", id, "body", &[bad])).unwrap_err();
    assert!(matches!(error, WriteError::Document { .. }), "{error}");
    let error = local
        .store
        .write(NOW, |tx| tx.edit_text("notes", id, "body", "text", 5, 0, "x"))
        .unwrap_err();
    assert!(matches!(error, WriteError::Document { .. }), "{error}");
    assert_eq!(local.store.counts().unwrap().unanswered, 1);
}

//! Documents: edited offline, exchanged by their changes, shown as JSON.

use farshore_sync_core::document::{ChangeHash, DocumentEdit, DocumentPath, NewValue, Scalar};
use farshore_sync_core::ids::{CollectionId, ColumnId, RowId};
use farshore_sync_core::mutation::{Cells, Op, Transaction};
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::wire::ChunkEntry;

use super::super::{ColumnValue, QueryError, SqlValue};
use super::harness::{Device, NOW, device, row};
use super::server::Server;

fn note(local: &Device) -> RowId {
    local.write(|tx| tx.insert("notes", None, &[("title", "n".into())]))
}

fn text(local: &Device, id: RowId) -> String {
    local.store.document_text("notes", id, "body", &DocumentPath::from(["text"])).unwrap().unwrap()
}

fn type_text(local: &Device, id: RowId, position: usize, inserted: &str) {
    local.write(|tx| tx.edit_text("notes", id, "body", "text", position, 0, inserted));
}

fn heads(local: &Device, id: RowId) -> Vec<ChangeHash> {
    local.store.document_heads("notes", id, "body").unwrap().unwrap()
}

#[test]
fn a_document_is_text_and_json_and_survives_a_restart() {
    let mut local = Device::new(1);
    let id = note(&local);
    assert_eq!(
        local.sql("SELECT body FROM notes"),
        [[SqlValue::Text("{\"list\":[],\"text\":\"\"}".into())]]
    );
    type_text(&local, id, 0, "hello");
    local.write(|tx| {
        let item = NewValue::Scalar(Scalar::Int(7));
        let edits = [DocumentEdit::InsertItem {
            path: DocumentPath::from(["list"]),
            index: 0,
            value: item,
        }];
        tx.edit_document("notes", id, "body", &edits)?;
        let seen = tx.get("notes", id)?.unwrap();
        let json = serde_json::json!({"list": [7], "text": "hello"});
        assert_eq!(seen.columns["body"], ColumnValue::Document(json));
        Ok(())
    });
    for _ in 0..2 {
        assert_eq!(text(&local, id), "hello");
        let json = "{\"list\":[7],\"text\":\"hello\"}";
        assert_eq!(local.sql("SELECT body FROM notes"), [[SqlValue::Text(json.into())]]);
        local.reopen();
    }
    type_text(&local, id, 5, "!");
    assert_eq!(text(&local, id), "hello!");
}

#[test]
fn two_devices_type_offline_and_see_the_same_in_the_end() {
    let (first, second, mut server) = (Device::new(1), Device::new(2), Server::new());
    let id = note(&first);
    type_text(&first, id, 0, "shared ");
    first.sync_in_step(&mut server);
    second.sync_in_step(&mut server);
    type_text(&first, id, 7, "one");
    type_text(&first, id, 10, "!");
    type_text(&second, id, 7, "two");
    first.sync_in_step(&mut server);
    second.sync_in_step(&mut server);
    first.sync_in_step(&mut server);
    assert_eq!(text(&first, id), text(&second, id));
    assert_eq!(text(&first, id).len(), "shared one!two".len());
    assert_eq!(first.column("notes", id, "body"), second.column("notes", id, "body"));
    assert_eq!(heads(&first, id), heads(&second, id));
    let pending = first.hidden("SELECT count(*) FROM fs_chunks WHERE number IS NOT NULL");
    assert_eq!(pending, [[SqlValue::Int(0)]]);
    first.check();
    second.check();
}

#[test]
fn two_devices_that_create_a_document_offline_share_its_children() {
    let (first, second, mut server) = (Device::new(1), Device::new(2), Server::new());
    for (local, word) in [(&first, "one"), (&second, "two")] {
        local.write(|tx| tx.insert("notes", Some(row(5)), &[]));
        type_text(local, row(5), 0, word);
    }
    for _ in 0..2 {
        first.sync_in_step(&mut server);
        second.sync_in_step(&mut server);
    }
    assert_eq!(text(&first, row(5)).len(), 6);
    assert_eq!(text(&first, row(5)), text(&second, row(5)));
}

#[test]
fn an_edit_can_be_made_upon_an_older_version() {
    let local = Device::new(1);
    let id = note(&local);
    type_text(&local, id, 0, "abc");
    let seen = heads(&local, id);
    type_text(&local, id, 0, ">>");
    let splice = DocumentEdit::SpliceText {
        path: DocumentPath::from(["text"]),
        position: 3,
        delete: 0,
        insert: "!".into(),
    };
    let made = local.write(|tx| tx.edit_document_at("notes", id, "body", &seen, &[splice]));
    assert!(made.is_some());
    assert_eq!(text(&local, id), ">>abc!");
    let nothing = local.write(|tx| tx.edit_document("notes", id, "body", &[]));
    assert_eq!(nothing, None, "edits that alter nothing make no change");
    assert_eq!(local.store.counts().unwrap().unanswered, 4);
}

#[test]
fn a_transaction_that_rolls_back_takes_its_edits_along() {
    let local = Device::new(1);
    let id = note(&local);
    type_text(&local, id, 0, "kept");
    let failed = local.store.write(NOW, |tx| {
        tx.edit_text("notes", id, "body", "text", 0, 0, "gone ")?;
        Err::<(), _>(super::super::WriteError::Aborted(String::new()))
    });
    assert!(failed.is_err());
    assert_eq!(text(&local, id), "kept");
    type_text(&local, id, 4, "!");
    assert_eq!(text(&local, id), "kept!");
}

#[test]
fn a_large_document_is_null_in_sql_and_whole_in_reads() {
    let local = Device::new(1);
    let id = note(&local);
    let long = "x".repeat(70_000);
    type_text(&local, id, 0, &long);
    assert_eq!(local.sql("SELECT body FROM notes"), [[SqlValue::Null]]);
    assert_eq!(text(&local, id), long);
    let json = serde_json::json!({"list": [], "text": long});
    assert_eq!(local.column("notes", id, "body"), ColumnValue::Document(json.clone()));
    assert_eq!(local.store.document_json("notes", id, "body").unwrap(), Some(json));
    local.write(|tx| tx.edit_text("notes", id, "body", "text", 1, 69_999, ""));
    assert_eq!(
        local.sql("SELECT body FROM notes"),
        [[SqlValue::Text("{\"list\":[],\"text\":\"x\"}".into())]]
    );
}

#[test]
fn a_deleted_row_keeps_its_document_for_a_restore() {
    let (local, other, mut server) = (Device::new(1), Device::new(2), Server::new());
    let id = note(&local);
    type_text(&local, id, 0, "kept");
    local.sync_in_step(&mut server);
    other.sync_in_step(&mut server);
    local.write(|tx| tx.delete("notes", id));
    local.sync_in_step(&mut server);
    other.sync_in_step(&mut server);
    let path = DocumentPath::from(["text"]);
    assert_eq!(local.store.document_text("notes", id, "body", &path).unwrap(), None);
    let error = local.store.write(NOW, |tx| tx.edit_text("notes", id, "body", "text", 0, 0, "x"));
    assert!(error.is_err());
    local.write(|tx| tx.restore("notes", id));
    assert_eq!(
        local.sql("SELECT body FROM notes"),
        [[SqlValue::Text("{\"list\":[],\"text\":\"kept\"}".into())]]
    );
    local.sync_in_step(&mut server);
    other.sync_in_step(&mut server);
    assert_eq!(text(&other, id), "kept");
    local.check();
    other.check();
}

/// A commit that edits and deletes a row goes out with the edits.
#[test]
fn changes_that_came_with_a_deletion_show_once_the_row_is_restored() {
    let (author, local, mut server) = (Device::new(1), Device::new(2), Server::new());
    let id = note(&author);
    author.sync_in_step(&mut server);
    local.sync_in_step(&mut server);
    type_text(&author, id, 0, "word");
    let edit = Transaction::decode(&author.outbox()[0].1).unwrap();
    let Op::Document { column, change } = edit.mutations[0].op.clone() else { panic!("{edit:?}") };
    author.write(|tx| tx.delete("notes", id));
    author.sync_in_step(&mut server);
    let mut pages = server.pages(&local.standing());
    let collection = edit.mutations[0].collection;
    pages[0].chunks = vec![ChunkEntry { collection, row: id, column, change: change.into() }];
    assert!(local.pages(pages).unwrap().in_step);
    local.write(|tx| tx.restore("notes", id));
    let json = "{\"list\":[],\"text\":\"word\"}";
    assert_eq!(local.sql("SELECT body FROM notes"), [[SqlValue::Text(json.into())]]);
    local.sync_in_step(&mut server);
    assert_eq!(local.sql("SELECT body FROM notes"), [[SqlValue::Text(json.into())]]);
}

/// The restored server sends a row as its backup had it, and as it became while the device caught up.
#[test]
fn a_change_that_comes_back_pages_after_its_row_shows() {
    let (local, mut server) = (Device::new(1), Server::new());
    let id = local.write(|tx| tx.insert("visits", None, &[("site", "a".into())]));
    local.sync_in_step(&mut server);
    let mut restored = server.clone();
    restored.epoch += 1;
    local.write(|tx| tx.edit_text("visits", id, "report", "text", 0, 0, "one"));
    local.sync_in_step(&mut server);

    local.greet(&restored);
    let staged = |restored: &Server| {
        for mut page in restored.pages(&local.standing()) {
            page.checkpoint = None;
            local.page(page);
        }
    };
    staged(&restored);
    let key = (CollectionId(3), id);
    let moved = Op::Update { cells: Cells::new(vec![(ColumnId(1), "b".into())]) };
    restored.edit(device(9), NOW + 5, (key, moved));
    staged(&restored);
    let known = server.rows[&key].clone();
    restored.seq += 1;
    let row = restored.rows.get_mut(&key).unwrap();
    (row.state.documents, row.chunks, row.seq) =
        (known.state.documents, known.chunks, restored.seq);
    assert!(local.pages(restored.pages(&local.standing())).unwrap().in_step);
    let json = "{\"text\":\"one\"}";
    assert_eq!(local.sql("SELECT report FROM visits"), [[SqlValue::Text(json.into())]]);
    local.check();
}

#[test]
fn documents_that_are_not_there_are_named() {
    let local = Device::new(1);
    let id = note(&local);
    let path = DocumentPath::from(["nothing"]);
    let error = local.store.document_text("notes", id, "body", &path).unwrap_err();
    assert!(matches!(error, QueryError::Document { .. }), "{error}");
    let error = local.store.document_heads("notes", id, "title").unwrap_err();
    assert!(matches!(error, QueryError::UnknownDocument { .. }), "{error}");
    assert_eq!(local.store.document_heads("notes", row(9), "body").unwrap(), None);
}

#[test]
fn many_documents_stay_bounded_in_memory_and_right() {
    let (local, other, mut server) = (Device::new(1), Device::new(2), Server::new());
    let ids: Vec<RowId> = (0..100).map(|_| note(&local)).collect();
    for round in 0..2 {
        for id in &ids {
            type_text(&local, *id, 0, &format!("{round}"));
        }
    }
    local.sync_in_step(&mut server);
    other.sync_in_step(&mut server);
    assert!(ids.iter().all(|id| text(&other, *id) == "10"));
}

#[test]
fn a_change_that_was_made_upon_a_refused_one_is_passed_over_until_it_is_refused_too() {
    let (mut local, mut server) = (Device::new(1), Server::new());
    let id = note(&local);
    type_text(&local, id, 0, "kept");
    local.sync_in_step(&mut server);
    server.refuse.insert((local.id, 3), ReasonCode::PermissionDenied);
    type_text(&local, id, 4, " refused");
    type_text(&local, id, 12, " upon it");
    assert_eq!(text(&local, id), "kept refused upon it");
    let first = local.outbox()[..1].to_vec();
    local.greet(&server);
    let outcomes = server.push(local.id, &first);
    local.outcomes(outcomes);
    for _ in 0..2 {
        assert_eq!(text(&local, id), "kept");
        local.reopen();
    }
    type_text(&local, id, 4, " and more");
    assert_eq!(text(&local, id), "kept and more");
    server.refuse.insert((local.id, 4), ReasonCode::MissingDependency);
    local.sync_in_step(&mut server);
    assert_eq!(text(&local, id), "kept and more");
    assert_eq!(local.store.quarantine().unwrap().len(), 2);
    local.check();
}

#[test]
fn a_change_that_a_server_refuses_for_what_it_lacks_is_kept_for_the_app_where_nothing_is_refilled()
{
    let (local, mut server) = (Device::new(1), Server::new());
    let id = note(&local);
    type_text(&local, id, 0, "kept");
    local.sync_in_step(&mut server);
    server.refuse.insert((local.id, 3), ReasonCode::MissingDependency);
    type_text(&local, id, 4, " refused");
    local.sync_in_step(&mut server);
    assert_eq!(text(&local, id), "kept");
    assert_eq!(local.store.quarantine().unwrap().len(), 1);
    local.check();
}

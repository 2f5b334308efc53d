//! Copies that drifted apart, and how they are mended.

use farshore_sync_core::ids::CollectionId;
use farshore_sync_core::replica::{StoreReply, StoreRequest};
use farshore_sync_core::row::RowState;

use super::harness::{Device, device};
use super::server::Server;

const ITEMS: CollectionId = CollectionId(1);

/// Compares and mends as the replica does; how many rows changed.
fn mend(local: &Device, server: &Server) -> usize {
    let listings = match local.handle(StoreRequest::Sums(server.sums())) {
        StoreReply::Listings(listings) => listings,
        other => panic!("{other:?}"),
    };
    match local.handle(StoreRequest::Repair(server.repair(&listings))) {
        StoreReply::Repaired(rows) => rows,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_rows_that_differ_travel_and_the_copies_agree() {
    let (local, mut server) = (Device::new(1), Server::new());
    let ids: Vec<_> = (0..50).map(|number| local.insert_item(&number.to_string())).collect();
    local.sync_in_step(&mut server);
    assert_eq!(local.handle(StoreRequest::Sums(server.sums())), StoreReply::Listings(Vec::new()));

    // Behind the protocol's back: one row altered here, one lost here, one lost there, one new there.
    let altered = server.rows[&(ITEMS, ids[1])].state.clone();
    let mut wrong = altered.clone();
    wrong.cells[0].value = "altered".into();
    alter(&local, &server, ids[0], &wrong);
    let unknown_here = server.rows.get(&(ITEMS, ids[2])).cloned().unwrap();
    forget(&local, ids[2]);
    server.rows.remove(&(ITEMS, ids[3]));
    server.rows.insert((ITEMS, super::harness::row(77)), unknown_here);
    local.write(|tx| tx.update("items", ids[0], &[("size", 5.into())]));

    assert!(!local.pull(&server).in_step);
    assert_eq!(mend(&local, &server), 4);
    assert!(local.pull(&server).in_step);
    assert_eq!(local.text("items", ids[0], "title"), "0");
    assert!(local.exists("items", ids[2]) && !local.exists("items", ids[3]));
    assert!(local.exists("items", super::harness::row(77)));
    local.check();
    local.sync_in_step(&mut server);
    let size = local.column("items", ids[0], "size");
    assert_eq!(
        size,
        super::super::ColumnValue::Scalar(5.into()),
        "what waited was laid over the mended row"
    );
    let _ = device(9);
}

/// Puts another server state under a row, digest included: a difference that the sums show.
fn alter(local: &Device, server: &Server, id: farshore_sync_core::ids::RowId, state: &RowState) {
    use farshore_sync_core::wire::{Page, RowEntry, RowPayload};
    let payload = RowPayload::State(state.encode().into());
    let scope = 2; // tenant, after site/a and site/b
    let mut page = Page {
        rows: vec![RowEntry { scope, collection: ITEMS, row: id, payload }],
        ..Page::default()
    };
    page.checkpoint = server.pages(&local.standing()).last().unwrap().checkpoint;
    assert!(!local.page(page).unwrap().in_step);
}

fn forget(local: &Device, id: farshore_sync_core::ids::RowId) {
    use farshore_sync_core::wire::{Checkpoint, Page, RowEntry, RowPayload};
    let entry = RowEntry { scope: 2, collection: ITEMS, row: id, payload: RowPayload::Departed };
    let checkpoint = Checkpoint { seq: local.standing().cursor, root: Default::default() };
    local.page(Page { rows: vec![entry], checkpoint: Some(checkpoint), ..Page::default() });
}

#[test]
fn documents_are_mended_with_their_changes() {
    let (writer, local, mut server) = (Device::new(1), Device::new(2), Server::new());
    let note = writer.write(|tx| {
        let id = tx.insert("notes", None, &[])?;
        tx.edit_text("notes", id, "body", "text", 0, 0, "whole")?;
        Ok(id)
    });
    writer.sync_in_step(&mut server);
    local.sync_in_step(&mut server);
    use farshore_sync_core::wire::{Checkpoint, Page, RowEntry, RowPayload};
    let entry = RowEntry {
        scope: 2,
        collection: CollectionId(2),
        row: note,
        payload: RowPayload::Departed,
    };
    let checkpoint = Checkpoint { seq: local.standing().cursor, root: Default::default() };
    local.page(Page { rows: vec![entry], checkpoint: Some(checkpoint), ..Page::default() });
    assert!(!local.exists("notes", note));
    assert_eq!(mend(&local, &server), 1);
    assert_eq!(local.column("notes", note, "body"), writer.column("notes", note, "body"));
    assert!(local.pull(&server).in_step);
    local.check();
}

#[test]
fn sums_and_repairs_that_make_no_sense_are_refused() {
    use farshore_sync_core::wire::{Repair, SumsEntry};
    let (local, mut server) = (Device::new(1), Server::new());
    local.insert_item("x");
    local.sync_in_step(&mut server);
    let sums = SumsEntry {
        scope: super::harness::scope("tenant"),
        collection: ITEMS,
        buckets: vec![1; 100].into(),
    };
    let now = super::harness::NOW;
    assert!(local.store.handle(StoreRequest::Sums(vec![sums]), now).is_err());
    let repair = Repair { rows: Vec::new(), chunks: Vec::new(), unknown: vec![1; 9].into() };
    assert!(local.store.handle(StoreRequest::Repair(repair), now).is_err());
    local.check();
}

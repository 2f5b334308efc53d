//! The first fill shows rows as they come; after it, what lies between two checkpoints appears at once.

use farshore_sync_core::ids::CollectionId;
use farshore_sync_core::mutation::{Cells, Op};
use farshore_sync_core::replica::{StoreReply, StoreRequest};
use farshore_sync_core::wire::{Page, PositionUpdate, RowEntry, RowPayload};

use super::super::{SqlValue, StoreError};
use super::harness::{Device, NOW, device, row};
use super::server::Server;

const ITEMS: CollectionId = CollectionId(1);

/// A server with this many items, in pages of three.
fn filled_server(items: u8) -> Server {
    let mut server = Server::new();
    server.rows_per_page = 3;
    for number in 1..=items {
        add_item(&mut server, number, "first");
    }
    server
}

fn add_item(server: &mut Server, number: u8, title: &str) {
    let cells = Cells::new(vec![(farshore_sync_core::ids::ColumnId(1), title.into())]);
    let stamp_ms = server.seq + 1;
    server.edit(device(9), stamp_ms, ((ITEMS, row(number)), Op::Insert { cells }));
}

fn titles(local: &Device) -> Vec<String> {
    let title = |row: Vec<SqlValue>| match &row[..] {
        [SqlValue::Text(title)] => title.clone(),
        other => panic!("{other:?}"),
    };
    local.sql("SELECT title FROM items ORDER BY id").into_iter().map(title).collect()
}

#[test]
fn a_first_fill_is_visible_page_by_page_and_goes_on_after_a_restart() {
    let (mut local, server) = (Device::new(1), filled_server(8));
    local.greet(&server);
    assert!(!local.standing().positions.is_empty(), "it says where it stands");
    let pages = server.pages(&local.standing());
    assert_eq!(pages.len(), 3);
    local.page(pages[0].clone());
    assert_eq!(titles(&local).len(), 3);
    assert!(!local.store.counts().unwrap().filled);
    local.reopen();
    let rest = server.pages(&local.standing());
    assert_eq!(rest.iter().map(|page| page.rows.len()).sum::<usize>(), 5, "nothing comes twice");
    assert!(local.pages(rest).unwrap().in_step);
    assert_eq!(titles(&local).len(), 8);
    let standing = local.standing();
    assert_eq!((standing.cursor, standing.positions.len()), (8, 0));
    assert!(local.store.counts().unwrap().filled);
    local.check();
}

#[test]
fn a_row_that_was_made_and_deleted_before_the_first_fill_can_be_restored_with_all_it_held() {
    let (local, mut server) = (Device::new(1), filled_server(4));
    let id = local.insert_item("mine");
    local.write(|tx| tx.increment("items", id, "stock", 5));
    local.write(|tx| tx.delete("items", id));
    local.sync_in_step(&mut server);
    local.write(|tx| tx.restore("items", id));
    assert_eq!((local.text("items", id, "title"), local.stock(id)), ("mine".to_owned(), 5));
    local.sync_in_step(&mut server);
    assert_eq!((local.text("items", id, "title"), local.stock(id)), ("mine".to_owned(), 5));
    local.check();
}

#[test]
fn local_rows_survive_a_first_fill_that_brings_them_too() {
    let (local, mut server) = (Device::new(1), filled_server(4));
    local.write(|tx| tx.insert("items", Some(row(2)), &[("title", "mine".into())]));
    let deleted = local.insert_item("deleted here");
    local.write(|tx| tx.delete("items", deleted));
    local.greet(&server);
    local.pull(&server);
    assert_eq!(titles(&local), ["first", "mine", "first", "first"]);
    local.check();
    local.sync_in_step(&mut server);
    assert_eq!(titles(&local), ["first", "mine", "first", "first"]);
    local.check();
}

#[test]
fn later_pages_appear_with_their_checkpoint_in_one_commit() {
    let (mut local, mut server) = (Device::new(1), filled_server(8));
    local.sync_in_step(&mut server);
    for number in 1..=8 {
        add_item(&mut server, number, "second");
    }
    let pages = server.pages(&local.standing());
    let [first, second, last] = &pages[..] else { panic!("{}", pages.len()) };
    let seen = local.store.changes().version();
    assert_eq!(local.page(first.clone()), None);
    assert_eq!(titles(&local), ["first"; 8]);
    local.reopen();
    assert_eq!(titles(&local), ["first"; 8]);
    let rest = server.pages(&local.standing());
    assert_eq!(
        rest.iter().map(|page| page.rows.len()).sum::<usize>(),
        5,
        "what is staged is not sent again"
    );
    assert_eq!(local.page(second.clone()), None);
    assert_eq!(local.standing().cursor, 8, "the cursor moves with the rows");
    assert!(local.page(last.clone()).unwrap().in_step);
    assert_eq!(titles(&local), ["second"; 8]);
    assert_eq!(local.standing().cursor, 16);
    assert!(local.standing().positions.is_empty());
    assert!(local.store.changes().version() <= seen + 2);
    local.check();
}

#[test]
fn a_reader_never_sees_a_part_of_a_checkpoint() {
    let (local, mut server) = (Device::new(1), filled_server(30));
    local.sync_in_step(&mut server);
    let store = local.store.clone();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let reader = std::thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let rows = store.query("SELECT count(DISTINCT title) FROM items", &[]).unwrap().rows;
            assert_eq!(rows, [[SqlValue::Int(1)]]);
        }
    });
    for round in 0..10 {
        for number in 1..=30 {
            add_item(&mut server, number, &format!("round {round}"));
        }
        local.pull(&server);
    }
    drop(stop);
    reader.join().unwrap();
    assert_eq!(titles(&local), ["round 9"; 30]);
}

#[test]
fn a_page_that_cannot_be_stored_leaves_everything_as_it_was() {
    let (local, mut server) = (Device::new(1), filled_server(2));
    local.sync_in_step(&mut server);
    let before = local.standing();
    let entry = |scope, bytes: &[u8]| RowEntry {
        scope,
        collection: ITEMS,
        row: row(1),
        payload: RowPayload::State(bytes.to_vec().into()),
    };
    let good = server.rows[&(ITEMS, row(1))].state.encode();
    let beyond = PositionUpdate { scope: 99, seq: 1 };
    for page in [
        Page { rows: vec![entry(0, &good), entry(0, b"junk")], ..Page::default() },
        Page { rows: vec![entry(99, &good)], ..Page::default() },
    ] {
        let page = Page { checkpoint: server.pages(&before).last().unwrap().checkpoint, ..page };
        let error = local.store.handle(StoreRequest::Page(page), NOW).unwrap_err();
        assert!(matches!(error, StoreError::Protocol { .. }), "{error}");
    }
    let page = Page { positions: vec![beyond], ..Page::default() };
    assert!(local.store.handle(StoreRequest::Page(page), NOW).is_err());
    assert_eq!(local.standing(), before);
    assert_eq!(titles(&local), ["first", "first"]);
    local.check();
}

#[test]
fn a_cloned_replica_is_told_so() {
    let (local, mut server) = (Device::new(1), Server::new());
    local.insert_item("x");
    local.sync_in_step(&mut server);
    let clone = Device::new(1);
    let before = clone.standing();
    let welcome = server.welcome(clone.id, &before);
    assert_eq!(clone.adopt(welcome), StoreReply::Forked);
    assert_eq!(clone.standing(), before);
}

#[test]
fn a_root_that_differs_is_noticed() {
    let (local, mut server) = (Device::new(1), filled_server(3));
    local.sync_in_step(&mut server);
    let mut pages = server.pages(&local.standing());
    pages[0].checkpoint.as_mut().unwrap().root.0 ^= 1;
    assert!(!local.pages(pages).unwrap().in_step);
}

//! Trouble with the files: named, and nothing lost.

use std::fs;
use std::sync::Arc;

use farshore_sync_core::value::Value;

use super::super::{
    CreateMode, OpenError, QueryError, SqlValue, Store, StoreError, StoreOptions, WriteError,
};
use super::harness::{Device, NOW, device};
use crate::encrypted_file;

fn open(options: StoreOptions) -> OpenError {
    match Store::open(options) {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

#[test]
fn create_modes_do_what_they_say() {
    let local = Device::new(1);
    let elsewhere = tempfile::tempdir().unwrap();
    let options = |create| StoreOptions { create, ..local.options() };
    let error =
        open(StoreOptions { dir: elsewhere.path().join("new"), ..options(CreateMode::MustExist) });
    assert!(
        matches!(error, OpenError::File(encrypted_file::OpenError::NotCreated { .. })),
        "{error}"
    );
    local.store.close().unwrap();
    let error = open(options(CreateMode::MustCreate));
    assert!(
        matches!(error, OpenError::File(encrypted_file::OpenError::AlreadyExists { .. })),
        "{error}"
    );
    Store::open(options(CreateMode::MustExist)).unwrap();
    let created = StoreOptions {
        dir: elsewhere.path().join("new"),
        name: "other".into(),
        ..options(CreateMode::MustCreate)
    };
    Store::open(created).unwrap();
    let error =
        open(StoreOptions { name: "Not A Name/..".into(), ..options(CreateMode::MustExist) });
    assert!(matches!(error, OpenError::Name(_)), "{error}");
}

#[test]
fn a_store_belongs_to_one_device() {
    let local = Device::new(1);
    local.insert_item("x");
    local.store.close().unwrap();
    let error = open(StoreOptions { device: device(2), ..local.options() });
    assert!(matches!(error, OpenError::OtherDevice { found, .. } if found == device(1)), "{error}");
}

#[test]
fn a_damaged_file_is_named_and_stays_as_it_is() {
    let local = Device::new(1);
    for number in 0..200 {
        local.insert_item(&number.to_string());
    }
    local.store.close().unwrap();
    let path = local.dir.path().join("store.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100..600].iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(&path, &bytes).unwrap();
    let error = open(local.options());
    assert!(matches!(error, OpenError::File(encrypted_file::OpenError::Damaged { .. })), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_full_disk_is_named_and_the_store_goes_on_when_there_is_room() {
    let local = Device::new(1);
    let id = local.insert_item("x");
    limit_pages(&local, 1);
    let big = "x".repeat(900);
    let filled = (0..10_000).find_map(|_| {
        local
            .store
            .write(NOW, |tx| tx.insert("items", None, &[("title", big.as_str().into())]))
            .err()
    });
    assert!(matches!(filled, Some(WriteError::Store(StoreError::Full { .. }))), "{filled:?}");
    assert_eq!(local.text("items", id, "title"), "x");
    limit_pages(&local, u32::MAX - 1);
    local.insert_item("room again");
    local.check();
}

/// Lets the database grow to this many pages, or to what it has if that is more.
fn limit_pages(local: &Device, pages: u32) {
    let mut writer = local.store.writer();
    let connection = &writer.as_mut().unwrap().connection;
    connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
}

#[test]
fn another_process_that_holds_the_database_is_named() {
    let local = Device::new(1);
    let other = local.open_beside();
    let held = Arc::new(std::sync::Barrier::new(2));
    let done = Arc::clone(&held);
    let holder = std::thread::spawn(move || {
        other.write(NOW, |tx| {
            tx.insert("items", None, &[])?;
            done.wait();
            done.wait();
            Ok(())
        })
    });
    held.wait();
    local
        .store
        .writer()
        .as_mut()
        .unwrap()
        .connection
        .busy_timeout(std::time::Duration::ZERO)
        .unwrap();
    let error = local.store.write(NOW, |tx| tx.insert("items", None, &[])).unwrap_err();
    assert!(matches!(error, WriteError::Store(StoreError::Busy { .. })), "{error}");
    held.wait();
    holder.join().unwrap().unwrap();
    local.insert_item("after");
    assert_eq!(local.standing().next_number, 3);
}

/// A page of a database file, in bytes.
const PAGE_BYTES: usize = 4096;

/// SQLCipher reads a page that is not authentic as zeros, and in the middle of a long value nothing stumbles over them.
#[test]
fn damage_in_the_middle_of_a_long_value_is_told_and_nothing_is_written() {
    let local = Device::new(1);
    let photo: Vec<u8> = (0..20_000_u32).map(|at| at as u8).collect();
    let row = local.write(|tx| tx.insert("items", None, &[("photo", Value::Bytes(photo.clone()))]));
    local.store.close().unwrap();
    let path = local.dir.path().join("store.db");
    let sound = fs::read(&path).unwrap();
    let (mut told, mut refused) = (0, 0);
    for page in 1..sound.len() / PAGE_BYTES {
        let mut content = sound.clone();
        content[page * PAGE_BYTES + 2_000] ^= 1;
        fs::write(&path, &content).unwrap();
        let store = match Store::open(local.options()) {
            Ok(store) => store,
            Err(error) => {
                let damaged = matches!(
                    error,
                    OpenError::Store(StoreError::Damaged { .. })
                        | OpenError::File(encrypted_file::OpenError::Damaged { .. })
                );
                assert!(damaged, "page {page}: {error}");
                assert!(fs::read(&path).unwrap() == content, "page {page}: the file has changed");
                refused += 1;
                continue;
            }
        };
        match store.query("SELECT photo FROM items", &[]) {
            Ok(found) => {
                assert_eq!(found.rows, [[SqlValue::Bytes(photo.clone())]], "page {page}");
                let edited =
                    store.write(NOW, |tx| tx.update("items", row, &[("size", Value::Int(1))]));
                let damaged = matches!(edited, Err(WriteError::Store(StoreError::Damaged { .. })));
                assert!(edited.is_ok() || damaged, "page {page}: {edited:?}");
            }
            Err(QueryError::Store(StoreError::Damaged { .. })) => told += 1,
            Err(other) => panic!("page {page}: {other}"),
        }
        store.close().unwrap();
    }
    assert!(told >= 4 && refused > 0, "the photo alone takes five pages: {told}, {refused}");
}

/// SQLite takes a damaged frame for the end of the log and forgets what follows.
#[test]
fn a_damaged_frame_of_the_log_is_told_where_commits_follow_it() {
    let local = Device::new(1);
    for _ in 0..5 {
        local.insert_item("x");
    }
    let path = local.dir.path().join("store.db-wal");
    let mut log = fs::read(&path).unwrap();
    let killed = tempfile::tempdir().unwrap();
    for name in ["store.db", "store.db.key"] {
        fs::copy(local.dir.path().join(name), killed.path().join(name)).unwrap();
    }
    let options = || StoreOptions { dir: killed.path().to_owned(), ..local.options() };
    fs::write(killed.path().join("store.db-wal"), &log).unwrap();
    let store = Store::open(options()).unwrap();
    assert_eq!(store.counts().unwrap().unanswered, 5, "the log is sound");
    store.close().unwrap();
    fs::copy(local.dir.path().join("store.db"), killed.path().join("store.db")).unwrap();
    log[32 + 24 + 100] ^= 1;
    fs::write(killed.path().join("store.db-wal"), &log).unwrap();
    let error = open(options());
    assert!(error.to_string().contains("frame 1 of its log"), "{error}");
    assert!(fs::read(killed.path().join("store.db-wal")).unwrap() == log);
}

//! Trouble with the files: named, and nothing lost.

use std::fs;
use std::sync::Arc;

use super::super::{CreateMode, OpenError, Store, StoreError, StoreOptions, WriteError};
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

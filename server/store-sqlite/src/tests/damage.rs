//! What is wrong with a file has a name of its own, and nothing is deleted or made anew for it.

use std::fs;
use std::path::PathBuf;

use farshore_store::StoreError;
use farshore_store::catalog::{Catalog as _, CatalogError};
use farshore_store::conformance::sample_tenant;
use rusqlite::Connection;

use super::{Disk, process, scope};
use crate::connection::{self, Role};
use crate::data_key::DataKey;
use crate::migrations::NEWEST_VERSION;

/// A disk with the closed tenant `demo`, and the path of its database.
fn disk_with_tenant() -> (Disk, PathBuf) {
    let disk = Disk::new();
    process(async {
        let (catalog, authority) = disk.catalog();
        catalog.create(&scope(&authority, "demo"), 0).await.unwrap();
    });
    assert_eq!(disk.files(), ["demo.db", "demo.key"], "no log is left behind");
    let database = disk.tenants().join("demo.db");
    (disk, database)
}

/// Opens the tenant, which must fail and leave the files as they were.
fn refused(disk: &Disk) -> CatalogError {
    let contents = || {
        let path = |name| disk.tenants().join(name);
        disk.files().into_iter().map(path).map(|path| fs::read(path).unwrap()).collect::<Vec<_>>()
    };
    let before = contents();
    let opened = process(async {
        let (catalog, authority) = disk.catalog();
        catalog.open(&scope(&authority, "demo")).await.map(drop)
    });
    assert!(contents() == before, "the files are as before");
    opened.unwrap_err()
}

/// Opens the database of the tenant directly.
fn raw_connection(disk: &Disk) -> Connection {
    let path = disk.tenants().join("demo.key");
    let tenant = "demo".parse().unwrap();
    let key = DataKey::load(&path, &disk.master, &tenant).unwrap().unwrap();
    let database = disk.tenants().join("demo.db");
    connection::open(&database, &key, Role::Writer, &disk.config).unwrap()
}

fn is_damaged(error: &CatalogError) -> bool {
    matches!(error, CatalogError::Store(StoreError::Damaged { .. }))
}

#[test]
fn a_damaged_file_is_told() {
    let (disk, database) = disk_with_tenant();
    let mut content = fs::read(&database).unwrap();
    content[100] ^= 1;
    fs::write(&database, content).unwrap();
    let error = refused(&disk);
    assert!(is_damaged(&error), "{error}");
}

#[test]
fn damage_within_the_file_is_told_where_it_is_read() {
    let (disk, database) = disk_with_tenant();
    let mut content = fs::read(&database).unwrap();
    for page in content.chunks_mut(4096).skip(1) {
        page[2_000] ^= 1;
    }
    fs::write(&database, content).unwrap();
    process(async {
        let (catalog, authority) = disk.catalog();
        let store = catalog.open(&scope(&authority, "demo")).await.unwrap();
        let error = store.head().await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { operation: "read the head", .. }), "{error}");
    });
}

#[test]
fn a_plain_database_is_told() {
    let (disk, database) = disk_with_tenant();
    fs::remove_file(&database).unwrap();
    let plain = Connection::open(&database).unwrap();
    plain.execute_batch("CREATE TABLE plain (text TEXT)").unwrap();
    drop(plain);
    let error = refused(&disk);
    assert!(is_damaged(&error), "{error}");
}

#[test]
fn a_damaged_key_is_told() {
    let (disk, _) = disk_with_tenant();
    let path = disk.tenants().join("demo.key");
    let sealed = fs::read(&path).unwrap();
    for cut in [&sealed[..40], &[], &[&sealed[..], b"x"].concat()] {
        fs::write(&path, cut).unwrap();
        let error = refused(&disk);
        assert!(error.to_string().contains("demo.key"), "{error}");
    }
}

#[test]
fn a_missing_database_is_told_and_not_made() {
    let (disk, database) = disk_with_tenant();
    fs::remove_file(&database).unwrap();
    let error = refused(&disk);
    assert!(error.to_string().contains("demo.db"), "{error}");
}

#[test]
fn a_database_without_its_key_is_not_overwritten() {
    let (disk, database) = disk_with_tenant();
    fs::remove_file(disk.tenants().join("demo.key")).unwrap();
    let content = fs::read(&database).unwrap();
    let created = process(async {
        let (catalog, authority) = disk.catalog();
        assert_eq!(catalog.tenants().await.unwrap(), []);
        catalog.create(&scope(&authority, "demo"), 0).await.map(drop)
    });
    let error = created.unwrap_err();
    assert!(is_damaged(&error) && error.to_string().contains("without its key"), "{error}");
    assert_eq!(fs::read(&database).unwrap(), content);
}

#[test]
fn a_file_of_a_newer_version_is_told() {
    let (disk, _) = disk_with_tenant();
    raw_connection(&disk).pragma_update(None, "user_version", NEWEST_VERSION + 1).unwrap();
    let error = refused(&disk);
    let expected = "the data has format 2, and this version reads up to 1; upgrade the server";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn rows_that_were_altered_behind_the_store_are_found() {
    let disk = Disk::new();
    process(sample_tenant(&disk, 40));
    let alter =
        "UPDATE changes SET state = zeroblob(30) WHERE place = (SELECT MAX(place) FROM changes)";
    raw_connection(&disk).execute_batch(alter).unwrap();
    process(async {
        let (catalog, authority) = disk.catalog();
        let store = catalog.open(&scope(&authority, "demo")).await.unwrap();
        assert_eq!(store.scrub().await.unwrap().len(), 1);
    });
}

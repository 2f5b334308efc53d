//! What is wrong with a file has a name of its own, and nothing is deleted or made anew for it.

use std::fs;
use std::path::PathBuf;

use farshore_store::StoreError;
use farshore_store::catalog::{Catalog as _, CatalogError};
use farshore_store::conformance::{commit_notes, sample_tenant, titled_batch};
use farshore_store::sync_core::ids::DeviceId;
use rusqlite::Connection;

use super::{Disk, after_a_crash, copy_files, process, raw_connection, scope};
use crate::connection::{self, Checkpoint, OnClose, Role};
use crate::data_key::DataKey;
use crate::failure::Failure;
use crate::migrations::NEWEST_VERSION;
use crate::replay::{self, DatabaseFile};

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

/// SQLCipher reads a page that is not authentic as zeros, and in the middle of a long value nothing stumbles over them.
#[test]
fn damage_in_the_middle_of_a_long_value_is_told() {
    let disk = Disk::new();
    process(sample_tenant(&disk, 40));
    let database = disk.tenants().join("demo.db");
    let sound = fs::read(&database).unwrap();
    let mut told = 0;
    for page in 1..sound.len() / 4096 {
        let mut content = sound.clone();
        content[page * 4096 + 2_000] ^= 1;
        fs::write(&database, content).unwrap();
        process(async {
            let (catalog, authority) = disk.catalog();
            let scrubbed = match catalog.open(&scope(&authority, "demo")).await {
                Ok(store) => store.scrub().await,
                Err(CatalogError::Store(error)) => Err(error),
                Err(other) => panic!("page {page}: {other}"),
            };
            match scrubbed {
                Ok(differing) => assert_eq!(differing, [], "page {page} was not read"),
                Err(StoreError::Damaged { .. }) => told += 1,
                Err(other) => panic!("page {page}: {other}"),
            }
        });
        assert!(!disk.files().iter().any(|name| name.ends_with("-wal")), "page {page}");
    }
    assert!(told > 3, "the sums of one collection alone take two pages: {told}");
}

/// SQLite takes a damaged frame for the end of the log and forgets what follows.
#[test]
fn a_damaged_frame_of_the_log_is_told_where_commits_follow_it() {
    let disk = Disk::without_journal();
    let killed = Disk::without_journal();
    process(async {
        let store = sample_tenant(&disk, 2).await;
        for _ in 0..5 {
            commit_notes(&store, 3).await;
        }
        copy_files(&disk.config.data_dir, &killed.config.data_dir);
    });
    let log = killed.tenants().join("demo.db-wal");
    let mut content = fs::read(&log).unwrap();
    content[32 + 24 + 100] ^= 1;
    fs::write(&log, content).unwrap();
    fs::remove_file(killed.tenants().join("demo.db-shm")).unwrap();
    let error = refused(&killed);
    assert!(is_damaged(&error) && error.to_string().contains("frame 1 of its log"), "{error}");
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
    let (found, newest) = (NEWEST_VERSION + 1, NEWEST_VERSION);
    let expected = format!(
        "the data has format {found}, and this version reads up to {newest}; upgrade the server"
    );
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

/// SQLite counts as moved what it wrote into the file while somebody read, and syncs the file only with the rest.
#[test]
fn what_the_disk_lost_of_a_move_that_a_reader_ended_early_is_moved_again() {
    let disk = Disk::new();
    process(sample_tenant(&disk, 2));
    let path = disk.tenants().join("demo.db");
    let mut writer = raw_connection(&disk);
    let put = |writer: &Connection, number: u32| {
        let put = "INSERT INTO lost VALUES (?1, randomblob(9000))";
        assert_eq!(writer.execute(put, [number]).unwrap(), 1);
    };
    writer.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    writer.execute_batch("CREATE TABLE lost (number INTEGER PRIMARY KEY, blob BLOB)").unwrap();
    put(&writer, 1);
    let reader = raw_connection(&disk);
    connection::on_close(&reader, OnClose::LeaveFiles).unwrap();
    let count = "SELECT count(*) FROM lost WHERE length(hex(blob)) = 18000";
    let rows = |of: &Connection| of.query_row(count, [], |row| row.get::<_, u32>(0)).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(rows(&reader), 1);
    put(&writer, 2);

    let before = fs::read(&path).unwrap();
    assert!(!connection::checkpoint(&writer, Checkpoint::Passive).unwrap(), "all was moved");
    assert!(fs::read(&path).unwrap() != before, "nothing was moved");
    fs::write(&path, before).unwrap();
    let file = DatabaseFile::default();
    let log = disk.tenants().join("demo.db-wal");
    let sound = fs::read(&log).unwrap();
    let mut flipped = sound.clone();
    flipped[32 + 24 + 100] ^= 1;
    fs::write(&log, flipped).unwrap();
    let refused = replay::recover(&mut writer, &path, &file, None);
    assert!(matches!(refused, Err(Failure::Damaged(_))), "{refused:?}");
    fs::write(&log, sound).unwrap();
    replay::recover(&mut writer, &path, &file, None).unwrap();
    assert_eq!(rows(&reader), 1);
    reader.execute_batch("COMMIT").unwrap();
    drop(reader);
    assert!(connection::checkpoint(&writer, Checkpoint::Passive).unwrap());
    connection::on_close(&writer, OnClose::LeaveFiles).unwrap();
    drop(writer);
    fs::remove_file(log).unwrap();
    assert_eq!(rows(&raw_connection(&disk)), 2);
}

/// Damage in what the journal need not know any more is nobody's: commits go on, and after a restart too.
#[test]
fn a_damaged_record_that_its_tenant_has_hinders_nobody() {
    let disk = Disk::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let (crashed, head) = runtime.block_on(async {
        let store = sample_tenant(&disk, 2).await;
        // Longer than a page, so that it lies in pages of its own.
        let epoch = store.head().await.unwrap().epoch;
        let long =
            titled_batch(epoch, DeviceId::from_parts(1, &[9; 10]), 1, &"note ".repeat(4_000));
        store.commit(long).await.unwrap();
        let head = store.head().await.unwrap();
        (after_a_crash(&disk), head)
    });
    // The journal's own log goes into its file, as after a long time.
    drop(journal_of(&crashed));
    let journal = crashed.config.data_dir.join("journal.db");
    let sound = fs::read(&journal).unwrap();
    let mut damaged = 0;
    for page in 1..sound.len() / 4096 {
        let disk = after_a_crash(&crashed);
        let mut content = sound.clone();
        content[page * 4096 + 2_000] ^= 1;
        fs::write(disk.config.data_dir.join("journal.db"), content).unwrap();
        // The others hold the places of all records, or nothing.
        let is_sound = |query| {
            let journal = journal_of(&disk);
            let _ = journal.query_row(query, [], |row| row.get::<_, i64>(0));
            connection::require_sound(&journal).is_ok()
        };
        let of_a_value = is_sound("SELECT sum(write) FROM records")
            && !is_sound("SELECT sum(length(hex(sealed))) FROM records");
        if !of_a_value {
            continue;
        }
        damaged += 1;
        for restart in 0..3 {
            process(async {
                let (catalog, authority) = disk.catalog();
                let store = catalog.open(&scope(&authority, "demo")).await;
                let store = store.unwrap_or_else(|error| panic!("page {page}: {error}"));
                assert_eq!(store.head().await.unwrap().seq, head.seq + restart * 3);
                commit_notes(&store, 3).await;
            });
        }
    }
    assert!(damaged >= 2, "{damaged} pages are of the long record");
}

/// The journal of a closed data directory.
fn journal_of(disk: &Disk) -> Connection {
    let key = DataKey::of_journal(&disk.master);
    let path = disk.config.data_dir.join("journal.db");
    let journal = connection::open(&path, &key, Role::Writer, &disk.config).unwrap();
    connection::on_close(&journal, OnClose::TidyLog).unwrap();
    journal
}

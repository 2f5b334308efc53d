//! Reading with SQL: the views, the functions, and everything that is refused.

use std::collections::BTreeSet;

use super::super::{QueryError, SqlValue, StoreError};
use super::harness::{Device, NOW, row};

#[test]
fn views_show_the_schemas_columns_and_ids_read_as_text() {
    let device = Device::new(1);
    device.write(|tx| tx.insert("items", Some(row(1)), &[("title", "x".into())]));
    let found = device.store.query("SELECT * FROM items", &[]).unwrap();
    assert_eq!(
        found.columns,
        [
            "id", "title", "size", "weight", "done", "photo", "seen_at", "owner", "extra", "stock",
            "tags"
        ]
    );
    let text = "01010101-0101-0101-0101-010101010101";
    let by_text = "SELECT uuid_text(id) FROM items WHERE id = uuid(?1)";
    let found = device.store.query(by_text, &[SqlValue::Text(text.into())]).unwrap();
    assert_eq!(found.rows, [[SqlValue::Text(text.into())]]);
    assert_eq!(
        device.sql("SELECT uuid(NULL), uuid_text(NULL)"),
        [[SqlValue::Null, SqlValue::Null]]
    );
}

#[test]
fn only_reading_the_views_is_allowed() {
    let device = Device::new(1);
    device.insert_item("x");
    for sql in [
        "DELETE FROM fs_rows_items",
        "UPDATE fs_state SET clock = 0",
        "CREATE TABLE t (x)",
        "PRAGMA query_only = OFF",
        "ATTACH DATABASE ':memory:' AS other",
        "BEGIN",
        "SELECT * FROM fs_outbox",
        "SELECT fs_pending FROM fs_rows_items",
        "SELECT 1; SELECT 2",
        "",
    ] {
        let error = device.store.query(sql, &[]).unwrap_err();
        assert!(matches!(error, QueryError::NotReadOnly { .. }), "{sql}: {error:?}");
    }
    for sql in [
        "SELEC 1",
        "SELECT nothing FROM items",
        "SELECT * FROM nothing",
        "DELETE FROM items",
        "SELECT uuid('x')",
        "SELECT \"x\"",
    ] {
        let error = device.store.query(sql, &[]).unwrap_err();
        assert!(matches!(error, QueryError::Sql { .. }), "{sql}: {error:?}");
    }
    let error = device.store.query("SELECT ?1", &[]).unwrap_err();
    assert!(matches!(error, QueryError::Parameters { expected: 1, found: 0 }));
    assert_eq!(device.sql("SELECT count(*) FROM items"), [[SqlValue::Int(1)]]);
}

#[test]
fn a_query_that_gives_too_much_is_refused() {
    let device = Device::new(1);
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n";
    assert!(matches!(device.store.query(endless, &[]), Err(QueryError::TooManyRows)));
    let wide = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT zeroblob(10000000) FROM n";
    assert!(matches!(device.store.query(wide, &[]), Err(QueryError::TooManyBytes)));
}

#[test]
fn a_query_says_which_collections_it_reads() {
    let device = Device::new(1);
    let names =
        |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    for (sql, collections) in [
        ("SELECT 1", &[][..]),
        ("SELECT title FROM items", &["items"]),
        ("SELECT count(*) FROM items", &["items"]),
        ("SELECT 1 WHERE EXISTS (SELECT 1 FROM notes)", &["notes"]),
        (
            "SELECT items.id FROM items JOIN visits ON visits.site = items.title",
            &["items", "visits"],
        ),
        (
            "WITH v AS (SELECT site FROM visits) SELECT * FROM v UNION SELECT title FROM notes",
            &["notes", "visits"],
        ),
    ] {
        for _ in 0..2 {
            assert_eq!(device.store.tables_of(sql).unwrap(), names(collections), "{sql}");
        }
    }
    assert!(matches!(
        device.store.tables_of("DELETE FROM fs_rows_items"),
        Err(QueryError::NotReadOnly { .. })
    ));
}

#[test]
fn more_readers_than_connections_take_turns() {
    let device = Device::new(1);
    device.insert_item("x");
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let store = device.store.clone();
            std::thread::spawn(move || store.query("SELECT count(*) FROM items", &[]).unwrap().rows)
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), [[SqlValue::Int(1)]]);
    }
}

#[test]
fn a_closed_store_says_so() {
    let device = Device::new(1);
    let id = device.insert_item("x");
    device.store.close().unwrap();
    device.store.close().unwrap();
    assert!(matches!(device.store.row("items", id), Err(QueryError::Store(StoreError::Closed))));
    assert!(matches!(
        device.store.query("SELECT 1", &[]),
        Err(QueryError::Store(StoreError::Closed))
    ));
    assert!(device.store.write(NOW, |tx| tx.delete("items", id)).is_err());
    assert!(matches!(device.store.checkpoint_wal(), Err(StoreError::Closed)));
}

#[test]
fn commits_are_told_by_collection() {
    let device = Device::new(1);
    let feed = device.store.changes();
    let seen = feed.version();
    let id = device.insert_item("x");
    let changes = feed.since(seen);
    assert_eq!(changes.collections, BTreeSet::from(["items".to_owned()]));
    assert!(changes.outbox && !changes.quarantine);
    let error = device.store.write(NOW, |tx| {
        tx.delete("items", id)?;
        Err::<(), _>(super::super::WriteError::Aborted(String::new()))
    });
    assert!(error.is_err());
    assert_eq!(
        feed.since(changes.version).collections,
        BTreeSet::new(),
        "a rollback changes nothing"
    );
}

#[test]
fn the_log_moves_into_the_file() {
    let device = Device::new(1);
    device.insert_item("x");
    device.store.checkpoint_wal().unwrap();
    let wal = device.dir.path().join("store.db-wal");
    assert_eq!(std::fs::metadata(wal).map_or(0, |wal| wal.len()), 0);
}

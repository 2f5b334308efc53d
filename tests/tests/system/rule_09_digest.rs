//! Rule 9: a copy that differs is found by its digest at the next checkpoint, mended in two round trips, and the row
//! is named in the server's log.

use std::fs;
use std::path::PathBuf;

use farshore_sync_core::digest::{Buckets, Sum, bucket_of};
use farshore_sync_core::ids::RowId;
use farshore_sync_core::wire::{BucketListing, ClientFrame, RowPayload, ServerFrame};
use rusqlite::{Connection, params};
use serde_json::json;
use system_tests::backstage::open_device_file;
use system_tests::deadline::{LATER, eventually};
use system_tests::fleet::{ITEMS, fresh_row, insert_item};
use system_tests::replica::Replica;
use system_tests::server::{Server, ServerOptions};
use system_tests::wire::{WireClient, first_hello};

/// The database of a replica.
fn database_of(replica: &Replica) -> PathBuf {
    let mut files = fs::read_dir(replica.dir()).unwrap().map(|entry| entry.unwrap().path());
    let is_database = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "db");
    files.find(is_database).expect("a replica has a database")
}

fn open_behind_the_sdk(replica: &Replica) -> Connection {
    let database = database_of(replica);
    let label = database.file_stem().unwrap().to_str().unwrap().to_owned();
    open_device_file(&database, &replica.dir().join("vault"), &label)
}

/// Counts a row's sum out of its bucket and another one in, as a device would that had stored something else.
fn recount(file: &Connection, row: RowId, out: Sum, into: Option<Sum>) {
    let place = params![ITEMS.0];
    let buckets: Vec<u8> = file
        .query_row("SELECT buckets FROM fs_digests WHERE collection = ?1", place, |found| {
            found.get(0)
        })
        .unwrap();
    let mut buckets = Buckets::from_bytes(&buckets).unwrap();
    let bucket = buckets.bucket_mut(bucket_of(row));
    bucket.remove(out);
    if let Some(sum) = into {
        bucket.add(sum);
    }
    let total = buckets.total().0.to_le_bytes();
    let changed = file
        .execute(
            "UPDATE fs_digests SET buckets = ?1, total = ?2 WHERE collection = ?3",
            params![buckets.to_bytes(), total, ITEMS.0],
        )
        .unwrap();
    assert_eq!(changed, 1);
}

fn sum_of(file: &Connection, row: RowId) -> Sum {
    let select = "SELECT fs_sum FROM fs_rows_items WHERE id = ?1";
    let bytes: [u8; 16] = file.query_row(select, [row.as_bytes()], |found| found.get(0)).unwrap();
    Sum(u128::from_le_bytes(bytes))
}

#[test]
fn a_row_that_was_altered_in_the_file_of_a_device_is_mended_and_named() {
    let server = Server::start(ServerOptions::default());
    let mut replica = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    let ids: Vec<String> = (0..50)
        .map(|n| replica.insert("items", json!({"label": format!("row {n}"), "amount": n})))
        .collect();
    replica.sync();
    let before = replica.digest();
    replica.close();

    let (altered, lost): (RowId, RowId) = (ids[7].parse().unwrap(), ids[8].parse().unwrap());
    let file = open_behind_the_sdk(&replica);
    let (old, new) = (sum_of(&file, altered), Sum(0x0bad_0bad));
    let update = "UPDATE fs_rows_items SET label = 'altered', fs_sum = ?1 WHERE id = ?2";
    assert_eq!(file.execute(update, params![new.0.to_le_bytes(), altered.as_bytes()]).unwrap(), 1);
    recount(&file, altered, old, Some(new));
    let old = sum_of(&file, lost);
    assert_eq!(
        file.execute("DELETE FROM fs_rows_items WHERE id = ?1", [lost.as_bytes()]).unwrap(),
        1
    );
    recount(&file, lost, old, None);
    drop(file);

    replica.open();
    assert_eq!(replica.number("SELECT count(*) FROM items WHERE label = 'altered'"), 1);
    assert_eq!(replica.number("SELECT count(*) FROM items"), 49);
    replica.connect();
    replica.wait_for("caught_up");
    eventually("the repair", LATER, || {
        let mended = replica.number("SELECT count(*) FROM items WHERE label LIKE 'row %'");
        (mended == 50).then_some(())
    });
    replica.wait_for_status("to be in step", |status| status["in_step"] == true);
    assert_eq!(replica.status()["repairs"], 1);
    assert_eq!(replica.digest(), before);
    let log = server.log();
    for row in [altered, lost] {
        assert!(
            log.lines().any(|line| line.contains(&row.to_string())),
            "{row} is not in the log\n{log}"
        );
    }
    // Two round trips: totals for sums, buckets for rows.
    for kind in ["compare", "buckets"] {
        assert_eq!(
            server.metric(&format!("farshore_frames_total{{direction=\"in\",kind=\"{kind}\"}}")),
            1
        );
    }
}

#[test]
fn two_round_trips_find_the_row_without_sending_the_others() {
    let server = Server::start(ServerOptions::default());
    let mut device =
        WireClient::connect(server.address(), &server.token(&["tenant:rw"]).token).unwrap();
    device.catch_up(first_hello());
    let rows: Vec<RowId> = (0..300).map(|_| fresh_row()).collect();
    for (number, chunk) in (1..).zip(rows.chunks(100)) {
        device.commit(number, chunk.iter().map(|row| insert_item(*row, "row", 1)).collect());
    }
    let scope = "tenant".parse().unwrap();
    let before = device.counts;
    device.send(&ClientFrame::Compare(vec![(scope, ITEMS, Sum(1))]));
    let sums = device.receive_until("sums", |frame| match frame {
        ServerFrame::Sums(sums) => Some(sums),
        _ => None,
    });
    let of_items = sums.into_iter().find(|entry| entry.collection == ITEMS).expect("items differ");
    let theirs = Buckets::from_bytes(&of_items.buckets).unwrap();
    let bucket = bucket_of(rows[0]);
    assert_ne!(theirs.bucket(bucket), Sum::default());
    let unknown = 0x1234_5678_9abc_def0_u64.to_le_bytes().to_vec();
    device.send(&ClientFrame::Buckets(vec![BucketListing {
        scope: of_items.scope,
        collection: ITEMS,
        bucket,
        hashes: unknown.clone().into(),
    }]));
    let repair = device.receive_until("the rows", |frame| match frame {
        ServerFrame::Repair(repair) => Some(repair),
        _ => None,
    });
    let in_bucket = rows.iter().filter(|row| bucket_of(**row) == bucket).count();
    assert_eq!(repair.rows.len(), in_bucket);
    assert!(repair.rows.iter().any(|entry| entry.row == rows[0]));
    assert!(repair.rows.iter().all(|entry| matches!(entry.payload, RowPayload::State(_))));
    assert_eq!(repair.unknown.to_vec(), unknown);
    assert_eq!(device.counts.sent_messages - before.sent_messages, 2);
}

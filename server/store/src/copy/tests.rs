//! Records come back as they were, and nothing else is one.

use super::*;
use crate::sql::{SqlRow, SqlValue};

fn records() -> Vec<Record> {
    vec![
        Record::Standing(StandingRecord {
            seq: 7,
            horizon: 3,
            epoch: u64::MAX,
            digest_key: [5; 32],
            created_at_ms: 1,
        }),
        Record::Plain(
            2,
            SqlRow(vec![
                SqlValue::Bytes(vec![1; 16]),
                SqlValue::Bytes(vec![2; 16]),
                SqlValue::Text("Tablet 4".to_owned()),
                SqlValue::Null,
                SqlValue::Int(-1),
                SqlValue::Int(i64::MAX),
            ]),
        ),
        Record::Forget(ForgetRecord { collection: 65_535, id: [9; 16] }),
        Record::Change(ChangeRecord {
            scope: "site/a".to_owned(),
            seq: 7,
            kind: 1,
            collection: 65_535,
            id: [9; 16],
            written_at_ms: 2,
            has_chunks: true,
            state: vec![0; 300],
        }),
        Record::Chunk(ChunkRecord {
            collection: 1,
            id: [9; 16],
            column: 4,
            seq: 6,
            hash: [8; 32],
            bytes: vec![1, 2, 3],
        }),
        Record::Sums(SumsRecord {
            scope: "site/a".to_owned(),
            collection: 1,
            buckets: vec![3; 4_096],
        }),
    ]
}

#[test]
fn records_come_back_as_they_were() {
    for record in records() {
        let bytes = record.to_bytes();
        assert_eq!(Record::from_bytes(&bytes).unwrap(), record);
        assert!(bytes.len() <= record.weight(), "{record:?} weighs less than its bytes");
    }
}

#[test]
fn a_cut_or_longer_record_is_an_error() {
    for record in records() {
        let bytes = record.to_bytes();
        for length in 0..bytes.len() {
            assert!(Record::from_bytes(&bytes[..length]).is_err(), "cut at {length}");
        }
        assert!(Record::from_bytes(&[bytes, vec![0]].concat()).is_err());
    }
    for hostile in [
        &[0x9f, 0x00][..],
        &[0x82, 0x01, 0x05],
        &[0x84, 0x01, 0x03, 0x00, 0x00],
        &[0x82, 0x09, 0x00],
    ] {
        assert!(Record::from_bytes(hostile).is_err(), "{hostile:?}");
    }
}

#[tokio::test]
async fn the_digest_depends_on_each_record_and_on_their_order() {
    let digest = async |records: Vec<Record>| {
        let mut tally = Tally::default();
        tally.take(records).await.unwrap();
        tally.digest()
    };
    let all = records();
    let whole = digest(all.clone()).await;
    for left_out in 0..all.len() {
        let mut fewer = all.clone();
        fewer.remove(left_out);
        assert_ne!(digest(fewer).await, whole);
    }
    let mut swapped = all.clone();
    swapped.swap(1, 2);
    assert_ne!(digest(swapped).await, whole);
    let mut tally = Tally::default();
    for record in all {
        tally.take(vec![record]).await.unwrap();
    }
    assert_eq!(tally.digest(), whole, "batches do not show");
}

#[test]
fn plain_tables_are_selected_by_key_and_inserted_in_groups() {
    let marks = PLAIN_TABLES[3];
    assert_eq!(
        marks.select(),
        "SELECT device, high_water, settled, last_stamp FROM main.marks ORDER BY device"
    );
    assert_eq!(
        marks.insert(2),
        "INSERT INTO main.marks (device, high_water, settled, last_stamp) \
         VALUES ($1, $2, $3, $4), ($5, $6, $7, $8)"
    );
}

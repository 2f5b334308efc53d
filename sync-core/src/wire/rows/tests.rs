//! What goes in comes out, whatever it is; and it is short.

use proptest::collection::vec;
use proptest::prelude::*;

use super::MAX_DISTANCE;
use crate::hlc::{Hlc, Stamp};
use crate::ids::{CollectionId, ColumnId, DeviceId, RowId};
use crate::row::properties::{row, stamp};
use crate::row::{Cell, RowState};
use crate::value::Value;
use crate::wire::limits::MAX_FRAME_BYTES;
use crate::wire::{Frame as _, Page, RowEntry, RowPayload, ServerFrame};

const MINUTE_MS: u64 = 60_000;
const COLUMNS: u16 = 19;

fn written(rows: &[RowEntry]) -> Vec<u8> {
    ServerFrame::Page(Page { rows: rows.to_vec(), ..Page::default() }).to_bytes()
}

fn read(bytes: &[u8]) -> Result<Vec<RowEntry>, String> {
    match ServerFrame::from_bytes(bytes) {
        Ok(ServerFrame::Page(page)) => Ok(page.rows),
        other => Err(format!("{other:?}")),
    }
}

fn payload() -> impl Strategy<Value = RowPayload> {
    let state = |bytes: Vec<u8>| RowPayload::State(bytes.into());
    prop_oneof![
        6 => row().prop_map(move |row| state(row.encode())),
        1 => vec(any::<u8>(), 0..40).prop_map(state),
        1 => (row(), any::<prop::sample::Index>(), any::<u8>()).prop_map(move |(row, at, to)| {
            let mut bytes = row.encode();
            let at = at.index(bytes.len());
            bytes[at] = to;
            state(bytes)
        }),
        1 => stamp().prop_map(RowPayload::Deleted),
        1 => Just(RowPayload::Departed),
    ]
}

fn entry() -> impl Strategy<Value = RowEntry> {
    let id = vec(0..3u8, 16).prop_map(|bytes| RowId::from_bytes(bytes.try_into().unwrap()));
    (0..3u16, 0..300u16, id, payload()).prop_map(|(scope, collection, row, payload)| RowEntry {
        scope,
        collection: CollectionId(collection),
        row,
        payload,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn rows_come_out_as_they_went_in(rows in vec(entry(), 0..80)) {
        prop_assert_eq!(read(&written(&rows)), Ok(rows));
    }

    #[test]
    fn what_is_read_of_hostile_bytes_can_be_written(bytes in vec(any::<u8>(), 0..200)) {
        let mut frame = vec![0x82, 1, 0x81, 0xa1, 0, 0x58, bytes.len() as u8];
        frame.extend_from_slice(&bytes);
        if let Ok(rows) = read(&frame) {
            prop_assert_eq!(read(&written(&rows)), Ok(rows));
        }
    }
}

/// A row as a device inserts it, `number` rows after the first one.
fn inserted(number: u64, stamp: Stamp) -> RowState {
    let cells = (1..=COLUMNS).map(|column| Cell {
        column: ColumnId(column),
        value: Value::Int((number + u64::from(column)).cast_signed()),
        stamp,
    });
    RowState { cells: cells.collect(), ..RowState::default() }
}

/// An identity of the milliseconds, like a UUIDv7, and bytes that no two rows share.
fn identity(wall_ms: u64, number: u64) -> RowId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(wall_ms << 16 | 0x7000).to_be_bytes());
    id[8..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    RowId::from_bytes(id)
}

/// Bytes of a row beyond its values, of many rows.
fn overhead(rows: &[(RowId, RowState)]) -> f64 {
    let entries: Vec<RowEntry> = rows
        .iter()
        .map(|(row, state)| RowEntry {
            scope: 0,
            collection: CollectionId(4),
            row: *row,
            payload: RowPayload::State(state.encode().into()),
        })
        .collect();
    let values: usize = rows
        .iter()
        .flat_map(|(_, state)| &state.cells)
        .map(|cell| minicbor::to_vec(&cell.value).unwrap().len())
        .sum();
    (written(&entries).len() - values) as f64 / rows.len() as f64
}

const START_MS: u64 = 1_700_000_000_000;

fn at(wall_ms: u64, device: u8) -> Stamp {
    Stamp { hlc: Hlc::from_wall_ms(wall_ms), device: DeviceId::from_bytes([device; 16]) }
}

#[test]
fn rows_of_one_transaction_cost_little_more_than_their_identities() {
    let rows: Vec<_> = (0..100)
        .map(|number| (identity(START_MS, number), inserted(number, at(START_MS, 1))))
        .collect();
    let bytes = overhead(&rows);
    assert!(bytes <= 15.0, "{bytes} bytes a row");
}

#[test]
fn scattered_rows_that_changed_cost_little_more_than_their_identities() {
    let rows: Vec<_> = (0..1_000)
        .map(|number| {
            let wall_ms = START_MS + number * MINUTE_MS;
            let mut row = inserted(number, at(wall_ms, number as u8 % 16));
            row.cells[5].stamp = at(START_MS + 1_000_000 * MINUTE_MS, 40);
            (identity(wall_ms, number), row)
        })
        .collect();
    let bytes = overhead(&rows);
    assert!(bytes <= 25.0, "{bytes} bytes a row");
}

#[test]
fn references_reach_back_over_all_that_is_kept_and_no_further() {
    for devices in [MAX_DISTANCE, MAX_DISTANCE + 1, 3 * MAX_DISTANCE] {
        let rows: Vec<RowEntry> = (0..4 * devices)
            .map(|number| RowEntry {
                scope: 0,
                collection: CollectionId((number % devices) as u16),
                row: identity(START_MS, number as u64),
                payload: RowPayload::Deleted(at(START_MS, (number % devices) as u8)),
            })
            .collect();
        assert_eq!(read(&written(&rows)), Ok(rows), "{devices} devices");
    }
}

#[test]
fn short_bytes_that_stand_for_long_rows_are_refused() {
    // 511 stamps of one reference each: 2 bytes that stand for 28.
    let stamped = RowState {
        cells: (0..511)
            .map(|column| Cell {
                column: ColumnId(column),
                value: Value::Null,
                stamp: if column < 256 { at(2, 2) } else { at(1, 1) },
            })
            .collect(),
        ..RowState::default()
    };
    let entry = RowEntry {
        scope: 0,
        collection: CollectionId(1),
        row: identity(START_MS, 0),
        payload: RowPayload::State(stamped.encode().into()),
    };
    let fit = MAX_FRAME_BYTES / stamped.encode().len();
    assert!(read(&written(&vec![entry.clone(); fit.min(1_000)])).is_ok());
    let bytes = written(&vec![entry; fit + 1]);
    assert!(bytes.len() < MAX_FRAME_BYTES / 4, "{} bytes", bytes.len());
    let error = read(&bytes).unwrap_err();
    assert!(error.contains("longer than a frame"), "{error}");
}

//! Writing the rows of a page.

use minicbor::Encoder;

use super::split::{ONLY_CELLS, Parts};
use super::{FOLLOWS, Kind, MAX_SHARED_BYTES, Said, Shape, Stamps};
use crate::hlc::Stamp;
use crate::ids::{ColumnId, DeviceId, RowId};
use crate::wire::{RowEntry, RowPayload};

/// Writes rows as one byte string.
pub(in crate::wire) fn encode<C, W: minicbor::encode::Write>(
    rows: &[RowEntry],
    e: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    let states = rows.iter().map(|entry| match &entry.payload {
        RowPayload::State(state) => state.len(),
        RowPayload::Deleted(_) | RowPayload::Departed => 0,
    });
    let mut writer = Writer { bytes: Vec::with_capacity(states.sum()), said: Said::nothing() };
    let mut parts = Parts::default();
    for entry in rows {
        writer.row(entry, &mut parts);
    }
    e.bytes(&writer.bytes)?.ok()
}

struct Writer {
    bytes: Vec<u8>,
    said: Said,
}

impl Writer {
    fn row(&mut self, entry: &RowEntry, parts: &mut Parts) {
        let (kind, base) = match &entry.payload {
            RowPayload::State(state) => match parts.read(state) {
                Some(base) => (Kind::State, Some(base)),
                None => (Kind::Bytes, None),
            },
            RowPayload::Deleted(stamp) => (Kind::Deleted, Some(*stamp)),
            RowPayload::Departed => (Kind::Departed, None),
        };
        let columns = if kind == Kind::State { parts.columns.as_slice() } else { &[] };
        self.shape(entry, kind, columns);
        self.identity(entry.row);
        if let Some(base) = base {
            stamp(&mut self.bytes, &mut self.said.stamps, &mut self.said.devices, base);
        }
        match (&entry.payload, kind) {
            (RowPayload::State(_), Kind::State) => self.state(parts),
            (RowPayload::State(bytes), _) => self.with_length(bytes),
            (RowPayload::Deleted(_) | RowPayload::Departed, _) => {}
        }
    }

    fn shape(&mut self, entry: &RowEntry, kind: Kind, columns: &[ColumnId]) {
        let (scope, collection) = (entry.scope, entry.collection);
        let reference = self.said.shapes.find(|said| {
            (said.scope, said.collection, said.kind) == (scope, collection, kind)
                && said.columns == columns
        });
        self.number(reference);
        if reference != FOLLOWS {
            return;
        }
        self.number(scope.into());
        self.number(collection.0.into());
        self.number(kind.number());
        if kind == Kind::State {
            let runs = columns.chunk_by(|a, b| a.0.checked_add(1) == Some(b.0));
            self.number(runs.clone().count() as u64);
            for run in runs {
                self.number(run[0].0.into());
                self.number(run.len() as u64 - 1);
            }
        }
        self.said.shapes.push(Shape { scope, collection, kind, columns: columns.to_vec() });
    }

    fn identity(&mut self, row: RowId) {
        let row = row.as_bytes();
        let pairs = row.iter().zip(&self.said.row).take(MAX_SHARED_BYTES);
        let shared = pairs.take_while(|(a, b)| a == b).count();
        self.bytes.push(shared as u8);
        self.bytes.extend_from_slice(&row[shared..]);
        self.said.row = *row;
    }

    fn state(&mut self, parts: &Parts) {
        let has_rest = parts.head > ONLY_CELLS;
        self.number(parts.exceptions.len() as u64 * 2 + u64::from(has_rest));
        for (column, other) in &parts.exceptions {
            self.number(column.0.into());
            stamp(&mut self.bytes, &mut self.said.cell_stamps, &mut self.said.devices, *other);
        }
        self.bytes.extend_from_slice(&parts.values);
        if has_rest {
            self.bytes.push(parts.head);
            self.with_length(&parts.rest);
        }
    }

    fn number(&mut self, number: u64) {
        write_number(&mut self.bytes, number);
    }

    fn with_length(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }
}

fn stamp(
    bytes: &mut Vec<u8>,
    stamps: &mut Stamps,
    devices: &mut super::Recent<DeviceId>,
    stamp: Stamp,
) {
    let reference = stamps.recent.find(|said| *said == stamp);
    write_number(bytes, reference);
    if reference != FOLLOWS {
        return;
    }
    let wall_ms = stamp.hlc.wall_ms();
    let change = wall_ms.wrapping_sub(stamps.wall_ms).cast_signed();
    write_number(bytes, ((change << 1) ^ (change >> 63)).cast_unsigned());
    write_number(bytes, stamp.hlc.0 & u64::from(u16::MAX));
    let device = devices.find(|said| *said == stamp.device);
    write_number(bytes, device);
    if device == FOLLOWS {
        bytes.extend_from_slice(stamp.device.as_bytes());
        devices.push(stamp.device);
    }
    stamps.wall_ms = wall_ms;
    stamps.recent.push(stamp);
}

fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

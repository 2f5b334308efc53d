//! The compact bytes beside a row's typed columns: what of a [`RowState`] the columns do not say.
//!
//! Typed columns hold the values; this holds who wrote them and when, which of them were ever written, and the
//! cells that no typed column can hold. Both together rebuild the row bit by bit. A row of 19 columns that one
//! device wrote in one transaction costs 13 bytes.
//!
//! Layout: flags, base stamp, the numbers of the columns that were written as runs, then the parts that the
//! flags name. A stamp is 8 bytes of HLC and the number under which the store knows the device.

use std::collections::BTreeMap;

use farshore_sync_core::hlc::{Hlc, Stamp};
use farshore_sync_core::ids::{ColumnId, DeviceId};
use farshore_sync_core::row::{Cell, CounterTotal, DocumentSummary, Life, RowState, SetEntry};
use farshore_sync_core::value::Value;

use super::codec::{Reader, put_hlc, put_value, put_varint};
use super::error::Failure;
use super::layout::CollectionLayout;
use super::typed::is_faithful;

const EXCEPTIONS: u8 = 1;
const LIFE: u8 = 2;
const COUNTERS: u8 = 4;
const SETS: u8 = 8;
const DOCUMENTS: u8 = 16;
const OWN_CELLS: u8 = 32;

/// Set where something belongs to a column that the tables do not have. It is the highest bit of the first
/// byte, so that SQL finds such rows with [`UNTYPED_FROM`].
const UNTYPED: u8 = 128;

/// Rows with untyped content have metadata at or above these bytes.
pub(super) const UNTYPED_FROM: &[u8] = &[UNTYPED];

/// Gives each device the number under which the store knows it.
pub(super) trait DeviceNumbers {
    fn number_of(&mut self, device: DeviceId) -> Result<u64, Failure>;
}

/// The metadata of a row.
pub(super) fn encode(
    state: &RowState,
    layout: &CollectionLayout,
    devices: &mut impl DeviceNumbers,
) -> Result<Vec<u8>, Failure> {
    let base = base_stamp(&state.cells);
    let own: Vec<&Cell> =
        state.cells.iter().filter(|cell| !has_home(layout, cell.column, &cell.value)).collect();
    let mut bytes = Vec::with_capacity(32);
    bytes.push(flags(state, layout, base, &own));
    put_stamp(&mut bytes, base, devices)?;
    put_runs(&mut bytes, state.cells.iter().map(|cell| cell.column));
    put_exceptions(&mut bytes, &state.cells, base, devices)?;
    if let Some(life) = &state.life {
        put_stamp(&mut bytes, life.stamp, devices)?;
        bytes.push(u8::from(life.deleted));
    }
    put_counters(&mut bytes, state, devices)?;
    put_sets(&mut bytes, state, devices)?;
    if !state.documents.is_empty() {
        put_varint(&mut bytes, state.documents.len() as u64);
        for (column, summary) in &state.documents {
            put_varint(&mut bytes, column.0.into());
            put_varint(&mut bytes, summary.changes.into());
            bytes.extend_from_slice(&summary.sum.to_le_bytes());
        }
    }
    put_own_cells(&mut bytes, own.iter().map(|cell| (cell.column, &cell.value)));
    Ok(bytes)
}

/// The metadata of a row that one write made: [`encode`] without building a [`RowState`].
pub(super) fn encode_single_write(
    cells: &[(ColumnId, &Value)],
    stamp: Stamp,
    layout: &CollectionLayout,
    devices: &mut impl DeviceNumbers,
) -> Result<Vec<u8>, Failure> {
    let own: Vec<&(ColumnId, &Value)> =
        cells.iter().filter(|(column, value)| !has_home(layout, *column, value)).collect();
    let untyped = own.iter().any(|(column, _)| layout.scalar(*column).is_none());
    let mut bytes = Vec::with_capacity(24);
    let own_flag = if own.is_empty() { 0 } else { OWN_CELLS };
    bytes.push(own_flag | if untyped { UNTYPED } else { 0 });
    put_stamp(&mut bytes, if cells.is_empty() { Stamp::ZERO } else { stamp }, devices)?;
    put_runs(&mut bytes, cells.iter().map(|(column, _)| *column));
    put_own_cells(&mut bytes, own.iter().map(|(column, value)| (*column, *value)));
    Ok(bytes)
}

/// The row of these metadata; `typed` reads the typed column at an index of the layout.
pub(super) fn decode(
    bytes: &[u8],
    layout: &CollectionLayout,
    device_of: &dyn Fn(u64) -> Option<DeviceId>,
    typed: &dyn Fn(usize) -> Result<Value, Failure>,
) -> Result<RowState, Failure> {
    let mut reader = Reader::new(bytes);
    let flags = reader.byte()?;
    let base = stamp(&mut reader, device_of)?;
    let columns = runs(&mut reader)?;
    let exceptions = counted(&mut reader, flags & EXCEPTIONS, |reader| {
        Ok((column(reader)?, stamp(reader, device_of)?))
    })?;
    let life = if flags & LIFE == 0 {
        None
    } else {
        Some(Life { stamp: stamp(&mut reader, device_of)?, deleted: reader.byte()? != 0 })
    };
    let counters = counted(&mut reader, flags & COUNTERS, |reader| {
        Ok((column(reader)?, counted(reader, 1, |reader| total(reader, device_of))?))
    })?;
    let sets = counted(&mut reader, flags & SETS, |reader| {
        Ok((column(reader)?, counted(reader, 1, |reader| element(reader, device_of))?))
    })?;
    let documents = counted(&mut reader, flags & DOCUMENTS, |reader| {
        let (column, changes) = (column(reader)?, reader.varint()?);
        let changes = u32::try_from(changes).map_err(|_| broken("too many changes"))?;
        Ok((column, DocumentSummary { changes, sum: u128::from_le_bytes(reader.array()?) }))
    })?;
    let mut own: BTreeMap<ColumnId, Value> =
        counted(&mut reader, flags & OWN_CELLS, |reader| Ok((column(reader)?, reader.value()?)))?;
    reader.end()?;
    let mut cells = Vec::with_capacity(columns.len());
    for column in columns {
        let value = match own.remove(&column) {
            Some(value) => value,
            None => {
                typed(layout.scalar(column).ok_or_else(|| broken("a value without a column"))?)?
            }
        };
        cells.push(Cell { column, value, stamp: exceptions.get(&column).copied().unwrap_or(base) });
    }
    Ok(RowState { life, cells, counters, sets, documents })
}

fn broken(what: &str) -> Failure {
    Failure::damaged(format!("row metadata: {what}"))
}

fn has_home(layout: &CollectionLayout, column: ColumnId, value: &Value) -> bool {
    layout
        .scalar(column)
        .is_some_and(|at| is_faithful(layout.columns[at].column.column_type, value))
}

fn flags(state: &RowState, layout: &CollectionLayout, base: Stamp, own: &[&Cell]) -> u8 {
    let collected = || state.counters.keys().chain(state.sets.keys()).chain(state.documents.keys());
    let untyped = own.iter().any(|cell| layout.scalar(cell.column).is_none())
        || collected().any(|column| layout.column(*column).is_none());
    [
        (EXCEPTIONS, state.cells.iter().any(|cell| cell.stamp != base)),
        (LIFE, state.life.is_some()),
        (COUNTERS, !state.counters.is_empty()),
        (SETS, !state.sets.is_empty()),
        (DOCUMENTS, !state.documents.is_empty()),
        (OWN_CELLS, !own.is_empty()),
        (UNTYPED, untyped),
    ]
    .into_iter()
    .fold(0, |flags, (flag, set)| if set { flags | flag } else { flags })
}

/// The stamp that most cells share.
fn base_stamp(cells: &[Cell]) -> Stamp {
    let Some(first) = cells.first() else { return Stamp::ZERO };
    if cells.iter().all(|cell| cell.stamp == first.stamp) {
        return first.stamp;
    }
    let mut counts: BTreeMap<Stamp, usize> = BTreeMap::new();
    cells.iter().for_each(|cell| *counts.entry(cell.stamp).or_default() += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map_or(first.stamp, |(stamp, _)| stamp)
}

fn put_stamp(
    bytes: &mut Vec<u8>,
    stamp: Stamp,
    devices: &mut impl DeviceNumbers,
) -> Result<(), Failure> {
    put_hlc(bytes, stamp.hlc);
    put_varint(bytes, devices.number_of(stamp.device)?);
    Ok(())
}

/// Sorted columns as runs of neighbours: how many to leave out, how many to take.
fn put_runs(bytes: &mut Vec<u8>, columns: impl Iterator<Item = ColumnId>) {
    let mut runs: Vec<(u64, u64)> = Vec::with_capacity(2);
    let mut next = 1;
    for column in columns.map(|column| u64::from(column.0)) {
        match runs.last_mut() {
            Some((_, length)) if column == next => *length += 1,
            _ => runs.push((column.saturating_sub(next), 1)),
        }
        next = column + 1;
    }
    put_varint(bytes, runs.len() as u64);
    for (gap, length) in runs {
        put_varint(bytes, gap);
        put_varint(bytes, length);
    }
}

fn put_exceptions(
    bytes: &mut Vec<u8>,
    cells: &[Cell],
    base: Stamp,
    devices: &mut impl DeviceNumbers,
) -> Result<(), Failure> {
    let exceptions = || cells.iter().filter(|cell| cell.stamp != base);
    let count = exceptions().count();
    if count > 0 {
        put_varint(bytes, count as u64);
        for cell in exceptions() {
            put_varint(bytes, cell.column.0.into());
            put_stamp(bytes, cell.stamp, devices)?;
        }
    }
    Ok(())
}

fn put_counters(
    bytes: &mut Vec<u8>,
    state: &RowState,
    devices: &mut impl DeviceNumbers,
) -> Result<(), Failure> {
    if state.counters.is_empty() {
        return Ok(());
    }
    put_varint(bytes, state.counters.len() as u64);
    for (column, totals) in &state.counters {
        put_varint(bytes, column.0.into());
        put_varint(bytes, totals.len() as u64);
        for (device, total) in totals {
            put_varint(bytes, devices.number_of(*device)?);
            put_varint(bytes, total.added);
            put_varint(bytes, total.taken);
        }
    }
    Ok(())
}

fn put_sets(
    bytes: &mut Vec<u8>,
    state: &RowState,
    devices: &mut impl DeviceNumbers,
) -> Result<(), Failure> {
    if state.sets.is_empty() {
        return Ok(());
    }
    put_varint(bytes, state.sets.len() as u64);
    for (column, elements) in &state.sets {
        put_varint(bytes, column.0.into());
        put_varint(bytes, elements.len() as u64);
        for (element, adds) in elements {
            put_value(bytes, element);
            put_varint(bytes, adds.len() as u64);
            for (device, add) in adds {
                put_varint(bytes, devices.number_of(*device)?);
                put_hlc(bytes, add.hlc);
                bytes.push(u8::from(add.alive));
            }
        }
    }
    Ok(())
}

fn put_own_cells<'v>(
    bytes: &mut Vec<u8>,
    cells: impl Iterator<Item = (ColumnId, &'v Value)> + Clone,
) {
    let count = cells.clone().count();
    if count > 0 {
        put_varint(bytes, count as u64);
        for (column, value) in cells {
            put_varint(bytes, column.0.into());
            put_value(bytes, value);
        }
    }
}

fn column(reader: &mut Reader<'_>) -> Result<ColumnId, Failure> {
    u16::try_from(reader.varint()?).map(ColumnId).map_err(|_| broken("a column number"))
}

fn stamp(
    reader: &mut Reader<'_>,
    device_of: &dyn Fn(u64) -> Option<DeviceId>,
) -> Result<Stamp, Failure> {
    let hlc = Hlc(u64::from_be_bytes(reader.array()?));
    Ok(Stamp { hlc, device: device(reader, device_of)? })
}

fn device(
    reader: &mut Reader<'_>,
    device_of: &dyn Fn(u64) -> Option<DeviceId>,
) -> Result<DeviceId, Failure> {
    device_of(reader.varint()?).ok_or_else(|| broken("an unknown device"))
}

fn runs(reader: &mut Reader<'_>) -> Result<Vec<ColumnId>, Failure> {
    let mut columns = Vec::new();
    let mut next = 1u64;
    for _ in 0..reader.varint()? {
        next = next.saturating_add(reader.varint()?);
        let length = reader.varint()?;
        if length > u64::from(u16::MAX) {
            return Err(broken("a run"));
        }
        for _ in 0..length {
            columns.push(u16::try_from(next).map(ColumnId).map_err(|_| broken("a run"))?);
            next += 1;
        }
    }
    Ok(columns)
}

/// A counted list of pairs, where its flag is set.
fn counted<K: Ord, V>(
    reader: &mut Reader<'_>,
    flag: u8,
    item: impl Fn(&mut Reader<'_>) -> Result<(K, V), Failure>,
) -> Result<BTreeMap<K, V>, Failure> {
    let mut items = BTreeMap::new();
    if flag != 0 {
        for _ in 0..reader.varint()? {
            let (key, value) = item(reader)?;
            items.insert(key, value);
        }
    }
    Ok(items)
}

fn total(
    reader: &mut Reader<'_>,
    device_of: &dyn Fn(u64) -> Option<DeviceId>,
) -> Result<(DeviceId, CounterTotal), Failure> {
    let device = device(reader, device_of)?;
    Ok((device, CounterTotal { added: reader.varint()?, taken: reader.varint()? }))
}

type Adds = BTreeMap<DeviceId, SetEntry>;

fn element(
    reader: &mut Reader<'_>,
    device_of: &dyn Fn(u64) -> Option<DeviceId>,
) -> Result<(Value, Adds), Failure> {
    let element = reader.value()?;
    let adds = counted(reader, 1, |reader| {
        let device = device(reader, device_of)?;
        let hlc = Hlc(u64::from_be_bytes(reader.array()?));
        Ok((device, SetEntry { hlc, alive: reader.byte()? != 0 }))
    })?;
    Ok((element, adds))
}

//! The canonical bytes of a row.
//!
//! `[base hlc, base device, cells, exceptions?, life?, counters?, sets?, documents?]` with trailing empty parts
//! left out. Nearly all cells of a row come from one write, so its stamp is written once as the base, and only
//! cells of other writes name theirs. One state has one encoding; any other one is refused when read.

use std::collections::BTreeMap;

use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::{
    Cell, CounterTotal, CounterTotals, DocumentSummary, Life, RowState, SetEntries, SetEntry,
};
use crate::hlc::{Hlc, Stamp};
use crate::ids::{ColumnId, DeviceId};
use crate::value::Value;
use crate::wire::limits::{MAX_CELLS, MAX_ROW_BYTES, MAX_SET_ELEMENTS};

type EncodeResult<W> = Result<(), minicbor::encode::Error<<W as minicbor::encode::Write>::Error>>;
type DecodeResult<T> = Result<T, minicbor::decode::Error>;

/// Room for a row of some twenty columns: growing into it would copy it several times.
const TYPICAL_BYTES: usize = 256;

/// Why bytes are no row.
#[derive(Debug, thiserror::Error)]
pub enum RowDecodeError {
    /// More bytes than a row may have.
    #[error("the row has {bytes} bytes; the limit is {MAX_ROW_BYTES}")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// Not the encoding of a row.
    #[error("not a row: {0}")]
    Malformed(#[from] minicbor::decode::Error),
}

impl RowState {
    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(TYPICAL_BYTES);
        minicbor::encode(self, &mut bytes).expect("writing to memory cannot fail");
        bytes
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// See [`RowDecodeError`]; hostile bytes never panic, and memory is bounded by their length.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowDecodeError> {
        if bytes.len() > MAX_ROW_BYTES {
            return Err(RowDecodeError::TooLong { bytes: bytes.len() });
        }
        let mut decoder = Decoder::new(bytes);
        let state: Self = decoder.decode()?;
        if decoder.position() != bytes.len() {
            return Err(error("bytes after the row").into());
        }
        // CBOR has several ways to write a number, a length or a NaN.
        let mut same = Same { rest: bytes };
        if minicbor::encode(&state, &mut same).is_err() {
            return Err(error("not the canonical encoding of this row").into());
        }
        Ok(state)
    }

    /// How many parts the encoding has, and the stamp that most cells share; of equals the later one.
    fn outline(&self) -> (u64, Stamp) {
        let only = self.only_stamp();
        let has_exceptions = !self.cells.is_empty() && only.is_none();
        (self.parts(has_exceptions), only.unwrap_or_else(|| self.most_frequent_stamp()))
    }

    fn most_frequent_stamp(&self) -> Stamp {
        let mut counts: Vec<(usize, Stamp)> = Vec::new();
        for cell in &self.cells {
            match counts.iter_mut().find(|(_, stamp)| *stamp == cell.stamp) {
                Some((count, _)) => *count += 1,
                None => counts.push((1, cell.stamp)),
            }
        }
        counts.into_iter().max().map_or(Stamp::ZERO, |(_, stamp)| stamp)
    }

    /// The stamp of all cells, where they have one in common: that is nearly always.
    fn only_stamp(&self) -> Option<Stamp> {
        let stamp = self.cells.first()?.stamp;
        self.cells.iter().all(|cell| cell.stamp == stamp).then_some(stamp)
    }

    fn parts(&self, has_exceptions: bool) -> u64 {
        let parts = [
            !self.documents.is_empty(),
            !self.sets.is_empty(),
            !self.counters.is_empty(),
            self.life.is_some(),
            has_exceptions,
        ];
        8 - parts.iter().position(|present| *present).unwrap_or(parts.len()) as u64
    }
}

/// A writer that takes the bytes that it expects and no others.
struct Same<'b> {
    rest: &'b [u8],
}

/// Other bytes than expected.
struct Other;

impl minicbor::encode::Write for Same<'_> {
    type Error = Other;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Other> {
        self.rest = self.rest.strip_prefix(bytes).ok_or(Other)?;
        Ok(())
    }
}

fn error(message: &'static str) -> minicbor::decode::Error {
    minicbor::decode::Error::message(message)
}

impl<C> Encode<C> for RowState {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> EncodeResult<W> {
        let (parts, base) = self.outline();
        e.array(parts)?;
        base.hlc.encode(e, ctx)?;
        base.device.encode(e, ctx)?;
        e.map(self.cells.len() as u64)?;
        for cell in &self.cells {
            e.u16(cell.column.0)?;
            cell.value.encode(e, ctx)?;
        }
        if parts > 3 {
            let exceptions = self.cells.iter().filter(|cell| cell.stamp != base);
            e.map(exceptions.clone().count() as u64)?;
            for cell in exceptions {
                e.u16(cell.column.0)?;
                cell.stamp.encode(e, ctx)?;
            }
        }
        if parts > 4 {
            match &self.life {
                None => e.null()?,
                Some(life) => {
                    e.array(3)?;
                    life.stamp.hlc.encode(e, ctx)?;
                    life.stamp.device.encode(e, ctx)?;
                    e.bool(life.deleted)?
                }
            };
        }
        if parts > 5 {
            encode_map(e, ctx, &self.counters, |e, ctx, totals: &CounterTotals| {
                encode_map(e, ctx, totals, |e, _, total| {
                    e.array(2)?.u64(total.added)?.u64(total.taken)?.ok()
                })
            })?;
        }
        if parts > 6 {
            encode_map(e, ctx, &self.sets, |e, ctx, entries: &SetEntries| {
                encode_map(e, ctx, entries, |e, ctx, adds: &BTreeMap<DeviceId, SetEntry>| {
                    encode_map(e, ctx, adds, |e, _, add| {
                        e.array(2)?.u64(add.hlc.0)?.bool(add.alive)?.ok()
                    })
                })
            })?;
        }
        if parts > 7 {
            encode_map(e, ctx, &self.documents, |e, _, summary| {
                e.array(2)?.u32(summary.changes)?.bytes(&summary.sum.to_le_bytes())?.ok()
            })?;
        }
        Ok(())
    }
}

fn encode_map<C, W: minicbor::encode::Write, K: Encode<C>, V>(
    e: &mut Encoder<W>,
    ctx: &mut C,
    map: &BTreeMap<K, V>,
    value: impl Fn(&mut Encoder<W>, &mut C, &V) -> EncodeResult<W>,
) -> EncodeResult<W> {
    e.map(map.len() as u64)?;
    for (key, item) in map {
        key.encode(e, ctx)?;
        value(e, ctx, item)?;
    }
    Ok(())
}

impl<'b, C> Decode<'b, C> for RowState {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> DecodeResult<Self> {
        let parts = d
            .array()?
            .filter(|parts| (3..=8).contains(parts))
            .ok_or_else(|| error("a row has 3 to 8 parts"))?;
        let base = Stamp { hlc: Hlc::decode(d, ctx)?, device: DeviceId::decode(d, ctx)? };
        let mut state = Self { cells: decode_cells(d, ctx, base)?, ..Self::default() };
        if parts > 3 {
            let stamps = decode_map(d, ctx, MAX_CELLS, |d, ctx| Stamp::decode(d, ctx))?;
            for (column, stamp) in stamps {
                if stamp == base {
                    return Err(error("a stamp that is the base is not written again"));
                }
                let at = state.cells.binary_search_by_key(&column, |cell| cell.column);
                state.cells[at.map_err(|_| error("a stamp without a cell"))?].stamp = stamp;
            }
        }
        if parts > 4 {
            state.life = decode_life(d, ctx)?;
        }
        if parts > 5 {
            state.counters = decode_map(d, ctx, MAX_CELLS, |d, ctx| {
                decode_map(d, ctx, MAX_CELLS, decode_total)
            })?;
        }
        if parts > 6 {
            state.sets = decode_map(d, ctx, MAX_CELLS, |d, ctx| {
                decode_map::<C, Value, _>(d, ctx, MAX_SET_ELEMENTS, |d, ctx| {
                    decode_map(d, ctx, MAX_CELLS, decode_entry)
                })
            })?;
        }
        if parts > 7 {
            state.documents = decode_map(d, ctx, MAX_CELLS, decode_summary)?;
        }
        if state.outline() != (parts, base) {
            return Err(error("not the canonical encoding of this row"));
        }
        Ok(state)
    }
}

fn decode_cells<C>(d: &mut Decoder<'_>, ctx: &mut C, base: Stamp) -> DecodeResult<Vec<Cell>> {
    let length = d
        .map()?
        .filter(|length| *length <= MAX_CELLS as u64)
        .ok_or_else(|| error("too many cells"))?;
    let mut cells: Vec<Cell> = Vec::with_capacity(length as usize);
    for _ in 0..length {
        let column = ColumnId(d.u16()?);
        if cells.last().is_some_and(|before| before.column >= column) {
            return Err(error("cells are sorted and unique"));
        }
        cells.push(Cell { column, value: Value::decode(d, ctx)?, stamp: base });
    }
    Ok(cells)
}

fn decode_life<C>(d: &mut Decoder<'_>, ctx: &mut C) -> DecodeResult<Option<Life>> {
    if d.datatype()? == Type::Null {
        d.null()?;
        return Ok(None);
    }
    expect_array(d, 3)?;
    let stamp = Stamp { hlc: Hlc::decode(d, ctx)?, device: DeviceId::decode(d, ctx)? };
    Ok(Some(Life { stamp, deleted: d.bool()? }))
}

fn decode_total<C>(d: &mut Decoder<'_>, _: &mut C) -> DecodeResult<CounterTotal> {
    expect_array(d, 2)?;
    Ok(CounterTotal { added: d.u64()?, taken: d.u64()? })
}

fn decode_entry<C>(d: &mut Decoder<'_>, _: &mut C) -> DecodeResult<SetEntry> {
    expect_array(d, 2)?;
    Ok(SetEntry { hlc: Hlc(d.u64()?), alive: d.bool()? })
}

fn decode_summary<C>(d: &mut Decoder<'_>, _: &mut C) -> DecodeResult<DocumentSummary> {
    expect_array(d, 2)?;
    let changes = d.u32()?;
    let sum = <[u8; 16]>::try_from(d.bytes()?).map_err(|_| error("a document sum has 16 bytes"))?;
    Ok(DocumentSummary { changes, sum: u128::from_le_bytes(sum) })
}

fn expect_array(d: &mut Decoder<'_>, length: u64) -> DecodeResult<()> {
    if d.array()? == Some(length) { Ok(()) } else { Err(error("an array of another length")) }
}

fn decode_map<'b, C, K: Decode<'b, C> + Ord, V>(
    d: &mut Decoder<'b>,
    ctx: &mut C,
    most: usize,
    value: impl Fn(&mut Decoder<'b>, &mut C) -> DecodeResult<V>,
) -> DecodeResult<BTreeMap<K, V>> {
    let length = d
        .map()?
        .filter(|length| *length <= most as u64)
        .ok_or_else(|| error("too many entries"))?;
    let mut map = BTreeMap::new();
    for _ in 0..length {
        let key = K::decode(d, ctx)?;
        if map.last_key_value().is_some_and(|(before, _)| *before >= key) {
            return Err(error("keys are sorted and unique"));
        }
        map.insert(key, value(d, ctx)?);
    }
    Ok(map)
}

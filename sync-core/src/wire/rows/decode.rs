//! Reading the rows of a page. The bytes may be anything.

use minicbor::Decoder;

use super::split::{ARRAYS, ONLY_CELLS, add_rest, put_together};
use super::{FOLLOWS, Kind, MAX_SHARED_BYTES, Recent, Said, Shape, Stamps};
use crate::hlc::{Hlc, Stamp};
use crate::ids::{CollectionId, ColumnId, DeviceId, RowId};
use crate::wire::limits::{MAX_CELLS, MAX_FRAME_BYTES};
use crate::wire::{RowEntry, RowPayload};

type Error = minicbor::decode::Error;

/// A number of 64 bits takes at most as many bytes.
const MAX_NUMBER_BYTES: u32 = 10;
/// The reference to what was named last.
const NEWEST: u64 = 1;

/// Reads a byte string of rows. Their states take no more than a frame may, however short they were written.
pub(in crate::wire) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<RowEntry>, Error> {
    let mut reader = Reader { bytes: d.bytes()?, said: Said::nothing() };
    let (mut rows, mut state_bytes) = (Vec::new(), 0);
    while !reader.bytes.is_empty() {
        let entry = reader.row()?;
        if let RowPayload::State(state) = &entry.payload {
            state_bytes += state.len();
        }
        if state_bytes > MAX_FRAME_BYTES {
            return Err(Error::message("the rows are longer than a frame may be"));
        }
        rows.push(entry);
    }
    Ok(rows)
}

struct Reader<'b> {
    bytes: &'b [u8],
    said: Said,
}

impl<'b> Reader<'b> {
    fn row(&mut self) -> Result<RowEntry, Error> {
        let mut shape = self.number()?;
        if shape == FOLLOWS {
            let new = self.shape()?;
            self.said.shapes.push(new);
            shape = NEWEST;
        }
        let row = self.identity()?;
        let said = self.said.shapes.get(shape).ok_or_else(points_nowhere)?;
        let (scope, collection) = (said.scope, said.collection);
        let payload = match said.kind {
            Kind::State => RowPayload::State(self.state(shape)?.into()),
            Kind::Deleted => RowPayload::Deleted(self.base()?),
            Kind::Departed => RowPayload::Departed,
            Kind::Bytes => RowPayload::State(self.with_length()?.to_vec().into()),
        };
        Ok(RowEntry { scope, collection, row, payload })
    }

    fn shape(&mut self) -> Result<Shape, Error> {
        let scope = self.small()?;
        let collection = CollectionId(self.small()?);
        let kind = usize::try_from(self.number()?).ok();
        let kind = kind.and_then(|kind| Kind::ALL.get(kind)).copied();
        let kind = kind.ok_or_else(|| Error::message("not a kind of row"))?;
        let mut columns = Vec::new();
        let runs = if kind == Kind::State { self.number()? } else { 0 };
        for _ in 0..runs {
            let first = self.small()?;
            let last = first.checked_add(self.small()?);
            let last = last.ok_or_else(|| Error::message("a column beyond the last one"))?;
            columns.extend((first..=last).take(MAX_CELLS + 1).map(ColumnId));
            if columns.len() > MAX_CELLS {
                return Err(Error::message("too many cells"));
            }
        }
        Ok(Shape { scope, collection, kind, columns })
    }

    fn identity(&mut self) -> Result<RowId, Error> {
        let shared = usize::from(self.take(1)?[0]);
        if shared > MAX_SHARED_BYTES {
            return Err(Error::message("rows share less of their identities"));
        }
        let own = self.take(self.said.row.len() - shared)?;
        self.said.row[shared..].copy_from_slice(own);
        Ok(RowId::from_bytes(self.said.row))
    }

    fn base(&mut self) -> Result<Stamp, Error> {
        stamp(&mut self.bytes, &mut self.said.stamps, &mut self.said.devices)
    }

    fn state(&mut self, shape: u64) -> Result<Vec<u8>, Error> {
        let base = self.base()?;
        let other = self.number()?;
        let (count, has_rest) = (other >> 1, other & 1 == 1);
        if count > MAX_CELLS as u64 {
            return Err(Error::message("too many stamps"));
        }
        let mut exceptions = Vec::new();
        for _ in 0..count {
            let column = ColumnId(self.small()?);
            let devices = &mut self.said.devices;
            exceptions.push((column, stamp(&mut self.bytes, &mut self.said.cell_stamps, devices)?));
        }
        let columns = self.said.shapes.get(shape).map(|shape| shape.columns.as_slice());
        let columns = columns.ok_or_else(points_nowhere)?;
        let (mut row, rest) = put_together(base, columns, &exceptions, self.bytes)
            .ok_or_else(|| Error::message("not a value for each column"))?;
        self.bytes = rest;
        if has_rest {
            let head = self.take(1)?[0];
            if !ARRAYS.contains(&head) || head <= ONLY_CELLS {
                return Err(Error::message("a row that has more than cells says so"));
            }
            add_rest(&mut row, head, self.with_length()?);
        }
        Ok(row)
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], Error> {
        take(&mut self.bytes, count as u64)
    }

    fn number(&mut self) -> Result<u64, Error> {
        number(&mut self.bytes)
    }

    /// A number of 16 bits.
    fn small(&mut self) -> Result<u16, Error> {
        u16::try_from(self.number()?).map_err(|_| Error::message("a number beyond 16 bits"))
    }

    fn with_length(&mut self) -> Result<&'b [u8], Error> {
        let length = self.number()?;
        take(&mut self.bytes, length)
    }
}

fn stamp(
    bytes: &mut &[u8],
    stamps: &mut Stamps,
    devices: &mut Recent<DeviceId>,
) -> Result<Stamp, Error> {
    let reference = number(bytes)?;
    if reference != FOLLOWS {
        return stamps.recent.get(reference).copied().ok_or_else(points_nowhere);
    }
    let change = number(bytes)?;
    let change = (change >> 1).cast_signed() ^ -(change & 1).cast_signed();
    let wall_ms = stamps.wall_ms.wrapping_add(change.cast_unsigned());
    let counter = number(bytes)?;
    let first = Hlc::from_wall_ms(wall_ms);
    if first.wall_ms() != wall_ms || counter > u64::from(u16::MAX) {
        return Err(Error::message("a stamp beyond 64 bits"));
    }
    let device = match number(bytes)? {
        FOLLOWS => {
            let id = <[u8; 16]>::try_from(take(bytes, 16)?).map_err(|_| ends_early())?;
            devices.push(DeviceId::from_bytes(id));
            DeviceId::from_bytes(id)
        }
        reference => *devices.get(reference).ok_or_else(points_nowhere)?,
    };
    let stamp = Stamp { hlc: Hlc(first.0 | counter), device };
    stamps.wall_ms = wall_ms;
    stamps.recent.push(stamp);
    Ok(stamp)
}

fn take<'b>(bytes: &mut &'b [u8], count: u64) -> Result<&'b [u8], Error> {
    let split = usize::try_from(count).ok().and_then(|count| bytes.split_at_checked(count));
    let (taken, rest) = split.ok_or_else(ends_early)?;
    *bytes = rest;
    Ok(taken)
}

fn number(bytes: &mut &[u8]) -> Result<u64, Error> {
    let mut number = 0;
    for place in 0..MAX_NUMBER_BYTES {
        let byte = take(bytes, 1)?[0];
        let bits = u64::from(byte & 0x7f);
        number |= bits << (7 * place);
        if number >> (7 * place) != bits {
            break;
        }
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Error::message("a number beyond 64 bits"))
}

fn ends_early() -> Error {
    Error::message("the rows end too early")
}

fn points_nowhere() -> Error {
    Error::message("a reference to what was not said")
}

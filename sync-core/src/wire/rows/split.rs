//! A canonical row taken apart without reading its values, and put together again to the same bytes.

use crate::hlc::{Hlc, Stamp};
use crate::ids::{ColumnId, DeviceId};
use crate::wire::limits::MAX_CELLS;

/// The heads of CBOR arrays that take one byte.
pub(super) const ARRAYS: std::ops::RangeInclusive<u8> = 0x80..=0x97;
/// The head of a row that is all cells of one write, and of one that is all cells.
pub(super) const ONLY_BASE: u8 = 0x83;
pub(super) const ONLY_CELLS: u8 = 0x84;

/// The parts of a row but for its base. They are used again for the next row, so that taking apart allocates little.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// The head of the row's array.
    pub head: u8,
    pub columns: Vec<ColumnId>,
    /// The values one behind the other, as they are in the row.
    pub values: Vec<u8>,
    pub exceptions: Vec<(ColumnId, Stamp)>,
    /// What is behind the cells and their stamps.
    pub rest: Vec<u8>,
}

impl Parts {
    /// Takes a row apart and returns its base; `None` where [`put_together`] and [`add_rest`] would not make these bytes of the parts.
    pub(super) fn read(&mut self, row: &[u8]) -> Option<Stamp> {
        self.columns.clear();
        self.values.clear();
        self.exceptions.clear();
        self.rest.clear();
        let mut reader = Reader { bytes: row };
        self.head = reader.byte().filter(|head| ARRAYS.contains(head) && *head >= ONLY_BASE)?;
        let base = reader.stamp()?;
        let cells = reader.head(MAP).filter(|cells| *cells <= MAX_CELLS as u64)?;
        for _ in 0..cells {
            self.columns.push(reader.column()?);
            let value = reader.value()?;
            self.values.extend_from_slice(value);
        }
        if self.head != ONLY_BASE {
            let exceptions = reader.head(MAP).filter(|count| *count <= MAX_CELLS as u64)?;
            for _ in 0..exceptions {
                let column = reader.column()?;
                reader.head(ARRAY).filter(|parts| *parts == 2)?;
                self.exceptions.push((column, reader.stamp()?));
            }
        }
        let has_rest = self.head > ONLY_CELLS;
        let sound = if has_rest {
            self.rest.extend_from_slice(reader.bytes);
            true
        } else {
            // No exceptions under the head that announces some would read as the head that announces none.
            reader.bytes.is_empty() && (self.head == ONLY_BASE) == self.exceptions.is_empty()
        };
        sound.then_some(base)
    }
}

/// Writes a row that is all cells, whose values lead `bytes` one behind the other; returns it and what follows them.
///
/// `None` where those are not as many well-formed scalar values as columns.
pub(super) fn put_together<'b>(
    base: Stamp,
    columns: &[ColumnId],
    exceptions: &[(ColumnId, Stamp)],
    mut bytes: &'b [u8],
) -> Option<(Vec<u8>, &'b [u8])> {
    /// The most that the head, the base and the heads of two maps take.
    const FIXED_BYTES: usize = 40;
    const EXCEPTION_BYTES: usize = 32;
    /// What most columns take with their values.
    const CELL_BYTES: usize = 6;
    let room = FIXED_BYTES + CELL_BYTES * columns.len() + EXCEPTION_BYTES * exceptions.len();
    let mut row = Vec::with_capacity(room);
    row.push(if exceptions.is_empty() { ONLY_BASE } else { ONLY_CELLS });
    write_stamp(&mut row, base);
    write_head(&mut row, MAP, columns.len() as u64);
    for column in columns {
        write_head(&mut row, UNSIGNED, column.0.into());
        let (value, rest) = bytes.split_at(value_length(bytes)?);
        row.extend_from_slice(value);
        bytes = rest;
    }
    if !exceptions.is_empty() {
        write_exceptions(&mut row, exceptions);
    }
    Some((row, bytes))
}

/// Adds what is behind the cells and their stamps to a row that is all cells.
pub(super) fn add_rest(row: &mut Vec<u8>, head: u8, rest: &[u8]) {
    if row[0] == ONLY_BASE {
        write_exceptions(row, &[]);
    }
    row[0] = head;
    row.extend_from_slice(rest);
}

fn write_exceptions(row: &mut Vec<u8>, exceptions: &[(ColumnId, Stamp)]) {
    write_head(row, MAP, exceptions.len() as u64);
    for (column, stamp) in exceptions {
        write_head(row, UNSIGNED, column.0.into());
        write_head(row, ARRAY, 2);
        write_stamp(row, *stamp);
    }
}

/// How many bytes one scalar value takes, whatever its encoding.
fn value_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    for _ in 0..=MAX_TAGS {
        let first = *bytes.get(at)?;
        at += 1;
        let number = match first & 0x1f {
            info @ 0..=23 => u64::from(info),
            info @ 24..=27 => {
                let long = bytes.get(at..at + (1 << (info - 24)))?;
                at += long.len();
                long.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
            }
            _ => return None,
        };
        match first >> 5 {
            TAG => continue,
            ARRAY | MAP => return None,
            BYTES | TEXT => at = at.checked_add(usize::try_from(number).ok()?)?,
            _ => {}
        }
        return (at <= bytes.len()).then_some(at);
    }
    None
}

// The major types of CBOR.
const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
/// More tags before one value are not taken apart: a canonical one has at most one.
const MAX_TAGS: usize = 4;

fn write_head(row: &mut Vec<u8>, major: u8, number: u64) {
    let major = major << 5;
    let bytes = number.to_be_bytes();
    match number {
        0..=23 => row.push(major | bytes[7]),
        24..=0xff => row.extend_from_slice(&[major | 24, bytes[7]]),
        0x100..=0xffff => row.extend_from_slice(&[major | 25, bytes[6], bytes[7]]),
        0x1_0000..=0xffff_ffff => {
            row.push(major | 26);
            row.extend_from_slice(&bytes[4..]);
        }
        _ => {
            row.push(major | 27);
            row.extend_from_slice(&bytes);
        }
    }
}

fn write_stamp(row: &mut Vec<u8>, stamp: Stamp) {
    write_head(row, UNSIGNED, stamp.hlc.0);
    write_head(row, BYTES, stamp.device.as_bytes().len() as u64);
    row.extend_from_slice(stamp.device.as_bytes());
}

/// Reads CBOR whose numbers and lengths are as short as they can be.
struct Reader<'b> {
    bytes: &'b [u8],
}

impl<'b> Reader<'b> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    fn take(&mut self, count: u64) -> Option<&'b [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(usize::try_from(count).ok()?)?;
        self.bytes = rest;
        Some(taken)
    }

    /// The number behind a first byte, as long as that says, and whether a shorter one would have done.
    fn number(&mut self, first: u8) -> Option<(u64, bool)> {
        let info = first & 0x1f;
        let bytes: u32 = match info {
            0..=23 => return Some((info.into(), true)),
            24..=27 => 1 << (info - 24),
            _ => return None,
        };
        let number =
            self.take(bytes.into())?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let least = if bytes == 1 { 24 } else { 1 << (bytes * 4) };
        Some((number, number >= least))
    }

    /// The number of a head of this type, written as short as it can be.
    fn head(&mut self, major: u8) -> Option<u64> {
        let first = self.byte().filter(|first| first >> 5 == major)?;
        self.number(first).filter(|(_, shortest)| *shortest).map(|(number, _)| number)
    }

    fn column(&mut self) -> Option<ColumnId> {
        self.head(UNSIGNED).and_then(|column| u16::try_from(column).ok()).map(ColumnId)
    }

    fn stamp(&mut self) -> Option<Stamp> {
        let hlc = Hlc(self.head(UNSIGNED)?);
        let length = self.head(BYTES)?;
        let device = <[u8; 16]>::try_from(self.take(length)?).ok()?;
        Some(Stamp { hlc, device: DeviceId::from_bytes(device) })
    }

    fn value(&mut self) -> Option<&'b [u8]> {
        let (value, rest) = self.bytes.split_at(value_length(self.bytes)?);
        self.bytes = rest;
        Some(value)
    }
}

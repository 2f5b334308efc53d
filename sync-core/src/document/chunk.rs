//! Walks a change chunk and bounds everything that it could expand to.
//!
//! Columns are run-length encoded: sixty bytes can declare 2⁶² operations, or one key of a megabyte a million times.
//! The engine expands runs without asking, so nothing reaches it that did not pass here.
//! This is no second decoder: what a chunk means, and whether its operations are sound, is for the engine to say.
//! Format: <https://automerge.org/automerge-binary-format-spec/>.

use std::io::Read;

use flate2::bufread::DeflateDecoder;

use super::{
    DocumentError, MAX_CHANGE_ACTORS, MAX_CHANGE_BYTES, MAX_CHANGE_DEPS, MAX_CHANGE_INFLATED_BYTES,
    MAX_CHANGE_OPERATIONS, MAX_DOCUMENT_OPERATIONS,
};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHECKSUM_BYTES: u64 = 4;
const HASH_BYTES: u64 = 32;
/// Known columns are 13; unknown ones are skipped by the engine.
const MAX_CHANGE_COLUMNS: usize = 32;

const DOCUMENT_CHUNK: u8 = 0;
const CHANGE_CHUNK: u8 = 1;
const COMPRESSED_CHUNK: u8 = 2;

// The columns of which a run expands: number of the column times 16, plus its type.
const KEY_COLUMN: u64 = 0x15;
const ACTION_COLUMN: u64 = 0x42;
const PREDECESSOR_COLUMN: u64 = 0x70;
const MARK_COLUMN: u64 = 0xa5;

/// Checks that `bytes` are exactly one change chunk that expands to no more than this module's bounds.
pub(super) fn check_bounds(bytes: &[u8]) -> Result<(), DocumentError> {
    if bytes.len() > MAX_CHANGE_BYTES {
        return Err(DocumentError::ChangeTooLarge { bytes: bytes.len() });
    }
    let mut chunk = Reader(bytes);
    if !bytes.starts_with(&MAGIC) {
        return Err(DocumentError::NotAChange("it does not begin like one"));
    }
    chunk.take(MAGIC.len() as u64 + CHECKSUM_BYTES)?;
    let kind = chunk.byte()?;
    let data = chunk.prefixed()?;
    if !chunk.0.is_empty() {
        return Err(DocumentError::NotAChange("bytes follow it"));
    }
    match kind {
        CHANGE_CHUNK => check_body(data),
        COMPRESSED_CHUNK => check_body(&inflate(data)?),
        DOCUMENT_CHUNK => Err(DocumentError::NotAChange("it is a whole document")),
        _ => Err(DocumentError::NotAChange("it is a chunk of another type")),
    }
}

/// The checksum that the chunk claims: the first bytes of its hash.
pub(super) fn claimed_checksum(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(MAGIC.len()..MAGIC.len() + CHECKSUM_BYTES as usize)
}

fn inflate(data: &[u8]) -> Result<Vec<u8>, DocumentError> {
    let mut decoder = DeflateDecoder::new(data);
    let mut body = Vec::new();
    let limit = MAX_CHANGE_INFLATED_BYTES as u64 + 1;
    decoder
        .by_ref()
        .take(limit)
        .read_to_end(&mut body)
        .map_err(|error| DocumentError::Damaged(error.to_string()))?;
    if body.len() > MAX_CHANGE_INFLATED_BYTES {
        return Err(DocumentError::InflatesTooLarge);
    }
    if decoder.total_in() != data.len() as u64 {
        return Err(DocumentError::NotAChange("bytes follow its compressed data"));
    }
    Ok(body)
}

fn check_body(body: &[u8]) -> Result<(), DocumentError> {
    let mut body = Reader(body);
    let dependencies = body.count("dependencies", MAX_CHANGE_DEPS)?;
    body.take(dependencies * HASH_BYTES)?;
    let _actor = body.prefixed()?;
    let _sequence = body.unsigned()?;
    let first_operation = body.unsigned()?;
    let _time = body.signed()?;
    let _message = body.prefixed()?;
    for _ in 0..body.count("actors", MAX_CHANGE_ACTORS)? {
        body.prefixed()?;
    }
    let columns = (0..body.count("columns", MAX_CHANGE_COLUMNS)?)
        .map(|_| Ok((body.unsigned()?, body.unsigned()?)))
        .collect::<Result<Vec<_>, DocumentError>>()?;
    for (column, length) in columns {
        check_column(column, Reader(body.take(length)?), first_operation)?;
    }
    Ok(())
}

fn check_column(column: u64, data: Reader<'_>, first_operation: u64) -> Result<(), DocumentError> {
    match column {
        ACTION_COLUMN => {
            let operations = expand(data, Reader::unsigned)?.entries;
            at_most("operations", operations, MAX_CHANGE_OPERATIONS)?;
            // Operations are numbered on from all that their author had seen, so a number beyond this bound is a lie
            // by which every later edit of the document would run out of numbers.
            at_most(
                "operations before it",
                first_operation.saturating_add(operations),
                MAX_DOCUMENT_OPERATIONS,
            )
        }
        PREDECESSOR_COLUMN => {
            at_most("predecessors", expand(data, Reader::unsigned)?.sum, MAX_CHANGE_OPERATIONS)
        }
        KEY_COLUMN | MARK_COLUMN => {
            let length = |data: &mut Reader<'_>| data.prefixed().map(|key| key.len() as u64);
            at_most("bytes of keys", expand(data, length)?.sum, MAX_CHANGE_INFLATED_BYTES)
        }
        _ => Ok(()),
    }
}

fn at_most(what: &'static str, count: u64, limit: usize) -> Result<(), DocumentError> {
    if count > limit as u64 { Err(DocumentError::TooMany { what, count, limit }) } else { Ok(()) }
}

/// What a run-length encoded column expands to.
#[derive(Default)]
struct Expanded {
    entries: u64,
    sum: u64,
}

/// Adds up a column. A positive count repeats the value behind it, a negative one announces as many single values, zero announces nulls.
fn expand<'a>(
    mut data: Reader<'a>,
    value: impl Fn(&mut Reader<'a>) -> Result<u64, DocumentError>,
) -> Result<Expanded, DocumentError> {
    let mut total = Expanded::default();
    let mut add = |entries: u64, value: u64| {
        total.entries = total.entries.saturating_add(entries);
        total.sum = total.sum.saturating_add(entries.saturating_mul(value));
    };
    while !data.0.is_empty() {
        match data.signed()? {
            0 => add(data.unsigned()?, 0),
            count @ 1.. => add(count.unsigned_abs(), value(&mut data)?),
            count => {
                for _ in 0..count.unsigned_abs() {
                    add(1, value(&mut data)?);
                }
            }
        }
    }
    Ok(total)
}

/// Reads from the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], DocumentError> {
        let taken = usize::try_from(count).ok().and_then(|count| self.0.split_at_checked(count));
        let (taken, rest) =
            taken.ok_or_else(|| DocumentError::Damaged("it ends too early".to_owned()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, DocumentError> {
        Ok(self.take(1)?[0])
    }

    fn prefixed(&mut self) -> Result<&'a [u8], DocumentError> {
        let length = self.unsigned()?;
        self.take(length)
    }

    fn count(&mut self, what: &'static str, limit: usize) -> Result<u64, DocumentError> {
        let count = self.unsigned()?;
        at_most(what, count, limit)?;
        Ok(count)
    }

    fn unsigned(&mut self) -> Result<u64, DocumentError> {
        let (number, _) = self.leb128()?;
        u64::try_from(number).map_err(|_| too_long())
    }

    fn signed(&mut self) -> Result<i64, DocumentError> {
        let (number, bits) = self.leb128()?;
        let sign_extended = (number << (i128::BITS - bits)) >> (i128::BITS - bits);
        i64::try_from(sign_extended).map_err(|_| too_long())
    }

    /// The bits of a LEB128 number and how many they are.
    fn leb128(&mut self) -> Result<(i128, u32), DocumentError> {
        let mut number = 0_i128;
        for bits in (0..MAX_LEB128_BYTES).map(|byte| byte * 7) {
            let byte = self.byte()?;
            number |= i128::from(byte & 0x7f) << bits;
            if byte & 0x80 == 0 {
                return Ok((number, bits + 7));
            }
        }
        Err(too_long())
    }
}

/// As many as 64 bits need.
const MAX_LEB128_BYTES: u32 = 10;

fn too_long() -> DocumentError {
    DocumentError::Damaged("a number is too long".to_owned())
}

//! Reading and writing the store's own small byte strings: row metadata and pending lists.

use farshore_sync_core::hlc::Hlc;
use farshore_sync_core::value::Value;

use super::error::Failure;

/// Appends an integer in as few bytes as it needs, seven bits each, the lowest first.
pub(super) fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

pub(super) fn put_hlc(bytes: &mut Vec<u8>, hlc: Hlc) {
    bytes.extend_from_slice(&hlc.0.to_be_bytes());
}

pub(super) fn put_value(bytes: &mut Vec<u8>, value: &Value) {
    minicbor::encode(value, bytes).expect("writing to memory cannot fail");
}

/// Reads what the functions above wrote; anything else is [`Failure::Damaged`].
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn byte(&mut self) -> Result<u8, Failure> {
        let (first, rest) = self.rest.split_first().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let (first, rest) = self.rest.split_first_chunk().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn varint(&mut self) -> Result<u64, Failure> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Failure::damaged("an integer without an end"))
    }

    pub(super) fn value(&mut self) -> Result<Value, Failure> {
        let mut decoder = minicbor::Decoder::new(self.rest);
        let value = decoder.decode().map_err(|error| Failure::damaged(error.to_string()))?;
        self.rest = &self.rest[decoder.position()..];
        Ok(value)
    }

    pub(super) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn end(self) -> Result<(), Failure> {
        if self.rest.is_empty() { Ok(()) } else { Err(Failure::damaged("bytes after the end")) }
    }
}

fn cut_short() -> Failure {
    Failure::damaged("bytes are cut short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_survive_in_as_few_bytes_as_they_need() {
        for (value, length) in
            [(0, 1), (127, 1), (128, 2), (16_383, 2), (1 << 35, 6), (u64::MAX, 10)]
        {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(bytes.len(), length);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint().unwrap(), value);
            reader.end().unwrap();
        }
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        assert!(Reader::new(&[0x80]).varint().is_err());
        assert!(Reader::new(&[0xff; 11]).varint().is_err());
        assert!(Reader::new(&[1, 2]).array::<3>().is_err());
        assert!(Reader::new(&[0x62, 0x61]).value().is_err());
        assert!(Reader::new(&[0]).end().is_err());
    }
}

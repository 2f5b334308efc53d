//! Scalar values and their one canonical encoding.
//!
//! Values travel and are hashed as CBOR, never as text. Timestamps, uuids and JSON carry a tag, so that a
//! value can be read without its schema: an app that does not know a column still keeps it.

use minicbor::data::{Tag, Type};
use minicbor::{Decode, Decoder, Encode, Encoder};

const TAG_TIMESTAMP: Tag = Tag::new(6);
const TAG_UUID: Tag = Tag::new(7);
const TAG_JSON: Tag = Tag::new(8);
const CANONICAL_NAN: u64 = 0x7ff8_0000_0000_0000;

/// A float that compares, sorts and hashes by its bits; every NaN is the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Real(u64);

impl Real {
    /// The float.
    #[must_use]
    pub const fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl From<f64> for Real {
    fn from(float: f64) -> Self {
        Self(if float.is_nan() { CANONICAL_NAN } else { float.to_bits() })
    }
}

/// One scalar. NULL is a value; absence is not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed 64-bit integer.
    Int(i64),
    /// A 64-bit float.
    Real(Real),
    /// UTF-8 text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    /// The 16 bytes of a uuid.
    Uuid([u8; 16]),
    /// JSON text, kept as written.
    Json(String),
}

impl Value {
    /// The name of its type, as schemas write it.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Real(_) => "real",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "timestamp",
            Self::Uuid(_) => "uuid",
            Self::Json(_) => "json",
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<f64> for Value {
    fn from(float: f64) -> Self {
        Self::Real(float.into())
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<C> Encode<C> for Value {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self {
            Self::Null => e.null()?,
            Self::Bool(truth) => e.bool(*truth)?,
            Self::Int(int) => e.i64(*int)?,
            Self::Real(real) => e.f64(real.get())?,
            Self::Text(text) => e.str(text)?,
            Self::Bytes(bytes) => e.bytes(bytes)?,
            Self::Timestamp(micros) => e.tag(TAG_TIMESTAMP)?.i64(*micros)?,
            Self::Uuid(bytes) => e.tag(TAG_UUID)?.bytes(bytes)?,
            Self::Json(text) => e.tag(TAG_JSON)?.str(text)?,
        };
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Value {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        match d.datatype()? {
            Type::Null => d.null().map(|()| Self::Null),
            Type::Bool => d.bool().map(Self::Bool),
            Type::F64 => d.f64().map(|float| Self::Real(float.into())),
            Type::String => d.str().map(Self::from),
            Type::Bytes => d.bytes().map(|bytes| Self::Bytes(bytes.to_vec())),
            Type::Tag => decode_tagged(d),
            Type::U8
            | Type::U16
            | Type::U32
            | Type::U64
            | Type::I8
            | Type::I16
            | Type::I32
            | Type::I64 => d.i64().map(Self::Int),
            _ => Err(minicbor::decode::Error::message("not a scalar value")),
        }
    }
}

fn decode_tagged(d: &mut Decoder<'_>) -> Result<Value, minicbor::decode::Error> {
    match d.tag()? {
        TAG_TIMESTAMP => d.i64().map(Value::Timestamp),
        TAG_UUID => <[u8; 16]>::try_from(d.bytes()?)
            .map(Value::Uuid)
            .map_err(|_| minicbor::decode::Error::message("a uuid has 16 bytes")),
        TAG_JSON => d.str().map(|text| Value::Json(text.to_owned())),
        _ => Err(minicbor::decode::Error::message("unknown value tag")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_wire_bit_by_bit() {
        for value in [
            Value::Null,
            Value::Bool(true),
            Value::Int(i64::MIN),
            Value::Int(-1),
            Value::from(-0.0),
            Value::from(f64::from_bits(0xfff8_dead_beef_0001)),
            Value::from("grüße"),
            Value::Bytes(vec![0, 255]),
            Value::Timestamp(-7),
            Value::Uuid([9; 16]),
            Value::Json("{\"a\": 1}".into()),
        ] {
            let bytes = minicbor::to_vec(&value).unwrap();
            assert_eq!(minicbor::decode::<Value>(&bytes).unwrap(), value);
        }
        assert_ne!(Value::from(0.0), Value::from(-0.0));
        assert_eq!(Value::from(f64::NAN), Value::from(-f64::NAN));
    }

    #[test]
    fn what_is_not_a_scalar_is_an_error() {
        for bytes in
            [&[0x80][..], &[0xa0], &[0xc6, 0x60], &[0xc9, 0x00], &[0xf9, 0, 0], &[0x7f, 0xff], &[]]
        {
            assert!(minicbor::decode::<Value>(bytes).is_err(), "{bytes:x?}");
        }
    }
}

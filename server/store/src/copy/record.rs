//! The pieces of a tenant, and how they are written.

use std::convert::Infallible;

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};

use super::PLAIN_TABLES;
use crate::sql::{SqlRow, SqlValue};

/// One piece of a tenant. They come in the order of the variants, those of one variant by their key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Where the tenant stands: the first record. What arrived before forgets its plain tables, and the tombstones and
    /// departures up to the horizon.
    Standing(StandingRecord),
    /// A row of one of [`PLAIN_TABLES`].
    Plain(u8, SqlRow),
    /// A row of which something arrived before that is out of date; all of it follows.
    Forget(ForgetRecord),
    /// A row, its tombstone, or what is left of it in a scope that it left; by scope and seq.
    Change(ChangeRecord),
    /// A change of a document; by collection and row, and then in an order in which each follows what it builds on.
    Chunk(ChunkRecord),
    /// The sums of one collection in one scope; by scope and collection.
    Sums(SumsRecord),
}

/// Where a tenant stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingRecord {
    /// The newest seq.
    pub seq: u64,
    /// Up to where tombstones were purged.
    pub horizon: u64,
    /// The epoch.
    pub epoch: u64,
    /// The key of its digests.
    pub digest_key: [u8; 32],
    /// When it was created, in milliseconds since 1970.
    pub created_at_ms: u64,
}

/// A row that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForgetRecord {
    /// Its collection.
    pub collection: u16,
    /// Its identity.
    pub id: [u8; 16],
}

/// A row as readers get it, or what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRecord {
    /// The scope that it is in, or has left.
    pub scope: String,
    /// Its place in the tenant's order.
    pub seq: u64,
    /// 0: a living row; 1: a deleted row; 2: a row that left the scope.
    pub kind: u8,
    /// Its collection.
    pub collection: u16,
    /// Its identity.
    pub id: [u8; 16],
    /// When it was written, in milliseconds since 1970.
    pub written_at_ms: u64,
    /// Whether changes of its documents are stored.
    pub has_chunks: bool,
    /// Its canonical bytes.
    pub state: Vec<u8>,
}

/// A change of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRecord {
    /// The collection of its row.
    pub collection: u16,
    /// Its row.
    pub id: [u8; 16],
    /// Its column.
    pub column: u16,
    /// The seq up to which readers may not have it.
    pub seq: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The sums of one collection in one scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SumsRecord {
    /// The scope.
    pub scope: String,
    /// The collection.
    pub collection: u16,
    /// The 256 sums, little endian.
    pub buckets: Vec<u8>,
}

impl Record {
    /// About how many bytes it takes, encoded.
    #[must_use]
    pub fn weight(&self) -> usize {
        const FIXED: usize = 64;
        FIXED
            + match self {
                Self::Standing(_) | Self::Forget(_) => 0,
                Self::Plain(_, row) => row.0.iter().map(value_weight).sum(),
                Self::Change(change) => change.scope.len() + change.state.len(),
                Self::Chunk(chunk) => chunk.bytes.len(),
                Self::Sums(sums) => sums.scope.len() + sums.buckets.len(),
            }
    }

    /// Its bytes: a CBOR array of its kind and its fields.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.weight());
        let written: Result<(), EncodeError<Infallible>> =
            self.write(&mut Encoder::new(&mut bytes));
        written.expect("writing to memory cannot fail");
        bytes
    }

    fn write<W: Write>(&self, to: &mut Encoder<W>) -> Result<(), EncodeError<W::Error>> {
        match self {
            Self::Standing(at) => {
                to.array(6)?.u8(0)?.u64(at.seq)?.u64(at.horizon)?.u64(at.epoch)?;
                to.bytes(&at.digest_key)?.u64(at.created_at_ms)?;
            }
            Self::Plain(table, row) => {
                to.array(2 + row.0.len() as u64)?.u8(1)?.u8(*table)?;
                for value in &row.0 {
                    match value {
                        SqlValue::Null => to.null()?,
                        SqlValue::Int(number) => to.i64(*number)?,
                        SqlValue::Text(text) => to.str(text)?,
                        SqlValue::Bytes(bytes) => to.bytes(bytes)?,
                    };
                }
            }
            Self::Change(row) => {
                to.array(9)?.u8(2)?.str(&row.scope)?.u64(row.seq)?.u8(row.kind)?;
                to.u16(row.collection)?.bytes(&row.id)?.u64(row.written_at_ms)?;
                to.bool(row.has_chunks)?.bytes(&row.state)?;
            }
            Self::Chunk(chunk) => {
                to.array(7)?.u8(3)?.u16(chunk.collection)?.bytes(&chunk.id)?.u16(chunk.column)?;
                to.u64(chunk.seq)?.bytes(&chunk.hash)?.bytes(&chunk.bytes)?;
            }
            Self::Forget(row) => {
                to.array(3)?.u8(5)?.u16(row.collection)?.bytes(&row.id)?;
            }
            Self::Sums(sums) => {
                to.array(4)?.u8(4)?.str(&sums.scope)?.u16(sums.collection)?.bytes(&sums.buckets)?;
            }
        }
        Ok(())
    }

    /// Reads what [`Record::to_bytes`] wrote.
    ///
    /// # Errors
    /// Where it is anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut from = Decoder::new(bytes);
        let record = Self::read(&mut from).map_err(|error| RecordError(error.to_string()))?;
        if from.position() != bytes.len() {
            return Err(RecordError("bytes are left over".to_owned()));
        }
        Ok(record)
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let fields = from.array()?.ok_or_else(|| DecodeError::message("an array without end"))?;
        let kind = from.u8()?;
        let expected = match kind {
            0 => 6,
            1 => {
                let table = from.u8()?;
                let columns = PLAIN_TABLES.get(usize::from(table)).map(|table| table.columns.len());
                let columns = columns.ok_or_else(|| DecodeError::message("an unknown table"))?;
                if fields != 2 + columns as u64 {
                    return Err(DecodeError::message("another number of columns"));
                }
                let row = (0..columns).map(|_| read_value(from)).collect::<Result<_, _>>()?;
                return Ok(Self::Plain(table, SqlRow(row)));
            }
            2 => 9,
            3 => 7,
            4 => 4,
            5 => 3,
            _ => return Err(DecodeError::message("an unknown kind of record")),
        };
        if fields != expected {
            return Err(DecodeError::message("another number of fields"));
        }
        Ok(match kind {
            0 => Self::Standing(StandingRecord {
                seq: from.u64()?,
                horizon: from.u64()?,
                epoch: from.u64()?,
                digest_key: read_array(from)?,
                created_at_ms: from.u64()?,
            }),
            2 => Self::Change(ChangeRecord {
                scope: from.str()?.to_owned(),
                seq: from.u64()?,
                kind: from.u8()?,
                collection: from.u16()?,
                id: read_array(from)?,
                written_at_ms: from.u64()?,
                has_chunks: from.bool()?,
                state: from.bytes()?.to_vec(),
            }),
            3 => Self::Chunk(ChunkRecord {
                collection: from.u16()?,
                id: read_array(from)?,
                column: from.u16()?,
                seq: from.u64()?,
                hash: read_array(from)?,
                bytes: from.bytes()?.to_vec(),
            }),
            5 => Self::Forget(ForgetRecord { collection: from.u16()?, id: read_array(from)? }),
            _ => Self::Sums(SumsRecord {
                scope: from.str()?.to_owned(),
                collection: from.u16()?,
                buckets: from.bytes()?.to_vec(),
            }),
        })
    }
}

fn value_weight(value: &SqlValue) -> usize {
    match value {
        SqlValue::Null | SqlValue::Int(_) => 9,
        SqlValue::Text(text) => text.len(),
        SqlValue::Bytes(bytes) => bytes.len(),
    }
}

fn read_value(from: &mut Decoder<'_>) -> Result<SqlValue, DecodeError> {
    Ok(match from.datatype()? {
        Type::Null => {
            from.null()?;
            SqlValue::Null
        }
        Type::String => SqlValue::Text(from.str()?.to_owned()),
        Type::Bytes => SqlValue::Bytes(from.bytes()?.to_vec()),
        _ => SqlValue::Int(from.i64()?),
    })
}

fn read_array<const N: usize>(from: &mut Decoder<'_>) -> Result<[u8; N], DecodeError> {
    from.bytes()?.try_into().map_err(|_| DecodeError::message("bytes of another length"))
}

/// Bytes that are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no record of a tenant: {0}")]
pub struct RecordError(String);

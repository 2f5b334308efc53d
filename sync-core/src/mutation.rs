//! What a transaction does to rows: the unit that a device numbers, sends and has acknowledged.

use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::hlc::{Hlc, Stamp};
use crate::ids::{CollectionId, ColumnId, RowId};
use crate::row::RowState;
use crate::value::Value;
use crate::wire::limits::{MAX_CELLS, MAX_MUTATIONS_PER_TRANSACTION, MAX_TRANSACTION_BYTES};

mod codec;
#[cfg(test)]
mod tests;

pub use codec::MutationWriter;

/// Longest head of an encoded transaction: its number, its stamp and the count of its mutations.
pub const MAX_TRANSACTION_HEAD_BYTES: usize = 32;

/// Values by column, sorted and without doubles.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cells(Vec<(ColumnId, Value)>);

impl Cells {
    /// Sorts the cells; of two for one column the later one stays.
    #[must_use]
    pub fn new(mut cells: Vec<(ColumnId, Value)>) -> Self {
        cells.sort_by_key(|(column, _)| *column);
        cells.reverse();
        cells.dedup_by_key(|(column, _)| *column);
        cells.reverse();
        Self(cells)
    }

    /// The cells in the order of their columns.
    #[must_use]
    pub fn as_slice(&self) -> &[(ColumnId, Value)] {
        &self.0
    }

    /// The cells themselves.
    #[must_use]
    pub fn into_vec(self) -> Vec<(ColumnId, Value)> {
        self.0
    }

    /// The value for a column.
    #[must_use]
    pub fn get(&self, column: ColumnId) -> Option<&Value> {
        self.0.binary_search_by_key(&column, |(id, _)| *id).ok().map(|at| &self.0[at].1)
    }
}

impl<C> Encode<C> for Cells {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.map(self.0.len() as u64)?;
        for (column, value) in &self.0 {
            e.u16(column.0)?;
            value.encode(e, ctx)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Cells {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let length =
            d.map()?.ok_or_else(|| minicbor::decode::Error::message("indefinite cells"))?;
        if length > MAX_CELLS as u64 {
            return Err(minicbor::decode::Error::message("too many cells"));
        }
        let mut cells: Vec<(ColumnId, Value)> = Vec::with_capacity(length as usize);
        for _ in 0..length {
            let column = ColumnId(d.u16()?);
            if cells.last().is_some_and(|(before, _)| *before >= column) {
                return Err(minicbor::decode::Error::message("cells are sorted and unique"));
            }
            cells.push((column, Value::decode(d, ctx)?));
        }
        Ok(Self(cells))
    }
}

/// One change to one row.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Op {
    /// Creates the row, or writes its cells where it exists.
    #[n(0)]
    Insert {
        /// The cells; a column left out has its default.
        #[n(0)]
        cells: Cells,
    },
    /// Writes cells of a row that exists.
    #[n(1)]
    Update {
        /// The cells.
        #[n(0)]
        cells: Cells,
    },
    /// Deletes the row, over all concurrent edits.
    #[n(2)]
    Delete,
    /// Brings a deleted row back.
    #[n(3)]
    Restore,
    /// Adds to a counter.
    #[n(4)]
    Increment {
        /// The counter.
        #[n(0)]
        column: ColumnId,
        /// What to add; negative takes away.
        #[n(1)]
        delta: i64,
    },
    /// Adds an element to a set.
    #[n(5)]
    SetAdd {
        /// The set.
        #[n(0)]
        column: ColumnId,
        /// The element.
        #[n(1)]
        element: Value,
    },
    /// Takes an element out of a set, as far as this device has seen it added.
    #[n(6)]
    SetRemove {
        /// The set.
        #[n(0)]
        column: ColumnId,
        /// The element.
        #[n(1)]
        element: Value,
        /// The adds that the device has seen.
        #[n(2)]
        observed: Vec<Stamp>,
    },
    /// Adds one change to a document.
    #[n(7)]
    Document {
        /// The document.
        #[n(0)]
        column: ColumnId,
        /// The bytes of the change chunk.
        #[cbor(n(1), with = "minicbor::bytes")]
        change: Vec<u8>,
    },
    /// Offers a whole row again to a server that lost it with a restored backup.
    #[n(8)]
    Offer {
        /// The row as the device has it.
        #[n(0)]
        state: Box<RowState>,
    },
}

/// One change to one named row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// In which collection.
    pub collection: CollectionId,
    /// Which row.
    pub row: RowId,
    /// What to do with it.
    pub op: Op,
}

/// Mutations that apply together or not at all, under one stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its number on this device: from 1, rising.
    pub number: u64,
    /// When it was made, by the device's clock.
    pub stamp: Hlc,
    /// Its mutations, in order.
    pub mutations: Vec<Mutation>,
}

/// Why a transaction could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// More bytes than one transaction may have.
    #[error("the transaction has {bytes} bytes; the limit is {MAX_TRANSACTION_BYTES}")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// More mutations than one transaction may have.
    #[error(
        "the transaction has {mutations} mutations; the limit is {MAX_MUTATIONS_PER_TRANSACTION}"
    )]
    TooMany {
        /// How many.
        mutations: usize,
    },
    /// Not the encoding of a transaction.
    #[error("not a transaction: {0}")]
    Malformed(#[from] minicbor::decode::Error),
}

impl Transaction {
    /// The canonical bytes: what travels, what the outbox keeps, and what is hashed against clones.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (mut mutations, mut writer) = (Vec::new(), MutationWriter::default());
        for mutation in &self.mutations {
            writer.write(&mut mutations, mutation);
        }
        Self::encode_written(self.number, self.stamp, self.mutations.len(), &mutations)
    }

    /// The canonical bytes of a transaction whose `count` mutations one [`MutationWriter`] has written.
    #[must_use]
    pub fn encode_written(number: u64, stamp: Hlc, count: usize, mutations: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_TRANSACTION_HEAD_BYTES + mutations.len());
        codec::write_head(&mut bytes, number, stamp, count);
        bytes.extend_from_slice(mutations);
        bytes
    }

    /// Reads a transaction.
    ///
    /// # Errors
    /// See [`TransactionError`]; hostile bytes never panic, and memory is bounded by their length.
    pub fn decode(bytes: &[u8]) -> Result<Self, TransactionError> {
        if bytes.len() > MAX_TRANSACTION_BYTES {
            return Err(TransactionError::TooLong { bytes: bytes.len() });
        }
        let mut decoder = Decoder::new(bytes);
        let transaction = codec::read(&mut decoder)?
            .map_err(|many| TransactionError::TooMany { mutations: many.mutations })?;
        if decoder.position() != bytes.len() {
            return Err(minicbor::decode::Error::message("bytes after the transaction").into());
        }
        Ok(transaction)
    }

    /// The number of an encoded transaction, without reading the rest; `None` where it cannot be read.
    #[must_use]
    pub fn peek_number(bytes: &[u8]) -> Option<u64> {
        let mut decoder = Decoder::new(bytes);
        decoder.array().ok()?;
        decoder.u64().ok()
    }
}

//! The bytes of a transaction: `[number, stamp, [mutation...]]`, where a mutation says only what is new.
//!
//! A mutation is `[collection, row, op]`. Of the row's identity the last bytes are written, behind those that it
//! shares with the mutation before; of the first mutation, with zeros. The cells of an insert or update are a map by
//! column, or an array of values where the columns are those of the last cells before. So a transaction is read from
//! its beginning, and it can be written as its mutations come: [`MutationWriter`].

use std::convert::Infallible;

use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::{Cells, Mutation, Op, Transaction};
use crate::hlc::Hlc;
use crate::ids::{CollectionId, ColumnId, RowId};
use crate::value::Value;
use crate::wire::limits::{MAX_CELLS, MAX_MUTATIONS_PER_TRANSACTION};

type DecodeError = minicbor::decode::Error;
type EncodeError<W> = minicbor::encode::Error<<W as minicbor::encode::Write>::Error>;

/// The numbers of [`Op::Insert`] and [`Op::Update`] in their encoding.
const INSERT: u32 = 0;
const UPDATE: u32 = 1;

/// The shortest mutation: three heads, and one of an operation without content.
const LEAST_MUTATION_BYTES: usize = 6;

/// Writes mutations one after the other, each upon what those before have said.
#[derive(Debug, Clone, Default)]
pub struct MutationWriter {
    row: [u8; 16],
    columns: Vec<ColumnId>,
}

impl MutationWriter {
    /// Appends a mutation.
    pub fn write(&mut self, bytes: &mut Vec<u8>, mutation: &Mutation) {
        in_memory(self.mutation(&mut Encoder::new(bytes), mutation));
    }

    /// Appends the insert of a row with sorted cells, as [`MutationWriter::write`] does, without a copy of them.
    pub fn write_insert(
        &mut self,
        bytes: &mut Vec<u8>,
        collection: CollectionId,
        row: RowId,
        cells: &[(ColumnId, &Value)],
    ) {
        let e = &mut Encoder::new(bytes);
        let written = self.place(e, collection, row);
        in_memory(written.and_then(|()| self.cells(e, INSERT, cells.iter().copied())));
    }

    /// Forgets what was written since a copy was made of this one, without giving up its room.
    pub fn reset_to(&mut self, before: &Self) {
        self.row = before.row;
        self.columns.clone_from(&before.columns);
    }

    fn mutation<W: minicbor::encode::Write>(
        &mut self,
        e: &mut Encoder<W>,
        mutation: &Mutation,
    ) -> Result<(), EncodeError<W>> {
        self.place(e, mutation.collection, mutation.row)?;
        let number = match &mutation.op {
            Op::Insert { .. } => INSERT,
            Op::Update { .. } => UPDATE,
            _ => 0,
        };
        match &mutation.op {
            Op::Insert { cells } | Op::Update { cells } => {
                let cells = cells.as_slice().iter().map(|(column, value)| (*column, value));
                self.cells(e, number, cells)
            }
            op => op.encode(e, &mut ()),
        }
    }

    fn place<W: minicbor::encode::Write>(
        &mut self,
        e: &mut Encoder<W>,
        collection: CollectionId,
        row: RowId,
    ) -> Result<(), EncodeError<W>> {
        let row = row.as_bytes();
        let shared = row.iter().zip(&self.row).take_while(|(a, b)| a == b).count();
        e.array(3)?.u16(collection.0)?.bytes(&row[shared..])?;
        self.row = *row;
        Ok(())
    }

    fn cells<'v, W: minicbor::encode::Write>(
        &mut self,
        e: &mut Encoder<W>,
        op: u32,
        cells: impl ExactSizeIterator<Item = (ColumnId, &'v Value)> + Clone,
    ) -> Result<(), EncodeError<W>> {
        e.array(2)?.u32(op)?.array(1)?;
        let columns = cells.clone().map(|(column, _)| column);
        if columns.eq(self.columns.iter().copied()) {
            e.array(cells.len() as u64)?;
            for (_, value) in cells {
                e.encode(value)?;
            }
        } else {
            self.columns.clear();
            e.map(cells.len() as u64)?;
            for (column, value) in cells {
                self.columns.push(column);
                e.u16(column.0)?.encode(value)?;
            }
        }
        Ok(())
    }
}

fn in_memory(written: Result<(), minicbor::encode::Error<Infallible>>) {
    written.expect("writing to memory cannot fail");
}

/// Writes all of a transaction but its mutations, which are `count`.
pub(super) fn write_head(bytes: &mut Vec<u8>, number: u64, stamp: Hlc, count: usize) {
    let mut e = Encoder::new(bytes);
    let head = e
        .array(3)
        .and_then(|e| e.u64(number))
        .and_then(|e| e.u64(stamp.0))
        .and_then(|e| e.array(count as u64));
    in_memory(head.map(drop));
}

/// Reads a transaction; whether it has too many mutations is known before any is read.
pub(super) fn read(d: &mut Decoder<'_>) -> Result<Result<Transaction, TooMany>, DecodeError> {
    array(d, 3)?;
    let (number, stamp) = (d.u64()?, Hlc(d.u64()?));
    let count = d.array()?.ok_or_else(|| DecodeError::message("indefinite mutations"))?;
    if count > MAX_MUTATIONS_PER_TRANSACTION as u64 {
        return Ok(Err(TooMany { mutations: usize::try_from(count).unwrap_or(usize::MAX) }));
    }
    let mut reader = MutationReader::default();
    // A mutation takes several bytes, so what is made room for is in proportion to what was sent.
    let room = d.input().len().saturating_sub(d.position()) / LEAST_MUTATION_BYTES;
    let mut mutations = Vec::with_capacity(room.min(count as usize));
    for _ in 0..count {
        mutations.push(reader.mutation(d)?);
    }
    Ok(Ok(Transaction { number, stamp, mutations }))
}

/// More mutations than a transaction may have.
pub(super) struct TooMany {
    pub mutations: usize,
}

#[derive(Default)]
struct MutationReader {
    row: [u8; 16],
    columns: Vec<ColumnId>,
}

impl MutationReader {
    fn mutation(&mut self, d: &mut Decoder<'_>) -> Result<Mutation, DecodeError> {
        array(d, 3)?;
        let collection = CollectionId(d.u16()?);
        let own = d.bytes()?;
        let shared = self.row.len().checked_sub(own.len());
        let shared = shared.ok_or_else(|| DecodeError::message("an identity has 16 bytes"))?;
        self.row[shared..].copy_from_slice(own);
        let row = RowId::from_bytes(self.row);
        Ok(Mutation { collection, row, op: self.op(d)? })
    }

    fn op(&mut self, d: &mut Decoder<'_>) -> Result<Op, DecodeError> {
        let start = d.position();
        array(d, 2)?;
        let op = d.u32()?;
        if op != INSERT && op != UPDATE {
            d.set_position(start);
            return Op::decode(d, &mut ());
        }
        array(d, 1)?;
        let cells = self.cells(d)?;
        Ok(if op == INSERT { Op::Insert { cells } } else { Op::Update { cells } })
    }

    fn cells(&mut self, d: &mut Decoder<'_>) -> Result<Cells, DecodeError> {
        if d.datatype()? == Type::Map {
            let cells = Cells::decode(d, &mut ())?;
            self.columns.clear();
            self.columns.extend(cells.0.iter().map(|(column, _)| *column));
            return Ok(cells);
        }
        array(d, self.columns.len() as u64)?;
        debug_assert!(self.columns.len() <= MAX_CELLS, "as many as cells were read");
        let mut cells = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            cells.push((*column, Value::decode(d, &mut ())?));
        }
        Ok(Cells(cells))
    }
}

fn array(d: &mut Decoder<'_>, length: u64) -> Result<(), DecodeError> {
    match d.array()? {
        Some(found) if found == length => Ok(()),
        _ => Err(DecodeError::message("an array of another length")),
    }
}

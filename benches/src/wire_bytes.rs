//! What messages hold besides values: the account of what the protocol costs.
//!
//! A value counts with its bytes as CBOR, its type and length included: no format that says of itself what it holds
//! writes less. What is beyond is ids, stamps, column numbers, seqs and frames.

use farshore_api::envelope;
use farshore_sync_core::mutation::{Op, Transaction};
use farshore_sync_core::row::RowState;
use farshore_sync_core::wire::{ClientFrame, Frame as _, RowPayload, ServerFrame};

use crate::outcome::{Outcome, ensure};

/// What messages held.
#[derive(Debug, Clone, Copy, Default)]
pub struct Account {
    pub rows: usize,
    /// Bytes of the values alone.
    pub values: usize,
    /// Bytes of the values alone, compressed by message like frames.
    pub compressed_values: usize,
    /// Bytes of the frames before compression.
    pub frames: usize,
    /// Bytes of the messages as sent, without the WebSocket's two to eight.
    pub messages: usize,
}

impl Account {
    /// Counts a message of the server in.
    pub fn add_server_message(&mut self, message: &[u8]) -> Outcome {
        let frame = envelope::open(message)?;
        self.messages += message.len();
        self.frames += frame.len();
        let mut values = Vec::new();
        if let ServerFrame::Page(page) = ServerFrame::from_bytes(&frame)? {
            for entry in &page.rows {
                let RowPayload::State(state) = &entry.payload else { continue };
                let state = RowState::decode(state)?;
                self.rows += 1;
                for cell in &state.cells {
                    minicbor::encode(&cell.value, &mut values)?;
                }
            }
        }
        self.count(&values);
        Ok(())
    }

    /// Counts a message of a device in.
    pub fn add_device_message(&mut self, message: &[u8]) -> Outcome {
        let frame = envelope::open(message)?;
        self.messages += message.len();
        self.frames += frame.len();
        let mut values = Vec::new();
        if let ClientFrame::Push(push) = ClientFrame::from_bytes(&frame)? {
            for transaction in &push.transactions {
                for mutation in &Transaction::decode(transaction)?.mutations {
                    let (Op::Insert { cells } | Op::Update { cells }) = &mutation.op else {
                        continue;
                    };
                    self.rows += 1;
                    for (_, value) in cells.as_slice() {
                        minicbor::encode(value, &mut values)?;
                    }
                }
            }
        }
        self.count(&values);
        Ok(())
    }

    fn count(&mut self, values: &[u8]) {
        self.values += values.len();
        // The byte that says whether what follows is compressed is not the values'.
        self.compressed_values += envelope::seal(values).len() - 1;
    }

    /// Bytes a row beyond the values, before compression.
    pub fn overhead(&self) -> f64 {
        (self.frames as f64 - self.values as f64) / self.rows as f64
    }

    /// Bytes a row beyond the values, both compressed.
    pub fn compressed_overhead(&self) -> f64 {
        (self.messages as f64 - self.compressed_values as f64) / self.rows as f64
    }

    /// Bytes a row as sent.
    pub fn sent(&self) -> f64 {
        self.messages as f64 / self.rows as f64
    }

    /// Bytes a row of the values alone.
    pub fn value_bytes(&self) -> f64 {
        self.values as f64 / self.rows as f64
    }

    /// An error where it is not these rows that were counted.
    pub fn holds(&self, rows: usize) -> Outcome {
        ensure(self.rows == rows, || format!("{} rows were sent, not {rows}", self.rows))
    }
}

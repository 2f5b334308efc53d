//! A pushed transaction as it was read. Reading costs more than a fifth of a commit and needs no database, so it
//! is done by each session for itself, before the push waits for its commit.

use farshore_sync_core::document::{self, Change, DocumentError};
use farshore_sync_core::mutation::{Mutation, Op, Transaction};

/// One transaction of a push.
#[derive(Debug, Clone)]
pub struct PushedTransaction {
    number: u64,
    content: [u8; 16],
    encoded_bytes: usize,
    /// The transaction, or what is wrong with its bytes.
    pub(crate) body: Result<ReadTransaction, String>,
}

/// A transaction with its document changes inspected.
#[derive(Debug, Clone)]
pub(crate) struct ReadTransaction {
    pub transaction: Transaction,
    /// One entry for each mutation: the inspected change of a document mutation.
    pub changes: Vec<Option<Result<Change, DocumentError>>>,
}

impl PushedTransaction {
    /// Reads the bytes of a transaction. `None` where not even its number can be read, so that it cannot be
    /// answered; where only the rest is malformed, it is refused in the plan.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let number = Transaction::peek_number(bytes)?;
        let body = Transaction::decode(bytes)
            .map(|transaction| {
                let changes = transaction.mutations.iter().map(inspect).collect();
                ReadTransaction { transaction, changes }
            })
            .map_err(|error| error.to_string());
        Some(Self { number, content: content_hash(bytes), encoded_bytes: bytes.len(), body })
    }

    /// Its number, which the device gave it.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The first 16 bytes of the BLAKE3 hash of its bytes.
    #[must_use]
    pub const fn content(&self) -> [u8; 16] {
        self.content
    }

    /// How many bytes it was encoded in.
    #[must_use]
    pub const fn encoded_bytes(&self) -> usize {
        self.encoded_bytes
    }
}

fn inspect(mutation: &Mutation) -> Option<Result<Change, DocumentError>> {
    match &mutation.op {
        Op::Document { change, .. } => Some(document::inspect(change)),
        _ => None,
    }
}

fn content_hash(bytes: &[u8]) -> [u8; 16] {
    let mut head = [0; 16];
    head.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    head
}

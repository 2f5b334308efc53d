//! Reading the pushed bytes, and naming what has to be loaded for them.

use farshore_sync_core::document::{self, Change, DocumentError};
use farshore_sync_core::mutation::{Op, Transaction, TransactionError};

use super::Needs;
use crate::sync::{Batch, DevicePush};

/// A batch that was read, with what has to be loaded for it.
#[derive(Debug)]
pub struct Prepared {
    pub(super) pushes: Vec<PreparedPush>,
    needs: Needs,
}

/// One device's push, read.
#[derive(Debug)]
pub(super) struct PreparedPush {
    pub push: DevicePush,
    pub transactions: Vec<PreparedTransaction>,
}

/// One transaction, read.
#[derive(Debug)]
pub(super) struct PreparedTransaction {
    /// Its number; `None` where not even that can be read, which the session refuses before.
    pub number: Option<u64>,
    /// The first 16 bytes of the hash of its bytes.
    pub content: [u8; 16],
    /// The transaction, or why it cannot be read.
    pub body: Result<ReadTransaction, TransactionError>,
}

/// A transaction with its document changes inspected.
#[derive(Debug)]
pub(super) struct ReadTransaction {
    pub transaction: Transaction,
    /// One entry for each mutation: the inspected change of a document mutation.
    pub changes: Vec<Option<Result<Change, DocumentError>>>,
}

impl Prepared {
    /// What has to be loaded.
    #[must_use]
    pub const fn needs(&self) -> &Needs {
        &self.needs
    }
}

/// Reads the pushed bytes. What cannot be read becomes a refusal in the plan, not an error here.
#[must_use]
pub fn prepare(batch: Batch) -> Prepared {
    let mut needs = Needs::default();
    let pushes = batch.pushes.into_iter().map(|push| prepare_push(push, &mut needs)).collect();
    Prepared { pushes, needs }
}

fn prepare_push(push: DevicePush, needs: &mut Needs) -> PreparedPush {
    needs.devices.insert(push.device);
    let mut transactions = Vec::with_capacity(push.transactions.len());
    for bytes in &push.transactions {
        let number = Transaction::peek_number(bytes);
        needs.outcomes.extend(number.map(|number| (push.device, number)));
        let body = Transaction::decode(bytes).map(|transaction| inspect(transaction, needs));
        transactions.push(PreparedTransaction { number, content: content_hash(bytes), body });
    }
    PreparedPush { push, transactions }
}

fn inspect(transaction: Transaction, needs: &mut Needs) -> ReadTransaction {
    let mut changes = Vec::with_capacity(transaction.mutations.len());
    for mutation in &transaction.mutations {
        let key = (mutation.collection, mutation.row);
        needs.rows.insert(key);
        let change = match &mutation.op {
            Op::Document { column, change } => {
                let inspected = document::inspect(change);
                if let Ok(change) = &inspected {
                    let of_interest = change.deps.iter().chain([&change.hash]);
                    needs.changes.extend(of_interest.map(|hash| (key, *column, *hash)));
                }
                Some(inspected)
            }
            _ => None,
        };
        changes.push(change);
    }
    ReadTransaction { transaction, changes }
}

fn content_hash(bytes: &[u8]) -> [u8; 16] {
    let mut head = [0; 16];
    head.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    head
}

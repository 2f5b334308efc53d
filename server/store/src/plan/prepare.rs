//! Naming what has to be loaded for a batch.

use farshore_sync_core::mutation::Op;

use super::Needs;
use crate::pushed::ReadTransaction;
use crate::sync::{Batch, DevicePush, RowKey};

/// A batch with what has to be loaded for it.
#[derive(Debug)]
pub struct Prepared {
    pub(super) pushes: Vec<DevicePush>,
    needs: Needs,
}

impl Prepared {
    /// What has to be loaded.
    #[must_use]
    pub const fn needs(&self) -> &Needs {
        &self.needs
    }
}

/// Collects what the pushes of a batch touch.
#[must_use]
pub fn prepare(batch: Batch) -> Prepared {
    let mut needs = Needs::default();
    // A set that is made of a list sorts that, which is many times as fast as growing the set key by key.
    let mut rows = Vec::new();
    for push in &batch.pushes {
        needs.devices.insert(push.device);
        for transaction in &push.transactions {
            needs.outcomes.insert((push.device, transaction.number()));
            if let Ok(read) = &transaction.body {
                touched(read, &mut rows, &mut needs);
            }
        }
    }
    needs.rows = rows.into_iter().collect();
    Prepared { pushes: batch.pushes, needs }
}

fn touched(read: &ReadTransaction, rows: &mut Vec<RowKey>, needs: &mut Needs) {
    for (mutation, change) in read.transaction.mutations.iter().zip(&read.changes) {
        let key = (mutation.collection, mutation.row);
        rows.push(key);
        if let (Op::Document { column, .. }, Some(Ok(change))) = (&mutation.op, change) {
            let of_interest = change.deps.iter().chain([&change.hash]);
            needs.changes.extend(of_interest.map(|hash| (key, *column, *hash)));
        }
    }
}

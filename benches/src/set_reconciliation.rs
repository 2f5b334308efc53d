//! The peer: range-based set reconciliation (crate `negentropy`), which two sides use to find out that they hold
//! the same ids.

use farshore_sync_core::ids::RowId;
use negentropy::{Id, Negentropy, NegentropyStorageVector};

use crate::outcome::Outcome;

/// What the two sides said until both knew.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exchange {
    /// Bytes of all messages, without any framing.
    pub bytes: usize,
    /// How often one side asked and the other answered.
    pub round_trips: usize,
}

/// Compares two sides that hold the same ids.
pub fn of_equal_sides(ids: &[RowId]) -> Outcome<Exchange> {
    let mut asking = Negentropy::owned(storage(ids)?, 0)?;
    let mut answering = Negentropy::owned(storage(ids)?, 0)?;
    let mut exchange = Exchange::default();
    let mut question = Some(asking.initiate()?);
    while let Some(message) = question {
        let answer = answering.reconcile(&message)?;
        exchange.bytes += message.len() + answer.len();
        exchange.round_trips += 1;
        question = asking.reconcile_with_ids(&answer, &mut Vec::new(), &mut Vec::new())?;
    }
    Ok(exchange)
}

fn storage(ids: &[RowId]) -> Outcome<NegentropyStorageVector> {
    let mut storage = NegentropyStorageVector::with_capacity(ids.len());
    for id in ids {
        let bytes = id.as_bytes();
        // A UUIDv7 begins with 48 bits of milliseconds.
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(&bytes[..6]);
        storage.insert(
            u64::from_be_bytes(millis),
            Id::from_byte_array(*blake3::hash(bytes).as_bytes()),
        )?;
    }
    storage.seal()?;
    Ok(storage)
}

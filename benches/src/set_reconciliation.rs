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
    of_sides(storage(ids, |_| 0)?, storage(ids, |_| 0)?)
}

/// Compares two sides of which one has every so manieth row in another version.
pub fn of_versions(ids: &[RowId], every: usize) -> Outcome<Exchange> {
    of_sides(storage(ids, |_| 0)?, storage(ids, |at| u8::from(at % every == 0))?)
}

fn of_sides(ours: NegentropyStorageVector, theirs: NegentropyStorageVector) -> Outcome<Exchange> {
    let mut asking = Negentropy::owned(ours, 0)?;
    let mut answering = Negentropy::owned(theirs, 0)?;
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

/// What names a row in a version is a hash over both.
fn storage(ids: &[RowId], version: impl Fn(usize) -> u8) -> Outcome<NegentropyStorageVector> {
    let mut storage = NegentropyStorageVector::with_capacity(ids.len());
    for (at, id) in ids.iter().enumerate() {
        let bytes = id.as_bytes();
        // A UUIDv7 begins with 48 bits of milliseconds.
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(&bytes[..6]);
        storage.insert(
            u64::from_be_bytes(millis),
            Id::from_byte_array(*hash(bytes, version(at)).as_bytes()),
        )?;
    }
    storage.seal()?;
    Ok(storage)
}

fn hash(id: &[u8; 16], version: u8) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id).update(&[version]);
    hasher.finalize()
}

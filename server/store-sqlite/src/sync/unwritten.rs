//! What commits that share a transaction write more than once: answers, the marks of devices, sums. It comes into the
//! tables with the end of the transaction, once, and is looked up here before.
//!
//! A device that waits for each of its answers is answered many times in one transaction, and its answers but the last
//! are never wanted again.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use farshore_store::plan::{DeviceMark, Plan, StoredOutcome};
use farshore_store::sync_core::ids::DeviceId;
use rusqlite::Connection;

use super::sums::StandingSums;
use super::{load, sums, write};
use crate::failure::Failure;
use crate::scope_numbers::Interner;

/// Most sums that are kept, of 4 KiB each.
const MAX_SUMS: usize = 1_024;
/// Bytes of records after which a transaction is to end: the next commit waits for what it wrote.
const MAX_RECORD_BYTES: usize = 2 << 20;

/// What is not in the tables yet.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    outcomes: BTreeMap<(DeviceId, u64), StoredOutcome>,
    marks: HashMap<DeviceId, DeviceMark>,
    /// By their places.
    sums: HashMap<i64, StandingSums>,
    /// How long the records are that the journal has of the commits in the transaction.
    record_bytes: usize,
}

impl Unwritten {
    /// How far a device has come.
    pub fn mark(
        &self,
        database: &Connection,
        device: DeviceId,
    ) -> Result<Option<DeviceMark>, Failure> {
        match self.marks.get(&device) {
            Some(mark) => Ok(Some(*mark)),
            None => load::mark(database, device),
        }
    }

    /// The answer to a transaction. One that is to be forgotten may be found or not.
    pub fn outcome(
        &self,
        database: &Connection,
        device: DeviceId,
        number: u64,
    ) -> Result<Option<StoredOutcome>, Failure> {
        match self.outcomes.get(&(device, number)) {
            Some(outcome) => Ok(Some(outcome.clone())),
            None => load::outcome(database, device, number),
        }
    }

    /// Takes in what a plan writes of these.
    pub fn add(
        &mut self,
        database: &Connection,
        scopes: &mut Interner<'_>,
        plan: &Plan,
    ) -> Result<(), Failure> {
        for ((scope, collection), changes) in &plan.digests {
            let place = sums::place(scopes.number(scope)?, *collection);
            match self.sums.entry(place) {
                Entry::Occupied(mut sums) => sums.get_mut().add(changes),
                Entry::Vacant(none) => {
                    none.insert(StandingSums::load(database, place)?).add(changes);
                }
            }
        }
        for (device, stored) in &plan.outcomes {
            self.outcomes.insert((*device, stored.outcome.number), stored.clone());
        }
        for (device, mark) in &plan.devices {
            self.marks.insert(*device, *mark);
            let forgotten = (*device, 0)..=(*device, mark.forgotten());
            while let Some(key) = self.outcomes.range(forgotten.clone()).next().map(|of| *of.0) {
                self.outcomes.remove(&key);
            }
        }
        Ok(())
    }

    /// Counts a commit that is durable, by its record.
    pub const fn count(&mut self, record_bytes: usize) {
        self.record_bytes += record_bytes;
    }

    /// Whether the transaction is to end.
    pub fn is_full(&self) -> bool {
        self.sums.len() >= MAX_SUMS || self.record_bytes >= MAX_RECORD_BYTES
    }

    /// Writes it into the tables, in the transaction that is open.
    pub fn write(self, database: &Connection) -> Result<(), Failure> {
        for (place, sums) in &self.sums {
            sums.write(database, *place)?;
        }
        write::outcomes(database, &self.outcomes)?;
        write::marks(database, &self.marks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_ends_where_it_has_written_much() {
        let mut unwritten = Unwritten::default();
        unwritten.count(MAX_RECORD_BYTES - 1);
        assert!(!unwritten.is_full());
        unwritten.count(1);
        assert!(unwritten.is_full());
    }

    #[test]
    fn a_transaction_ends_where_it_keeps_many_sums() {
        let database = Connection::open_in_memory().unwrap();
        database.execute_batch("CREATE TABLE sums (place INTEGER PRIMARY KEY, buckets)").unwrap();
        let mut unwritten = Unwritten::default();
        for place in 1..=MAX_SUMS as i64 {
            assert!(!unwritten.is_full());
            unwritten.sums.insert(place, StandingSums::load(&database, place).unwrap());
        }
        assert!(unwritten.is_full());
    }
}

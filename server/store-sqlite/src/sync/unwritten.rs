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

/// Most sums that are kept, of 4 KiB each; then they come into their table before the rest.
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
            self.sums_at(database, place)?.add(changes);
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

    /// The sums that lie at a place.
    fn sums_at(&mut self, database: &Connection, place: i64) -> Result<&mut StandingSums, Failure> {
        if self.sums.len() >= MAX_SUMS && !self.sums.contains_key(&place) {
            self.write_sums(database)?;
        }
        Ok(match self.sums.entry(place) {
            Entry::Occupied(sums) => sums.into_mut(),
            Entry::Vacant(none) => none.insert(StandingSums::load(database, place)?),
        })
    }

    fn write_sums(&mut self, database: &Connection) -> Result<(), Failure> {
        self.sums.drain().try_for_each(|(place, sums)| sums.write(database, place))
    }

    /// Counts a commit that is durable, by its record.
    pub const fn count(&mut self, record_bytes: usize) {
        self.record_bytes += record_bytes;
    }

    /// Whether the transaction is to end.
    pub const fn is_full(&self) -> bool {
        self.record_bytes >= MAX_RECORD_BYTES
    }

    /// Writes it into the tables, in the transaction that is open.
    pub fn write(mut self, database: &Connection) -> Result<(), Failure> {
        self.write_sums(database)?;
        write::outcomes(database, &self.outcomes)?;
        write::marks(database, &self.marks)
    }
}

#[cfg(test)]
mod tests {
    use farshore_store::sync_core::digest::Sum;

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
    fn no_more_sums_are_kept_than_there_may_be() {
        let database = Connection::open_in_memory().unwrap();
        let table = "CREATE TABLE sums (place INTEGER PRIMARY KEY, total, buckets)";
        database.execute_batch(table).unwrap();
        let mut unwritten = Unwritten::default();
        let change = BTreeMap::from([(7, Sum(1))]);
        let places = MAX_SUMS as i64 + 100;
        for place in (1..=places).chain(1..=places) {
            unwritten.sums_at(&database, place).unwrap().add(&change);
            assert!(unwritten.sums.len() <= MAX_SUMS);
        }
        unwritten.write(&database).unwrap();
        let twice = "SELECT COUNT(*) FROM sums WHERE total = ?1";
        let twice = database.query_row(twice, [2_u128.to_le_bytes()], |row| row.get(0));
        assert_eq!(twice, Ok(places));
    }
}

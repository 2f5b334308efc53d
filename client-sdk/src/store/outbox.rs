//! The outbox: local transactions from their commit until a checkpoint brings their effects back.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::hlc::{Hlc, Stamp};
use farshore_sync_core::mutation::{Mutation, Transaction};
use rusqlite::{OptionalExtension as _, params};

use super::error::Failure;
use super::progress::{from_sql, to_sql};
use super::rows::RowKey;
use super::transaction::Tx;

/// Bytes of transactions that one database transaction keeps decoded; reading one again costs time, not data.
const MAX_READ_BYTES: usize = 32 << 20;

/// Decoded transactions of the outbox.
#[derive(Debug, Default)]
pub(super) struct ReadTransactions {
    by_number: HashMap<u64, Rc<ReadTransaction>>,
    bytes: usize,
}

impl ReadTransactions {
    /// Keeps one that took so many bytes; where there is no room, the others go.
    fn keep(&mut self, number: u64, bytes: usize, read: &Rc<ReadTransaction>) {
        if self.bytes + bytes > MAX_READ_BYTES {
            *self = Self::default();
        }
        self.bytes += bytes;
        self.by_number.insert(number, Rc::clone(read));
    }
}

/// A decoded transaction with its mutations by row.
#[derive(Debug)]
pub(super) struct ReadTransaction {
    pub transaction: Transaction,
    /// The stamp under which the server keeps it, where that is another and was learned with its answer.
    corrected: Option<Hlc>,
    by_row: HashMap<RowKey, Vec<usize>>,
}

impl ReadTransaction {
    fn new(bytes: &[u8], corrected: Option<Hlc>) -> Result<Self, Failure> {
        let transaction =
            Transaction::decode(bytes).map_err(|error| Failure::damaged(error.to_string()))?;
        let mut by_row: HashMap<RowKey, Vec<usize>> = HashMap::new();
        for (index, mutation) in transaction.mutations.iter().enumerate() {
            by_row.entry((mutation.collection, mutation.row)).or_default().push(index);
        }
        Ok(Self { transaction, corrected, by_row })
    }

    /// The rows that it touches.
    pub(super) fn rows(&self) -> BTreeSet<RowKey> {
        self.by_row.keys().copied().collect()
    }

    /// What it does to one row, in order.
    pub(super) fn of_row(&self, key: RowKey) -> impl Iterator<Item = &Mutation> {
        let indexes = self.by_row.get(&key).into_iter().flatten();
        indexes.map(|index| &self.transaction.mutations[*index])
    }
}

impl Tx<'_> {
    /// Puts a new transaction into the outbox.
    pub(super) fn post(&mut self, number: u64, bytes: &[u8]) -> Result<(), Failure> {
        let mut statement = self
            .connection
            .prepare_cached("INSERT INTO fs_outbox (number, bytes) VALUES (?1, ?2)")?;
        statement.execute(params![to_sql(number), bytes])?;
        self.known.progress.unanswered += 1;
        self.known.progress.unconfirmed += 1;
        self.touched.outbox = true;
        Ok(())
    }

    /// A transaction of the outbox, decoded.
    pub(super) fn transaction(&mut self, number: u64) -> Result<Rc<ReadTransaction>, Failure> {
        if let Some(read) = self.read.by_number.get(&number) {
            return Ok(Rc::clone(read));
        }
        let (bytes, corrected) = self.outbox_entry(number)?;
        let read = Rc::new(ReadTransaction::new(&bytes, corrected)?);
        self.read.keep(number, bytes.len(), &read);
        Ok(read)
    }

    pub(super) fn outbox_bytes(&self, number: u64) -> Result<Vec<u8>, Failure> {
        self.outbox_entry(number).map(|(bytes, _)| bytes)
    }

    fn outbox_entry(&self, number: u64) -> Result<(Vec<u8>, Option<Hlc>), Failure> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT bytes, corrected FROM fs_outbox WHERE number = ?1")?;
        let found = statement.query_row([to_sql(number)], |row| {
            let corrected: Option<i64> = row.get(1)?;
            Ok((row.get(0)?, corrected.map(|hlc| Hlc(from_sql(hlc)))))
        });
        found.optional()?.ok_or_else(|| {
            Failure::damaged(format!("a row waits for transaction {number}, which is not there"))
        })
    }

    /// The stamp of a transaction: the server's where that is known, else the one under which this device wrote it.
    pub(super) fn stamp_of(&self, read: &ReadTransaction) -> Stamp {
        let hlc = read.corrected.unwrap_or(read.transaction.stamp);
        Stamp { hlc, device: self.known.progress.device }
    }

    /// Puts another transaction in the place of one that is no longer sent.
    pub(super) fn replace_transaction(&mut self, with: &Transaction) -> Result<(), Failure> {
        self.connection
            .prepare_cached("UPDATE fs_outbox SET bytes = ?2 WHERE number = ?1")?
            .execute(params![to_sql(with.number), with.encode()])?;
        self.read.by_number.remove(&with.number);
        Ok(())
    }

    /// The server keeps a transaction under another stamp than its own.
    pub(super) fn correct_stamp(&mut self, number: u64, corrected: Hlc) -> Result<(), Failure> {
        self.connection
            .prepare_cached("UPDATE fs_outbox SET corrected = ?2 WHERE number = ?1")?
            .execute(params![to_sql(number), to_sql(corrected.0)])?;
        // Its bytes stay counted until the next time that everything is dropped.
        self.read.by_number.remove(&number);
        Ok(())
    }

    /// Unanswered transactions after a number: at least one, then as many as fit.
    pub(super) fn unanswered_after(
        &self,
        after: u64,
        max_bytes: usize,
        max_transactions: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, Failure> {
        // No `LIMIT ?`: SQLite prepares such a statement anew each time that a limit is bound.
        let mut statement = self.connection.prepare_cached(
            "SELECT number, bytes FROM fs_outbox WHERE number > ?1 AND answered IS NULL ORDER BY number",
        )?;
        let mut rows = statement.query([to_sql(after)])?;
        let (mut transactions, mut total): (Vec<(u64, Vec<u8>)>, usize) = (Vec::new(), 0);
        while transactions.len() < max_transactions
            && let Some(row) = rows.next()?
        {
            let bytes: Vec<u8> = row.get(1)?;
            total += bytes.len();
            if total > max_bytes && !transactions.is_empty() {
                break;
            }
            transactions.push((from_sql(row.get(0)?), bytes));
        }
        Ok(transactions)
    }

    /// The transactions of which the server's state up to `seq` holds the outcome.
    pub(super) fn landed_by(&self, seq: u64) -> Result<BTreeSet<u64>, Failure> {
        let mut statement = self.connection.prepare_cached(
            "SELECT number FROM fs_outbox WHERE number <= ?1 \
             AND (answered <= ?2 OR (answered IS NULL AND decided > 0 AND decided <= ?2))",
        )?;
        let through = to_sql(self.known.progress.answered_through);
        let numbers =
            statement.query_map([through, to_sql(seq)], |row| row.get(0).map(from_sql))?;
        Ok(numbers.collect::<rusqlite::Result<_>>()?)
    }

    /// Moves `settled` up to the last transaction before which every answer is recorded.
    pub(super) fn advance_settled(&mut self) -> Result<(), Failure> {
        let progress = &self.known.progress;
        let mut statement = self.connection.prepare_cached(
            "SELECT number FROM fs_outbox WHERE number > ?1 AND answered IS NULL ORDER BY number LIMIT 1",
        )?;
        let first: Option<i64> =
            statement.query_row([to_sql(progress.settled)], |row| row.get(0)).optional()?;
        let first = first.filter(|_| !bugs::planted(Bug::SettledTooEarly));
        let settled = first.map_or(progress.next_number, from_sql) - 1;
        self.known.progress.settled = settled.max(self.known.progress.settled);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoded_transactions_are_kept_up_to_a_bound_and_then_all_go() {
        const MIB: usize = 1 << 20;
        let transaction = Transaction { number: 1, stamp: Hlc::ZERO, mutations: Vec::new() };
        let read = Rc::new(ReadTransaction::new(&transaction.encode(), None).unwrap());
        let mut kept = ReadTransactions::default();
        let mut numbers_after = |number, bytes| {
            kept.keep(number, bytes, &read);
            let mut numbers: Vec<u64> = kept.by_number.keys().copied().collect();
            numbers.sort_unstable();
            numbers
        };
        assert_eq!(numbers_after(1, 20 * MIB), [1]);
        assert_eq!(numbers_after(2, 12 * MIB), [1, 2]);
        assert_eq!(numbers_after(3, 1), [3]);
        assert_eq!(numbers_after(4, 32 * MIB - 1), [3, 4]);
        assert_eq!(numbers_after(5, 40 * MIB), [5], "what is larger than the bound is kept alone");
        assert_eq!(numbers_after(6, 1), [6]);
    }
}

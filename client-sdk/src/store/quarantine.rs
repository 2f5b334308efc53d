//! The quarantine: transactions that the server refused, or that lost their scope before they were sent.
//!
//! Nothing here is dropped by itself. The app lists, repairs, resubmits or discards.

use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::mutation::{Op, Transaction};
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::wire::RefusedMutation;
use rusqlite::{OptionalExtension as _, params};

use super::error::Failure;
use super::pending::Numbers;
use super::progress::to_sql;
use super::rebase::Landed;
use super::transaction::Tx;

impl Tx<'_> {
    /// Moves a transaction from the outbox to the quarantine, and takes its effects off the rows.
    pub(super) fn quarantine(
        &mut self,
        number: u64,
        refused: &RefusedMutation,
        now_ms: u64,
    ) -> Result<(), Failure> {
        let read = self.transaction(number)?;
        let code = self.cause_of(&read.transaction, refused)?;
        let bytes = self.outbox_bytes(number)?;
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO fs_quarantine (number, code, message, refused_index, since_ms, bytes) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        statement.execute(params![
            to_sql(number),
            code.as_str(),
            refused.message,
            refused.index,
            to_sql(now_ms),
            bytes
        ])?;
        self.remember_rows(number, &read.transaction)?;
        self.drop_changes(number)?;
        if !bugs::planted(Bug::RefusalNotUndone) {
            self.take_off(number, &mut Landed::new([number].into()))?;
        }
        let was_unanswered: bool = self
            .connection
            .prepare_cached("SELECT answered IS NULL FROM fs_outbox WHERE number = ?1")?
            .query_row([to_sql(number)], |row| row.get(0))?;
        self.forget_transaction(number)?;
        let progress = &mut self.known.progress;
        progress.unanswered -= u64::from(was_unanswered).min(progress.unanswered);
        progress.quarantined += 1;
        self.touched.quarantine = true;
        Ok(())
    }

    /// The code of the refusal; where the row or the change is missing because what would bring it was refused,
    /// that is the cause.
    pub(super) fn cause_of(
        &self,
        transaction: &Transaction,
        refused: &RefusedMutation,
    ) -> Result<ReasonCode, Failure> {
        let index = usize::try_from(refused.index).unwrap_or(usize::MAX);
        let Some(mutation) = transaction.mutations.get(index) else { return Ok(refused.code) };
        let depends = match refused.code {
            ReasonCode::RowMissing | ReasonCode::RowDeleted => "brings = 1",
            ReasonCode::MissingDependency => "brings = 2",
            _ => return Ok(refused.code),
        };
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT EXISTS (SELECT 1 FROM fs_quarantined_rows WHERE collection = ?1 AND id = ?2 AND {depends})"
        ))?;
        let key = params![mutation.collection.0, mutation.row.as_bytes()];
        let depends: bool = statement.query_row(key, |row| row.get(0))?;
        Ok(if depends { ReasonCode::DependsOnRefused } else { refused.code })
    }

    fn remember_rows(&self, number: u64, transaction: &Transaction) -> Result<(), Failure> {
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO fs_quarantined_rows (collection, id, number, brings) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT DO UPDATE SET brings = CASE WHEN excluded.brings = 0 THEN brings ELSE excluded.brings END",
        )?;
        for mutation in &transaction.mutations {
            let brings = match mutation.op {
                Op::Insert { .. } | Op::Restore | Op::Offer { .. } => 1,
                Op::Document { .. } => 2,
                _ => 0,
            };
            statement.execute(params![
                mutation.collection.0,
                mutation.row.as_bytes(),
                to_sql(number),
                brings
            ])?;
        }
        Ok(())
    }

    /// A quarantined transaction; `None` where there is none with that number.
    pub(super) fn quarantined(&self, number: u64) -> Result<Option<Transaction>, Failure> {
        let mut statement =
            self.connection.prepare_cached("SELECT bytes FROM fs_quarantine WHERE number = ?1")?;
        let bytes: Option<Vec<u8>> =
            statement.query_row([to_sql(number)], |row| row.get(0)).optional()?;
        let decode = |bytes: Vec<u8>| {
            Transaction::decode(&bytes).map_err(|error| Failure::damaged(error.to_string()))
        };
        bytes.map(decode).transpose()
    }

    /// Removes a transaction from the quarantine; `false` where it is not there.
    pub(super) fn release(&mut self, number: u64) -> Result<bool, Failure> {
        let mut statement =
            self.connection.prepare_cached("DELETE FROM fs_quarantine WHERE number = ?1")?;
        if statement.execute([to_sql(number)])? == 0 {
            return Ok(false);
        }
        let mut statement =
            self.connection.prepare_cached("DELETE FROM fs_quarantined_rows WHERE number = ?1")?;
        statement.execute([to_sql(number)])?;
        self.known.progress.quarantined = self.known.progress.quarantined.saturating_sub(1);
        self.touched.quarantine = true;
        Ok(true)
    }

    /// The unanswered transactions that wait on a row.
    pub(super) fn unanswered_on(&self, numbers: &Numbers) -> Result<Vec<u64>, Failure> {
        let mut statement = self.connection.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM fs_outbox WHERE number = ?1 AND answered IS NULL AND coalesce(decided, -1) < 0)",
        )?;
        let mut unanswered = Vec::new();
        for number in numbers.iter() {
            if statement.query_row([to_sql(number)], |row| row.get(0))? {
                unanswered.push(number);
            }
        }
        Ok(unanswered)
    }
}

//! What the server made of transactions.

use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::hlc::Hlc;
use farshore_sync_core::mutation::{Mutation, Op, Transaction};
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::wire::{PushOutcome, Refill, RefusedMutation};
use rusqlite::{OptionalExtension as _, params};

use super::error::Failure;
use super::pending::Pending;
use super::progress::to_sql;
use super::rebase::Landed;
use super::rows::RowKey;
use super::transaction::Tx;

impl Tx<'_> {
    /// Records answers; returns the transaction up to which all of them are recorded.
    pub(super) fn outcomes(
        &mut self,
        outcomes: &[PushOutcome],
        now_ms: u64,
    ) -> Result<u64, Failure> {
        let mut corrected = None;
        for outcome in outcomes {
            if i64::try_from(outcome.seq).is_err() {
                return Err(Failure::protocol("a seq beyond 63 bits"));
            }
            self.outcome(outcome, now_ms, &mut corrected)?;
        }
        if let Some(corrected) = corrected {
            self.correct_clock(corrected)?;
        }
        self.advance_settled()?;
        Ok(self.known.progress.settled)
    }

    fn outcome(
        &mut self,
        outcome: &PushOutcome,
        now_ms: u64,
        corrected: &mut Option<Hlc>,
    ) -> Result<(), Failure> {
        let number = outcome.number;
        let waits: Option<bool> = self
            .connection
            .prepare_cached("SELECT answered IS NULL FROM fs_outbox WHERE number = ?1")?
            .query_row([to_sql(number)], |row| row.get(0))
            .optional()?;
        match waits {
            Some(true) => {}
            // Answered before: a resend gets the same answer.
            Some(false) => return Ok(()),
            None if outcome.refused.is_none() => {
                return self.accepted_after_all(number, outcome.seq);
            }
            None => return Ok(()),
        }
        if let Some(hlc) = outcome.corrected {
            self.count_correction(number, hlc)?;
            if !bugs::planted(Bug::CorrectionNotKept) {
                self.correct_stamp(number, hlc)?;
                // Until its checkpoint comes, what is written next has to win over it here as it will there.
                self.lay_all_anew(number)?;
            }
            *corrected = Some(hlc);
        }
        let progress = &mut self.known.progress;
        progress.answered_through = progress.answered_through.max(number);
        match &outcome.refused {
            Some(_) if bugs::planted(Bug::RefusalDropped) => {
                self.take_off(number, &mut Landed::new([number].into()))?;
                self.forget_transaction(number)
            }
            Some(refused) => self.refused(number, refused, now_ms),
            None => self.accepted(number, outcome.seq),
        }
    }

    /// Rows that were offered together have nothing to do with each other: only the refused one is quarantined, and the
    /// others are offered again.
    fn refused(
        &mut self,
        number: u64,
        refused: &RefusedMutation,
        now_ms: u64,
    ) -> Result<(), Failure> {
        let read = self.transaction(number)?;
        if self.lacks_what_will_be_offered(&read.transaction, refused)? {
            return self.postpone(number);
        }
        let mut others = read.transaction.mutations.clone();
        let index = usize::try_from(refused.index).unwrap_or(usize::MAX);
        let are_offers = others.iter().all(|mutation| matches!(mutation.op, Op::Offer { .. }));
        if !are_offers || others.len() < 2 || index >= others.len() {
            return self.quarantine(number, refused, now_ms);
        }
        let alone =
            Transaction { mutations: vec![others.swap_remove(index)], ..read.transaction.clone() };
        self.take_off(number, &mut Landed::new([number].into()))?;
        self.replace_transaction(&alone)?;
        let refused = RefusedMutation { index: 0, ..refused.clone() };
        self.quarantine(number, &refused, now_ms)?;
        self.offer_again(others)
    }

    /// Whether document changes of a row were refused because the restored server lacks what they were made upon, which
    /// the end of the refill will offer. They are offered then as well. Those of several rows may not be told apart: they
    /// are one transaction. Where this device may only read, nothing is offered.
    fn lacks_what_will_be_offered(
        &self,
        transaction: &Transaction,
        refused: &RefusedMutation,
    ) -> Result<bool, Failure> {
        let mut mutations = transaction.mutations.iter();
        let of_one_row = |pair: &[Mutation]| {
            (pair[0].collection, pair[0].row) == (pair[1].collection, pair[1].row)
        };
        if self.known.progress.refill != Refill::NewEpoch
            || !mutations.all(|mutation| matches!(mutation.op, Op::Document { .. }))
            || !transaction.mutations.windows(2).all(of_one_row)
            || !self.may_write_rows_of(transaction)?
        {
            return Ok(false);
        }
        let cause = self.cause_of(transaction, refused)?;
        Ok(matches!(cause, ReasonCode::MissingDependency | ReasonCode::RowMissing))
    }

    fn accepted(&mut self, number: u64, seq: u64) -> Result<(), Failure> {
        let mut statement = self
            .connection
            .prepare_cached("UPDATE fs_outbox SET answered = ?2 WHERE number = ?1")?;
        statement.execute(params![to_sql(number), to_sql(seq)])?;
        self.known.progress.unanswered = self.known.progress.unanswered.saturating_sub(1);
        self.touched.outbox = true;
        let early = bugs::planted(Bug::LandsWithItsAnswer);
        if self.known.progress.filled && (seq <= self.known.progress.cursor || early) {
            // The checkpoint with its effects came before its answer.
            self.land(&mut Landed::new([number].into()))?;
        }
        Ok(())
    }

    /// The scope of a transaction was revoked while it was on its way, and the server had taken it before.
    ///
    /// What it did to rows that this device still holds is laid over them until the checkpoint with it comes.
    fn accepted_after_all(&mut self, number: u64, seq: u64) -> Result<(), Failure> {
        let revoked: bool = self
            .connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM fs_quarantine WHERE number = ?1 AND code = ?2)",
            )?
            .query_row(params![to_sql(number), ReasonCode::ScopeRevoked.as_str()], |row| {
                row.get(0)
            })?;
        if !revoked {
            return Ok(());
        }
        let transaction = self.quarantined(number)?;
        self.release(number)?;
        match transaction {
            Some(transaction)
                if !self.known.progress.filled || seq > self.known.progress.cursor =>
            {
                self.take_back(&transaction, seq)
            }
            _ => Ok(()),
        }
    }

    /// Puts an accepted transaction back into the outbox, and over the rows of the scopes that are still granted.
    fn take_back(&mut self, transaction: &Transaction, seq: u64) -> Result<(), Failure> {
        let number = transaction.number;
        self.connection
            .prepare_cached("INSERT INTO fs_outbox (number, answered, bytes) VALUES (?1, ?2, ?3)")?
            .execute(params![to_sql(number), to_sql(seq), transaction.encode()])?;
        let progress = &mut self.known.progress;
        progress.unconfirmed += 1;
        progress.answered_through = progress.answered_through.max(number);
        self.touched.outbox = true;
        for key in self.transaction(number)?.rows() {
            self.take_back_row(key, number)?;
        }
        Ok(())
    }

    fn take_back_row(&mut self, key: RowKey, number: u64) -> Result<(), Failure> {
        let stored = self.load(key)?;
        let base = match &stored {
            Some(stored) => self.base_of(stored)?,
            None => None,
        };
        let mut head = stored.map(|stored| stored.head);
        let waiting = head.as_ref().and_then(|head| head.pending.as_ref());
        let mut numbers = waiting.map(|pending| pending.numbers.clone()).unwrap_or_default();
        numbers.insert(number);
        let state = base.as_ref().map(|base| base.state.clone());
        let visible = self.overlay(key, state, &numbers)?;
        let scope = self.resolved_scope(key, visible.as_ref())?;
        let granted = self.known.scopes.granted();
        if !granted.iter().any(|granted| Some(granted.number) == scope) {
            return Ok(());
        }
        let bytes = base.as_ref().map(|base| base.bytes.clone());
        let pending = Pending { numbers, base: bytes };
        let was_in = head.as_ref().map(|head| head.place);
        let (scope, sum) = match head.take() {
            Some(head) if base.is_some() => (head.scope, head.sum),
            _ => (scope, None),
        };
        self.save(key, was_in, scope, sum, Some(&pending), visible.as_ref())
    }

    fn count_correction(&mut self, number: u64, corrected: Hlc) -> Result<(), Failure> {
        let read = self.transaction(number)?;
        let (from, to) = (read.transaction.stamp.wall_ms(), corrected.wall_ms());
        let progress = &mut self.known.progress;
        progress.corrections += 1;
        // Both have 48 bits, so that their difference fits.
        progress.last_correction_ms = to.cast_signed() - from.cast_signed();
        Ok(())
    }

    /// Sets the clock to the server's correction, but not behind what is still waiting nor behind the server's rows:
    /// a later local write has to win over them here as it will there.
    fn correct_clock(&mut self, corrected: Hlc) -> Result<(), Failure> {
        let bytes: Option<Vec<u8>> = self
            .connection
            .prepare_cached(
                "SELECT bytes FROM fs_outbox WHERE answered IS NULL ORDER BY number DESC LIMIT 1",
            )?
            .query_row([], |row| row.get(0))
            .optional()?;
        let waiting = bytes.and_then(|bytes| Transaction::decode(&bytes).ok());
        let latest = waiting.map_or(Hlc::ZERO, |transaction| transaction.stamp);
        let progress = &mut self.known.progress;
        progress.clock.correct(corrected.max(latest).max(progress.seen));
        Ok(())
    }
}

//! Writes of a tenant beside the journal that all tenants share.
//!
//! A small commit becomes durable in the journal before it ends in the tenant's file, which is not synced for it. Any
//! other write syncs that file, and with it all that was written before; where the journal has something of the tenant,
//! it is brought into the file then, or at least noted that the file has all of it.
//!
//! Small commits that follow each other share one transaction in the file, which is held open for them: what they all
//! write is encrypted and written once. It ends before anything else is done with the file, be it a read, and when no
//! commit has come for a moment.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use farshore_store::StoreError;
use farshore_store::pushed::PushedTransaction;
use farshore_store::sealing::MasterKey;
use farshore_store::sync::{Batch, Committed};
use farshore_store::sync_core::ids::TenantId;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::runtime::Handle;

use crate::config::{JournalMode, SqliteConfig};
use crate::connection::{self, Checkpoint, Sync};
use crate::data_key::DataKey;
use crate::failure::Failure;
use crate::journal::{Announced, Entry, FileName, Journal, MAX_JOURNALLED_BYTES, Sweep};
use crate::sync::commit::{self, Planned};
use crate::sync::standing;
use crate::sync::unwritten::Unwritten;
use crate::tenant::{OpenTenant, SqliteTenant, in_place};

/// So many writes of a tenant come between two looks at how long its log is.
const WRITES_BETWEEN_LOOKS: u64 = 16;

/// Most commits that share a transaction in the tenant's file.
const MAX_HELD_COMMITS: u32 = 256;

/// A tenant's way into the journal that all tenants share.
#[derive(Debug, Clone)]
pub(crate) struct OwnJournal {
    pub(crate) of_all: Arc<Journal>,
    tenant: TenantId,
    records: MasterKey,
    mode: JournalMode,
}

impl OwnJournal {
    pub fn new(
        of_all: &Arc<Journal>,
        config: &SqliteConfig,
        tenant: &TenantId,
        key: &DataKey,
    ) -> Self {
        Self {
            of_all: Arc::clone(of_all),
            tenant: tenant.clone(),
            records: key.of_records(),
            mode: config.journal,
        }
    }

    /// Whether the journal has something that the file may not hold durably.
    pub fn has_unsettled(&self) -> bool {
        self.of_all.has_unsettled(&self.tenant)
    }

    /// What the journal has of a file from after a write.
    pub fn entries_after(&self, file: FileName, write: u64) -> Result<Vec<Entry>, Failure> {
        self.of_all.entries_after(&self.tenant, file, write)
    }

    /// Forgets what the journal has of other files than this one.
    pub fn forget_others(&self, file: FileName) {
        self.of_all.forget(&self.tenant, Some(file));
    }

    /// Makes the file hold everything that the connection shows, without its log; whether that could be done now.
    pub fn settle(&self, writer: &Connection) -> Result<bool, Failure> {
        if !self.has_unsettled() {
            return Ok(true);
        }
        let (file, writes) = standing::file(writer)?;
        connection::require_sound(writer)?;
        let moved = connection::checkpoint(writer, Checkpoint::Passive)?;
        if moved {
            self.of_all.settled(&self.tenant, file, writes);
        }
        Ok(moved)
    }

    /// What was sealed under the tenant's key for one write to one file.
    pub fn unseal(&self, entry: &Entry) -> Result<Option<Vec<u8>>, Failure> {
        let Some(sealed) = &entry.sealed else { return Ok(None) };
        let opened = self.records.open(&purpose(entry.file, entry.write), sealed);
        let damaged = |error| Failure::Damaged(format!("a record of the journal: {error}"));
        Ok(Some(opened.map_err(damaged)?.to_vec()))
    }

    fn entry(&self, (file, write): (FileName, u64), sealed: Option<Vec<u8>>) -> Entry {
        Entry { tenant: self.tenant.clone(), file, write, sealed }
    }

    fn seal(&self, (file, write): (FileName, u64), record: &[u8]) -> Result<Vec<u8>, Failure> {
        let sealed = self.records.seal(&purpose(file, write), record);
        Ok(sealed.map_err(|error| StoreError::database("seal a record", error))?)
    }

    fn takes(&self, batch: &Batch) -> bool {
        let transactions = batch.pushes.iter().flat_map(|push| &push.transactions);
        let bytes: usize = transactions.map(PushedTransaction::encoded_bytes).sum();
        self.mode == JournalMode::Shared && bytes <= MAX_JOURNALLED_BYTES
    }
}

impl SqliteTenant {
    /// A durable group commit. Blocks the task: whoever waits for it has nothing else to do, and to hand it to another
    /// thread and to hear from that again would take a fifth of the time of a small one.
    pub fn commit_batch(&self, batch: Batch) -> Result<Committed, StoreError> {
        let takes = self.0.journal.as_ref().is_some_and(|journal| journal.takes(&batch));
        let done = in_place(|| {
            if takes {
                return self.0.commit_to_journal(batch);
            }
            self.0.write_now(|tenant, transaction| {
                let mut unwritten = Unwritten::default();
                let planned = commit::plan_batch(tenant, transaction, batch, &unwritten)?;
                let plan = planned.write(tenant, transaction, &mut unwritten)?;
                unwritten.write(transaction)?;
                Ok(plan.committed)
            })
        });
        done.map_err(|failure| failure.during("commit"))
    }
}

impl OpenTenant {
    /// A write that syncs the tenant's own file. Blocks.
    pub(crate) fn write_beside_journal<T>(
        &self,
        journal: &OwnJournal,
        writer: &mut Connection,
        work: impl FnOnce(&Self, &Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        connection::set_sync(writer, Sync::AtItsEnd)?;
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let changes = transaction.total_changes();
        let done = work(self, &transaction)?;
        if transaction.total_changes() == changes {
            connection::require_sound(&transaction)?;
            transaction.commit()?;
            return Ok(done);
        }
        let place = standing::count_write(&transaction)?;
        connection::require_sound(&transaction)?;
        transaction.commit().inspect_err(|_| self.doubt_log())?;
        if journal.has_unsettled() {
            let settled = journal.settle(writer);
            let note =
                || journal.of_all.append(journal.of_all.announce(), journal.entry(place, None));
            let is_noted = matches!(settled, Ok(true)) || note().is_ok();
            // The write itself is durable in any case. Without its note, or where the log could not be moved, that is
            // mended before the next one.
            if settled.is_err() || !is_noted {
                self.doubt_log();
            }
        }
        if place.1.is_multiple_of(WRITES_BETWEEN_LOOKS) {
            self.checkpoint_when_due(writer);
        }
        Ok(done)
    }

    /// A commit that is durable in the journal before it ends here. Blocks.
    fn commit_to_journal(self: &Arc<Self>, batch: Batch) -> Result<Committed, Failure> {
        let journal = self.journal.as_ref().expect("whoever calls this has looked");
        let committed = self.with_writer_as_it_is(|writer| {
            if self.is_log_in_doubt.load(Ordering::Acquire) {
                self.end_held(writer)?;
                self.recover(writer)?;
            }
            let coming = journal.of_all.announce();
            if writer.is_autocommit() {
                connection::set_sync(writer, Sync::Elsewhere)?;
                writer.execute_batch("BEGIN IMMEDIATE")?;
            }
            let _undo = UndoOnPanic(self, writer);
            let planned = commit::plan_batch(self, writer, batch, &self.unwritten());
            let done = planned.and_then(|planned| self.hold(journal, coming, writer, planned));
            match self.held_commits() {
                0 => self.undo_held(writer),
                // SQLite undoes a transaction by itself where the disk fails.
                1..MAX_HELD_COMMITS if !writer.is_autocommit() && !self.unwritten().is_full() => {}
                _ => drop(self.end_held(writer)),
            }
            done
        })?;
        if let Some(sweep) = Sweep::of(&journal.of_all) {
            match Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(move || sweep.run())),
                Err(_) => sweep.run(),
            }
        }
        Ok(committed)
    }

    /// Writes a commit in the transaction that is open, and makes it durable in the journal. Where that fails, the
    /// transaction is undone.
    fn hold(
        self: &Arc<Self>,
        journal: &OwnJournal,
        coming: Announced<'_>,
        writer: &Connection,
        planned: Planned,
    ) -> Result<Committed, Failure> {
        if !planned.changes_anything(writer, &self.unwritten())? {
            connection::require_sound(writer)?;
            return Ok(planned.into_committed());
        }
        let written = || {
            let plan = planned.write(self, writer, &mut self.unwritten())?;
            let place = standing::count_write(writer)?;
            connection::require_sound(writer)?;
            let sealed = journal.seal(place, &plan.to_record())?;
            let record_bytes = sealed.len();
            journal.of_all.append(coming, journal.entry(place, Some(sealed)))?;
            self.unwritten().count(record_bytes);
            Ok(plan.committed)
        };
        let committed = written().inspect_err(|_: &Failure| self.undo_held(writer))?;
        journal.of_all.watch(&journal.tenant, self);
        if self.held_commits.fetch_add(1, Ordering::AcqRel) == 0 {
            journal.of_all.held.watch(self);
        }
        Ok(committed)
    }

    /// Ends the transaction that is held open; whether there is nothing left to be brought in. An error where the
    /// connection is of no use after what failed: whatever it says next would hide why.
    pub(crate) fn end_held(&self, writer: &Connection) -> Result<bool, Failure> {
        if self.held_commits() == 0 {
            return Ok(true);
        }
        let _undo = UndoOnPanic(self, writer);
        if writer.is_autocommit() || self.is_writer_useless() {
            self.undo_held(writer);
            return Ok(false);
        }
        let unwritten = std::mem::take(&mut *self.unwritten());
        if let Err(failure) = end(writer, unwritten) {
            self.undo_held(writer);
            return if self.is_sound(writer) { Ok(false) } else { Err(failure) };
        }
        self.held_commits.store(0, Ordering::Release);
        self.checkpoint_when_due(writer);
        Ok(true)
    }

    /// Gives the transaction up that is open. What it held is durable in the journal and comes into the file before
    /// anybody reads.
    pub(crate) fn undo_held(&self, writer: &Connection) {
        if self.held_commits() > 0 {
            // First: whoever reads looks for held commits, and then whether the file is behind.
            self.is_behind.store(true, Ordering::Release);
            self.held_commits.store(0, Ordering::Release);
            self.doubt_log();
            self.scopes.forget();
        }
        *self.unwritten() = Unwritten::default();
        if !writer.is_autocommit() {
            // SQLite ends the transaction whatever it answers.
            let _ = writer.execute_batch("ROLLBACK");
        }
    }

    /// Nobody knows what of the log is on the disk: it is brought into the file before anything else is written.
    fn doubt_log(&self) {
        self.is_log_in_doubt.store(true, Ordering::Release);
    }

    /// SQLite would say nothing of a checkpoint whose sync failed, and the next sync would not tell that the log is not
    /// on the disk. So it does none by itself.
    fn checkpoint_when_due(&self, writer: &Connection) {
        let due = u64::from(self.checkpoint_after_pages());
        let moved = connection::log_length(writer).map_err(Failure::from).and_then(|length| {
            if length.unmoved >= due {
                connection::checkpoint(writer, Checkpoint::Passive)
            } else {
                Ok(true)
            }
        });
        if moved.is_err() {
            self.doubt_log();
        }
    }
}

/// Ends a transaction that commits share with what they left unwritten.
pub(crate) fn end(writer: &Connection, unwritten: Unwritten) -> Result<(), Failure> {
    unwritten.write(writer)?;
    connection::require_sound(writer)?;
    Ok(writer.execute_batch("COMMIT")?)
}

/// Whoever panics in the middle of a commit, or of ending the transaction that commits share, leaves nothing of it.
struct UndoOnPanic<'a>(&'a OpenTenant, &'a Connection);

impl Drop for UndoOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.undo_held(self.1);
        }
    }
}

/// Where a record belongs: it opens nowhere else.
fn purpose(file: FileName, write: u64) -> String {
    format!("journal/{}/{write}", data_encoding::HEXLOWER.encode(&file))
}

//! Writes of a tenant beside the journal that all tenants share.
//!
//! A small commit becomes durable in the journal before it ends in the tenant's file, which is not synced for it. Any
//! other write syncs that file, and with it all that was written before; where the journal has something of the tenant,
//! it is brought into the file then, or at least noted that the file has all of it.

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
use crate::journal::{Entry, FileName, Journal, MAX_JOURNALLED_BYTES};
use crate::sync::{commit, standing};
use crate::tenant::{OpenTenant, SqliteTenant, blocking};

/// So many writes of a tenant come between two looks at how long its log is.
const WRITES_BETWEEN_LOOKS: u64 = 16;

/// A tenant's way into the journal that all tenants share.
#[derive(Debug, Clone)]
pub(crate) struct OwnJournal {
    of_all: Arc<Journal>,
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

    /// What the journal has of a file.
    pub fn entries(&self, file: FileName) -> Result<Vec<Entry>, Failure> {
        self.of_all.entries(&self.tenant, file)
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
    /// A durable group commit.
    pub async fn commit_batch(&self, batch: Batch) -> Result<Committed, StoreError> {
        let operation = "commit";
        let takes = self.0.journal.as_ref().is_some_and(|journal| journal.takes(&batch));
        if !takes {
            let write = |tenant: &OpenTenant, transaction: &Transaction<'_>| {
                Ok(commit::plan_batch(tenant, transaction, batch)?
                    .write(tenant, transaction)?
                    .committed)
            };
            return self.write(operation, write).await;
        }
        let tenant = Arc::clone(&self.0);
        let done = blocking(operation, move || tenant.commit_to_journal(batch)).await?;
        done.map_err(|failure| failure.during(operation))
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
            let is_settled = journal.settle(writer).unwrap_or(false);
            let note =
                || journal.of_all.append(journal.of_all.announce(), journal.entry(place, None));
            // The write itself is durable in any case: without its note, the log is cleared before the next one.
            if !is_settled && note().is_err() {
                self.doubt_log();
            }
        }
        self.checkpoint_when_due(writer, place.1);
        Ok(done)
    }

    /// A commit that is durable in the journal before it ends here. Blocks.
    fn commit_to_journal(self: &Arc<Self>, batch: Batch) -> Result<Committed, Failure> {
        let journal = self.journal.as_ref().expect("whoever calls this has looked");
        let committed = self.with_writer(|writer| {
            connection::set_sync(writer, Sync::Elsewhere)?;
            let coming = journal.of_all.announce();
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let plan = commit::plan_batch(self, &transaction, batch)?;
            if !plan.changes_anything(&transaction)? {
                connection::require_sound(&transaction)?;
                transaction.commit()?;
                return Ok(plan.into_committed());
            }
            let plan = plan.write(self, &transaction)?;
            let place = standing::count_write(&transaction)?;
            connection::require_sound(&transaction)?;
            let sealed = journal.seal(place, &plan.to_record())?;
            journal.of_all.append(coming, journal.entry(place, Some(sealed)))?;
            journal.of_all.watch(&journal.tenant, self);
            match transaction.commit() {
                Ok(()) => self.checkpoint_when_due(writer, place.1),
                // It is durable in the journal, so it is a commit; it comes into the file before anybody reads.
                Err(_) => {
                    self.is_behind.store(true, Ordering::Release);
                    self.doubt_log();
                }
            }
            Ok(plan.committed)
        })?;
        if journal.of_all.is_sweep_due() {
            let of_all = Arc::clone(&journal.of_all);
            match Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(move || of_all.sweep())),
                Err(_) => of_all.sweep(),
            }
        }
        Ok(committed)
    }

    /// Nobody knows what of the log is on the disk: it is brought into the file before anything else is written.
    fn doubt_log(&self) {
        self.is_log_in_doubt.store(true, Ordering::Release);
    }

    /// SQLite would say nothing of a checkpoint whose sync failed, and the next sync would not tell that the log is not
    /// on the disk. So it does none by itself.
    fn checkpoint_when_due(&self, writer: &Connection, writes: u64) {
        if !writes.is_multiple_of(WRITES_BETWEEN_LOOKS) {
            return;
        }
        let due = i64::from(self.checkpoint_after_pages());
        let moved = connection::pages_in_log(writer).map_err(Failure::from).and_then(|pages| {
            if pages >= due {
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

/// Where a record belongs: it opens nowhere else.
fn purpose(file: FileName, write: u64) -> String {
    format!("journal/{}/{write}", data_encoding::HEXLOWER.encode(&file))
}

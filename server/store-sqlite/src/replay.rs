//! Bringing what the shared journal has of a tenant into its file, before anything is read from it.
//!
//! The end of a tenant's log was not synced, so a crash may leave any part of it, and SQLite takes the log up to the
//! first place that is not as it was written. What follows that place is in the journal, in order and without a gap; if
//! it is not, the place was damaged otherwise, and that is told.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use farshore_store::StoreError;
use farshore_store::plan::Plan;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::connection::{self, Checkpoint, Sync};
use crate::failure::{Failure, file_error};
use crate::journal::Entry;
use crate::journalled::OwnJournal;
use crate::sync::{commit, standing};

/// The version of the tables from which on a file can have records.
const FIRST_VERSION_WITH_RECORDS: u32 = 2;
/// How long to wait before a log that somebody else uses is tried again.
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

/// What a file lacks that the journal has.
#[derive(Debug, Default)]
pub(crate) struct Missing(Vec<Entry>);

impl Missing {
    /// Whether the file has everything; then its log must be whole.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Compares a file with the journal, and changes neither.
pub(crate) fn missing(writer: &Connection, journal: &OwnJournal) -> Result<Missing, Failure> {
    let version: u32 = writer.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if !journal.has_unsettled() || version < FIRST_VERSION_WITH_RECORDS {
        return Ok(Missing::default());
    }
    let (file, writes) = standing::file(writer)?;
    connection::require_sound(writer)?;
    let entries = journal.entries_after(file, writes)?;
    for (expected, entry) in (writes + 1..).zip(&entries) {
        if entry.write != expected || entry.sealed.is_none() {
            let detail = format!(
                "the file ends with write {writes}, and the journal has no write {expected}, but \
                 later ones"
            );
            return Err(Failure::Damaged(detail));
        }
    }
    Ok(Missing(entries))
}

/// The file of a database beside its connections: made at the first need, and kept until they are closed.
#[derive(Debug, Default, Clone)]
pub(crate) struct DatabaseFile(Arc<OnceLock<File>>);

impl DatabaseFile {
    fn open(&self, path: &Path) -> io::Result<&File> {
        match self.0.get() {
            Some(open) => Ok(open),
            None => {
                let open = File::options().write(true).open(path)?;
                Ok(self.0.get_or_init(|| open))
            }
        }
    }
}

/// Brings a file up to date that is open, after something failed. What is in its log or was moved from there need not be
/// on the disk, and what is behind the log's end, a commit that failed, would be taken for a part of it once the next one
/// has that commit's number.
pub(crate) fn recover(
    writer: &mut Connection,
    path: &Path,
    file: &DatabaseFile,
    journal: Option<&OwnJournal>,
) -> Result<(), Failure> {
    let length = connection::log_length(writer)?;
    let alone = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let rewritten = farshore_log_check::make_durable_to(path, length.frames);
    rewritten.map_err(log_error("write the log again", path))?;
    let moved = length.frames.saturating_sub(length.unmoved);
    let moved_again =
        file.open(path).and_then(|file| farshore_log_check::move_again(file, path, moved));
    moved_again.map_err(log_error("move the log again", path))?;
    alone.rollback()?;
    let Some(journal) = journal else { return Ok(()) };
    let missing = missing(writer, journal)?;
    bring_in(writer, journal, &missing)
}

/// The error of an operation on a log, which may not be what SQLite takes it for.
fn log_error<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> Failure + 'a {
    move |error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Failure::Damaged(format!("{}: its log is not what was written", path.display()))
        }
        _ => file_error(operation, path)(error).into(),
    }
}

/// Waits as long as the connection does for others: a tenant that was open before may be closing still and move its log
/// itself, for which SQLite does not wait: <https://www.sqlite.org/c3ref/wal_checkpoint_v2.html>.
fn clear_log(writer: &Connection) -> Result<(), Failure> {
    let patience_ms: u32 = writer.query_row("PRAGMA busy_timeout", [], |row| row.get(0))?;
    let patience = Duration::from_millis(patience_ms.into());
    let tries = 1 + patience.as_millis() / BETWEEN_TRIES.as_millis();
    writer.busy_timeout(Duration::ZERO)?;
    let mut cleared = Ok(false);
    for _ in 0..tries {
        cleared = connection::checkpoint(writer, Checkpoint::Truncate);
        if !matches!(cleared, Ok(false)) {
            break;
        }
        thread::park_timeout(BETWEEN_TRIES);
    }
    writer.busy_timeout(patience)?;
    if cleared? { Ok(()) } else { Err(in_use()) }
}

fn in_use() -> Failure {
    StoreError::database("apply the journal", "the log is in use, so that it cannot be cleared")
        .into()
}

/// Writes what is missing, durably, and lets the journal forget it.
pub(crate) fn bring_in(
    writer: &mut Connection,
    journal: &OwnJournal,
    missing: &Missing,
) -> Result<(), Failure> {
    // SQLite's own checkpoints would not say that they failed.
    writer.pragma_update(None, "wal_autocheckpoint", 0)?;
    if !journal.has_unsettled() {
        return Ok(());
    }
    if !missing.is_empty() {
        // What is damaged shows before anything is changed.
        write(writer, journal, &missing.0, |transaction| transaction.rollback())?;
        // What lies behind the end of the log must not be taken for a part of it once something is written over it,
        // and what is before its end need not be on the disk.
        clear_log(writer)?;
        write(writer, journal, &missing.0, |transaction| transaction.commit())?;
    }
    let (file, _) = standing::file(writer)?;
    connection::require_sound(writer)?;
    journal.forget_others(file);
    journal.settle(writer)?;
    Ok(())
}

fn write(
    writer: &mut Connection,
    journal: &OwnJournal,
    entries: &[Entry],
    end: impl FnOnce(Transaction<'_>) -> rusqlite::Result<()>,
) -> Result<(), Failure> {
    connection::set_sync(writer, Sync::AtItsEnd)?;
    let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for entry in entries {
        let (_, writes) = standing::file(&transaction)?;
        // Another process may have brought it in meanwhile.
        if entry.write <= writes {
            continue;
        }
        let record = journal.unseal(entry)?;
        let plan = record.and_then(|record| Plan::from_record(&record));
        let write = entry.write;
        let unreadable = || Failure::Damaged(format!("the journal's record of write {write}"));
        commit::write_again(&transaction, &plan.ok_or_else(unreadable)?)?;
        standing::count_write(&transaction)?;
    }
    connection::require_sound(&transaction)?;
    Ok(end(transaction)?)
}

//! One database transaction of the store, with what it remembers until it commits.
//!
//! What the store knows by heart (progress, scopes, devices, totals) is changed together with the tables. It is
//! read anew after a rollback, and after another process has written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use farshore_sync_core::digest::{Buckets, Sum};
use farshore_sync_core::ids::CollectionId;
use rusqlite::{CachedStatement, Connection};

use super::digests::Totals;
use super::documents::{DocumentWork, OpenDocuments};
use super::error::{Failure, StoreError};
use super::layout::Layout;
use super::numbers::{Devices, DevicesIn, ScopeNumber, Scopes};
use super::open;
use super::outbox::ReadTransactions;
use super::progress::Progress;

/// What the writer knows by heart.
#[derive(Debug)]
pub(super) struct Known {
    pub progress: Progress,
    pub devices: Devices,
    pub scopes: Scopes,
    pub totals: Totals,
    /// Whether any row is in `fs_graves`: a first fill need not look there for each row.
    pub has_graves: bool,
    /// SQLite's count of commits by other connections, when this was read.
    data_version: i64,
    /// Whether a transaction is open or was rolled back, so that this may say what the tables do not.
    stale: bool,
}

impl Known {
    pub(super) fn load(connection: &Connection) -> Result<Self, Failure> {
        Ok(Self {
            progress: Progress::load(connection)?,
            devices: Devices::load(connection)?,
            scopes: Scopes::load(connection)?,
            totals: Totals::load(connection)?,
            has_graves: connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM fs_graves)")?
                .query_row([], |row| row.get(0))?,
            data_version: data_version(connection)?,
            stale: false,
        })
    }
}

fn data_version(connection: &Connection) -> Result<i64, Failure> {
    Ok(connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}

/// What a committed transaction changed, for those who watch.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub collections: BTreeSet<CollectionId>,
    pub outbox: bool,
    pub quarantine: bool,
}

/// A database transaction; dropping it rolls it back.
pub(super) struct Tx<'a> {
    pub connection: &'a Connection,
    pub layout: &'a Layout,
    pub known: &'a mut Known,
    pub path: &'a Path,
    pub touched: Touched,
    /// Transactions of the outbox that were read.
    pub read: ReadTransactions,
    pub(super) open_documents: &'a mut OpenDocuments,
    pub(super) work: DocumentWork,
    /// The buckets that this transaction changes.
    pub(super) digests: BTreeMap<(ScopeNumber, CollectionId), Buckets>,
    /// The statement of the last insert of a local row.
    pub(super) at_hand: Option<(CollectionId, CachedStatement<'a>)>,
    progress_before: Progress,
    open: bool,
}

impl<'a> Tx<'a> {
    pub(super) fn begin(
        connection: &'a Connection,
        layout: &'a Layout,
        known: &'a mut Known,
        open_documents: &'a mut OpenDocuments,
        path: &'a Path,
    ) -> Result<Self, Failure> {
        if !connection.is_autocommit() {
            // A panic left it open: SQLite rolls it back, and what is known by heart is stale already.
            connection.execute_batch("ROLLBACK")?;
        }
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        // From here on dropping rolls back.
        let mut tx = Self {
            progress_before: known.progress.clone(),
            connection,
            layout,
            known,
            open_documents,
            work: DocumentWork::default(),
            path,
            touched: Touched::default(),
            read: ReadTransactions::default(),
            digests: BTreeMap::new(),
            at_hand: None,
            open: true,
        };
        let others_wrote = data_version(connection)? != tx.known.data_version;
        if others_wrote {
            tx.open_documents.clear();
        }
        if tx.known.stale || others_wrote {
            *tx.known = Known::load(connection)?;
            tx.progress_before = tx.known.progress.clone();
        }
        tx.known.stale = true;
        Ok(tx)
    }

    pub(super) fn commit(mut self) -> Result<Touched, Failure> {
        self.write_documents()?;
        self.save_digests()?;
        if self.known.progress != self.progress_before {
            self.known.progress.save(self.connection)?;
        }
        self.at_hand = None;
        open::require_sound(self.connection)?;
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.open = false;
        self.known.stale = false;
        self.keep_documents();
        Ok(std::mem::take(&mut self.touched))
    }

    /// A stamp that was given out in this transaction was not used.
    pub(super) fn untick(&mut self) {
        self.known.progress.clock = self.progress_before.clock;
    }

    pub(super) fn fail(&self, failure: Failure) -> StoreError {
        StoreError::new(self.path, failure)
    }

    pub(super) fn devices(&mut self) -> DevicesIn<'_> {
        DevicesIn { devices: &mut self.known.devices, connection: self.connection }
    }

    pub(super) fn touch(&mut self, collection: CollectionId) {
        self.touched.collections.insert(collection);
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        if self.open && !self.connection.is_autocommit() {
            // There is nobody to tell; the next transaction meets the same trouble and says so.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}

/// A sum as SQL stores it.
pub(super) fn sum_to_sql(sum: Sum) -> [u8; 16] {
    sum.0.to_le_bytes()
}

/// The sum that [`sum_to_sql`] wrote.
pub(super) fn sum_from_sql(bytes: [u8; 16]) -> Sum {
    Sum(u128::from_le_bytes(bytes))
}

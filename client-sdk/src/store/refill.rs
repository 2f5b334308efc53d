//! The end of a refill: what becomes of rows that the server did not send again.
//!
//! Below the horizon the server is right: what it did not send was deleted. In a new epoch the server was restored
//! from a backup and may lack what it had confirmed: what is newer here is offered again.

use std::cell::RefCell;
use std::collections::BTreeSet;

use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::ids::{CollectionId, ColumnId, RowId};
use farshore_sync_core::mutation::{Mutation, Op, Transaction};
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::row::RowState;
use farshore_sync_core::wire::limits::PUSH_TARGET_BYTES;
use farshore_sync_core::wire::{Refill, RefusedMutation};
use rusqlite::params;

use super::documents::DocumentKey;
use super::error::Failure;
use super::pending::{Numbers, Pending};
use super::progress::{from_sql, to_sql};
use super::rebase::{Base, Landed};
use super::rows::{RowKey, Stored, decode_state};
use super::transaction::Tx;

/// Mutations of one transaction that offers: where the server refuses one, so many others are sent again.
const OFFERS_PER_TRANSACTION: usize = 100;

/// Rows that one look at a table brings.
const ROWS_PER_LOOK: u32 = 1_000;

/// Offers that are put into transactions of a bounded size.
#[derive(Default)]
struct Offers {
    mutations: Vec<Mutation>,
    bytes: usize,
    grew: bool,
    /// Deleted rows. They are offered last: a deleted row takes no document changes any more.
    graves: Vec<(RowKey, RowState)>,
}

impl Tx<'_> {
    /// What the lost server had of a row. What waits for an answer is sent as it was written: offered as well, it would
    /// have a stamp of its own and win over what replaced it.
    ///
    /// Totals of counters are offered with what waits: the larger total holds, and what waits is sent before the offer.
    /// So are removes from sets: the restored server may lack the add until the offer brings it, which would undo a remove
    /// that came before.
    pub(super) fn held_by_the_lost_server(
        &mut self,
        key: RowKey,
        stored: &Stored,
    ) -> Result<Option<RowState>, Failure> {
        if bugs::planted(Bug::PendingOffered) {
            return Ok(stored.visible.clone());
        }
        let Some(mut held) = stored.base()? else { return Ok(None) };
        let Some(pending) = &stored.head.pending else { return Ok(Some(held)) };
        let Some(now) = self.with_taken(key, Some(held.clone()), &pending.numbers)? else {
            return Ok(Some(held));
        };
        held.counters = now.counters;
        for (column, elements) in &mut held.sets {
            let Some(shown) = now.sets.get(column) else { continue };
            let adds =
                elements.iter_mut().filter_map(|(element, adds)| Some((adds, shown.get(element)?)));
            for (adds, shown) in adds {
                for (device, add) in adds {
                    add.alive &=
                        shown.get(device).is_none_or(|now| now.hlc != add.hlc || now.alive);
                }
            }
        }
        Ok(Some(held))
    }

    /// Starts a refill: what was staged belongs to the time before.
    pub(super) fn begin_refill(&mut self, refill: Refill) -> Result<(), Failure> {
        self.drop_staged()?;
        let first_fill = self.known.progress.fills_progressively();
        // What was lost with an epoch is still to be offered, although the next refill is for another reason.
        if self.known.progress.refill != Refill::NewEpoch {
            self.known.progress.refill = refill;
        }
        self.known.progress.cursor = 0;
        self.known.scopes.all_at(self.connection, Some(0))?;
        if refill == Refill::NewEpoch {
            let rows = self.land_answered(first_fill)?;
            if first_fill {
                self.drop_first_fill(&rows)?;
            }
        }
        Ok(())
    }

    /// What a first fill has brought so far may be parts of transactions: it is no more this device's to offer than
    /// staged pages are. The devices that wrote it have the whole. What this device wrote itself stays.
    fn drop_first_fill(&mut self, own: &BTreeSet<RowKey>) -> Result<(), Failure> {
        for key in own {
            self.see(*key, None)?;
        }
        self.settle_unseen(Refill::BelowHorizon, &mut Offers::default())?;
        self.forget_seen()
    }

    /// What the lost server had answered becomes part of what is known of its rows, although they never came: it
    /// comes back with them, or is offered with them. In a first fill it is all that is known of them.
    fn land_answered(&mut self, first_fill: bool) -> Result<BTreeSet<RowKey>, Failure> {
        let numbers: BTreeSet<u64> = self
            .connection
            .prepare_cached("SELECT number FROM fs_outbox WHERE answered IS NOT NULL")?
            .query_map([], |row| row.get(0).map(from_sql))?
            .collect::<rusqlite::Result<_>>()?;
        let mut rows = BTreeSet::new();
        for number in &numbers {
            rows.extend(self.transaction(*number)?.rows());
        }
        let mut landed = Landed::new(numbers);
        for key in rows.iter().copied() {
            let Some(stored) = self.load(key)? else { continue };
            let Some(pending) = &stored.head.pending else { continue };
            let answered = pending.numbers.filtered(|number| landed.numbers.contains(&number));
            let mut before = self.base_or_offers(key, &stored, &answered)?;
            if first_fill && let Some(before) = &mut before {
                // No transaction has landed before the first fill is complete: those here are the whole total.
                let device = self.known.progress.device;
                for totals in before.counters.values_mut() {
                    totals.remove(&device);
                }
            }
            let Some(mut state) = self.with_taken(key, before, &answered)? else {
                // Nothing is known here of the row, and the lost server had it: another device has it, and will offer it.
                let written = self.overlay(key, Some(RowState::default()), &answered)?;
                self.see(key, written)?;
                continue;
            };
            let scope = self.resolved_scope(key, Some(&state))?.or(stored.head.scope);
            let Some(scope) = scope else { continue };
            if first_fill {
                self.keep_own_cells(key, &mut state);
            }
            let bytes = state.encode();
            let base = Base { scope, state, bytes };
            self.set_base(key, Some(stored.head), Some(base), &mut landed)?;
        }
        self.land(&mut landed)?;
        Ok(rows)
    }

    /// Leaves the cells that this device wrote, and those that say in which scope the row is.
    fn keep_own_cells(&self, key: RowKey, state: &mut RowState) {
        let placing = RefCell::new(BTreeSet::new());
        if let Some(layout) = self.layout.collection(key.0) {
            layout.scope_of(|column| {
                placing.borrow_mut().insert(column);
                state.value(column)
            });
        }
        let (device, placing) = (self.known.progress.device, placing.into_inner());
        state.cells.retain(|cell| cell.stamp.device == device || placing.contains(&cell.column));
    }

    /// The refill brought a row. In a new epoch it is remembered as the lost server had it.
    pub(super) fn note_seen(&mut self, key: RowKey, landed: &mut Landed) -> Result<(), Failure> {
        let before = match self.known.progress.refill {
            Refill::NewEpoch => match landed.departed.remove(&key) {
                Some(before) => Some(before),
                None => match self.load(key)? {
                    Some(stored) => self.held_by_the_lost_server(key, &stored)?,
                    None => None,
                },
            },
            Refill::BelowHorizon | Refill::No => None,
        };
        self.see(key, before)
    }

    /// Notes that the server has sent a row, and as what the lost server had it.
    fn see(&mut self, key: RowKey, before: Option<RowState>) -> Result<(), Failure> {
        let mut statement = self.connection.prepare_cached(
            "INSERT OR IGNORE INTO fs_seen (collection, id, before) VALUES (?1, ?2, ?3)",
        )?;
        statement.execute(params![
            key.0.0,
            key.1.as_bytes(),
            before.map(|state| state.encode())
        ])?;
        Ok(())
    }

    /// A new epoch: every confirmed change has to be seen again before it counts as the server's.
    pub(super) fn age_changes(&mut self) -> Result<(), Failure> {
        let mut statement = self
            .connection
            .prepare_cached("UPDATE fs_chunks SET stale = 1 WHERE number IS NULL")?;
        statement.execute([])?;
        Ok(())
    }

    /// Keeps a refused transaction in the outbox until the end of the refill.
    pub(super) fn postpone(&mut self, number: u64) -> Result<(), Failure> {
        self.connection
            .prepare_cached("UPDATE fs_outbox SET decided = -1 WHERE number = ?1")?
            .execute([to_sql(number)])?;
        Ok(())
    }

    /// Has the document changes of refused transactions offered with what they were made upon, unless the right to
    /// write went meanwhile.
    fn settle_postponed(&mut self, now_ms: u64) -> Result<(), Failure> {
        let numbers: Vec<u64> = self
            .connection
            .prepare_cached(
                "SELECT number FROM fs_outbox WHERE answered IS NULL AND decided = -1 ORDER BY number",
            )?
            .query_map([], |row| row.get(0).map(from_sql))?
            .collect::<rusqlite::Result<_>>()?;
        for number in numbers {
            let read = self.transaction(number)?;
            if !self.may_write_rows_of(&read.transaction)? {
                let refused = RefusedMutation {
                    index: 0,
                    code: ReasonCode::PermissionDenied,
                    message: "the right to write the row went while the restored server was filled"
                        .to_owned(),
                };
                self.quarantine(number, &refused, now_ms)?;
                continue;
            }
            self.connection
                .prepare_cached("UPDATE fs_chunks SET number = NULL, stale = 1 WHERE number = ?1")?
                .execute([to_sql(number)])?;
            self.take_off(number, &mut Landed::new([number].into()))?;
            self.forget_transaction(number)?;
            let progress = &mut self.known.progress;
            progress.unanswered = progress.unanswered.saturating_sub(1);
        }
        Ok(())
    }

    /// Whether this device may write every row that a transaction touches, as far as the rows are known here.
    pub(super) fn may_write_rows_of(&self, transaction: &Transaction) -> Result<bool, Failure> {
        for mutation in &transaction.mutations {
            let head = self.head((mutation.collection, mutation.row))?;
            let scope = head.and_then(|head| head.scope);
            if !scope.is_some_and(|scope| self.known.scopes.may_write(scope)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Settles the rows that did not come again; whether the outbox grew.
    pub(super) fn complete_refill(&mut self, refill: Refill, now_ms: u64) -> Result<bool, Failure> {
        let mut offers = Offers::default();
        if refill == Refill::NewEpoch {
            self.settle_postponed(now_ms)?;
            self.offer_newer_rows(&mut offers)?;
        }
        self.settle_unseen(refill, &mut offers)?;
        if refill == Refill::NewEpoch {
            self.offer_stale_changes(&mut offers)?;
        }
        // In transactions of their own: where another device has offered a deletion first, document changes of the row
        // are refused, and what the grave holds must not be refused with them.
        self.post_offers(&mut offers)?;
        for (key, state) in std::mem::take(&mut offers.graves) {
            self.offer(key, state, &mut offers)?;
        }
        self.post_offers(&mut offers)?;
        self.forget_seen()?;
        Ok(offers.grew)
    }

    fn forget_seen(&mut self) -> Result<(), Failure> {
        self.connection.prepare_cached("DELETE FROM fs_seen")?.execute([])?;
        Ok(())
    }

    /// Rows that came, but older than they were here.
    fn offer_newer_rows(&mut self, offers: &mut Offers) -> Result<(), Failure> {
        let mut after: (u16, Vec<u8>) = (0, Vec::new());
        loop {
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT collection, id, before FROM fs_seen WHERE (collection, id) > (?1, ?2) \
                 AND before IS NOT NULL ORDER BY collection, id LIMIT {ROWS_PER_LOOK}",
            ))?;
            let rows: Vec<(u16, [u8; 16], Vec<u8>)> = statement
                .query_map(params![after.0, after.1], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?
                .collect::<rusqlite::Result<_>>()?;
            drop(statement);
            let Some(last) = rows.last() else { return Ok(()) };
            after = (last.0, last.1.to_vec());
            for (collection, id, before) in rows {
                let key = (CollectionId(collection), RowId::from_bytes(id));
                self.offer_if_newer(key, &decode_state(&before)?, offers)?;
            }
        }
    }

    fn offer_if_newer(
        &mut self,
        key: RowKey,
        before: &RowState,
        offers: &mut Offers,
    ) -> Result<(), Failure> {
        let Some(now) = self.load(key)? else { return Ok(()) };
        let (Some(scope), Some(visible)) = (now.head.scope, &now.visible) else { return Ok(()) };
        if !self.known.scopes.may_write(scope) {
            return Ok(());
        }
        // What waits over the server's values and its word on whether the row lives is not the server's yet, and may be
        // refused. A deletion comes without what the server holds of the row, which may be less than what is known of
        // it here.
        let known = match now.base()? {
            Some(base) => RowState { cells: base.cells, life: base.life, ..visible.clone() },
            None => visible.clone(),
        };
        let mut merged = before.merge(&known);
        // Documents are offered change by change.
        merged.documents = known.documents.clone();
        if merged.is_deleted() {
            offers.graves.push((key, merged));
            return Ok(());
        }
        if merged == known {
            return Ok(());
        }
        self.offer(key, merged, offers)
    }

    /// Rows that did not come at all.
    fn settle_unseen(&mut self, refill: Refill, offers: &mut Offers) -> Result<(), Failure> {
        let layout = self.layout;
        for collection in layout.collections() {
            let sql = format!(
                "SELECT ?1, id FROM \"{}\" AS held WHERE id > ?2 \
                 AND NOT EXISTS (SELECT 1 FROM fs_seen WHERE collection = ?1 AND id = held.id) ORDER BY id LIMIT {ROWS_PER_LOOK}",
                collection.table()
            );
            self.settle_unseen_in(&sql, collection.id.0, refill, offers)?;
        }
        for table in ["fs_unknown", "fs_graves"] {
            let sql = format!(
                "SELECT collection, id FROM {table} AS held WHERE (collection, id) > (?1, ?2) AND NOT EXISTS \
                 (SELECT 1 FROM fs_seen WHERE collection = held.collection AND id = held.id) \
                 ORDER BY collection, id LIMIT {ROWS_PER_LOOK}"
            );
            self.settle_unseen_in(&sql, 0, refill, offers)?;
        }
        Ok(())
    }

    fn settle_unseen_in(
        &mut self,
        sql: &str,
        first: u16,
        refill: Refill,
        offers: &mut Offers,
    ) -> Result<(), Failure> {
        let mut after: (u16, Vec<u8>) = (first, Vec::new());
        loop {
            let mut statement = self.connection.prepare_cached(sql)?;
            let rows: Vec<(u16, [u8; 16])> = statement
                .query_map(params![after.0, after.1], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            drop(statement);
            let Some(last) = rows.last() else { return Ok(()) };
            after = (last.0, last.1.to_vec());
            for (collection, id) in rows {
                self.settle_unseen_row(
                    (CollectionId(collection), RowId::from_bytes(id)),
                    refill,
                    offers,
                )?;
            }
        }
    }

    fn settle_unseen_row(
        &mut self,
        key: RowKey,
        refill: Refill,
        offers: &mut Offers,
    ) -> Result<(), Failure> {
        let Some(stored) = self.load(key)? else { return Ok(()) };
        let on_server = stored.head.pending.as_ref().is_none_or(|pending| pending.base.is_some());
        if !on_server || bugs::planted(Bug::SnapshotMerged) {
            return Ok(());
        }
        // What still waits on the row is not offered with it: the server does without it, or has refused it for the
        // lack of the row.
        let (before, held_in) = (stored.base()?, stored.head.scope);
        self.set_base(key, Some(stored.head), None, &mut Landed::default())?;
        let Some(mut state) = before.filter(|_| refill == Refill::NewEpoch) else { return Ok(()) };
        let scope = match self.layout.collection(key.0) {
            Some(_) => self.resolved_scope(key, Some(&state))?,
            None => held_in,
        };
        if scope.is_some_and(|scope| self.known.scopes.may_write(scope)) {
            state.documents.clear();
            if state.is_deleted() {
                // Somebody who never heard of the deletion may still have the row, and offer it.
                offers.graves.push((key, state));
            } else {
                self.offer(key, state, offers)?;
            }
        }
        Ok(())
    }

    /// Changes that the restored server did not send: offered where this device may write, forgotten elsewhere.
    fn offer_stale_changes(&mut self, offers: &mut Offers) -> Result<(), Failure> {
        let documents: Vec<(u16, [u8; 16], u16)> = self
            .connection
            .prepare_cached(
                "SELECT DISTINCT collection, id, column_id FROM fs_chunks WHERE stale = 1 \
                 ORDER BY collection, id, column_id",
            )?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let mut row_before = None;
        for (collection, id, column) in documents {
            let key = (CollectionId(collection), RowId::from_bytes(id));
            // Changes follow the offers of their rows, and a row that takes none does not keep the others from theirs.
            if row_before.replace(key) != Some(key) {
                self.post_offers(offers)?;
            }
            let document = (key, ColumnId(column));
            let stored = self.load(key)?;
            let scope = stored.as_ref().and_then(|stored| stored.head.scope);
            if scope.is_some_and(|scope| self.known.scopes.may_write(scope)) {
                let base = stored.map(|stored| stored.base()).transpose()?.flatten();
                self.offer_stale_of(document, base.is_some_and(|base| base.is_deleted()), offers)?;
            } else {
                self.connection
                    .prepare_cached(
                        "DELETE FROM fs_chunks WHERE stale = 1 AND collection = ?1 AND id = ?2 AND column_id = ?3",
                    )?
                    .execute(params![collection, id, column])?;
                self.close_document(document);
                self.work_dirty(document);
            }
        }
        Ok(())
    }

    /// A deleted row comes without its changes, and takes only those that it has: which of them that are is not known
    /// here, so that each is offered by itself.
    fn offer_stale_of(
        &mut self,
        document: DocumentKey,
        of_deleted_row: bool,
        offers: &mut Offers,
    ) -> Result<(), Failure> {
        let ((collection, row), column) = document;
        let places: Vec<i64> = self
            .connection
            .prepare_cached(
                "SELECT place FROM fs_chunks \
                 WHERE collection = ?1 AND id = ?2 AND column_id = ?3 AND stale = 1 ORDER BY place",
            )?
            .query_map(params![collection.0, row.as_bytes(), column.0], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        self.work_dirty(document);
        for place in places {
            let key = params![collection.0, row.as_bytes(), column.0, place];
            let change: Vec<u8> = self
                .connection
                .prepare_cached(
                    "SELECT bytes FROM fs_chunks \
                     WHERE collection = ?1 AND id = ?2 AND column_id = ?3 AND place = ?4",
                )?
                .query_row(key, |row| row.get(0))?;
            let size = change.len();
            self.push_offer(
                Mutation { collection, row, op: Op::Document { column, change } },
                size,
                offers,
            )?;
            let mut statement = self.connection.prepare_cached(
                "UPDATE fs_chunks SET number = ?5, stale = 0 \
                 WHERE collection = ?1 AND id = ?2 AND column_id = ?3 AND place = ?4",
            )?;
            // The number that the transaction under way will have.
            let number = to_sql(self.known.progress.next_number);
            statement.execute(params![collection.0, row.as_bytes(), column.0, place, number])?;
            drop(statement);
            if of_deleted_row {
                self.post_offers(offers)?;
            }
        }
        Ok(())
    }

    /// Offers rows once more that were refused with another one.
    pub(super) fn offer_again(&mut self, mutations: Vec<Mutation>) -> Result<(), Failure> {
        self.post_offers(&mut Offers { mutations, ..Offers::default() })
    }

    fn offer(
        &mut self,
        (collection, row): RowKey,
        state: RowState,
        offers: &mut Offers,
    ) -> Result<(), Failure> {
        let size = state.encode().len();
        let op = Op::Offer { state: Box::new(state) };
        self.push_offer(Mutation { collection, row, op }, size, offers)
    }

    fn push_offer(
        &mut self,
        mutation: Mutation,
        size: usize,
        offers: &mut Offers,
    ) -> Result<(), Failure> {
        let full = offers.mutations.len() >= OFFERS_PER_TRANSACTION
            || offers.bytes + size > PUSH_TARGET_BYTES;
        if full {
            self.post_offers(offers)?;
        }
        offers.bytes += size;
        offers.mutations.push(mutation);
        Ok(())
    }

    /// Makes a transaction of what was gathered, and lays it over its rows.
    fn post_offers(&mut self, offers: &mut Offers) -> Result<(), Failure> {
        if bugs::planted(Bug::NothingOffered) {
            offers.mutations.clear();
        }
        if offers.mutations.is_empty() {
            return Ok(());
        }
        let progress = &mut self.known.progress;
        let number = progress.next_number;
        progress.next_number += 1;
        // The wall clock does not matter: an offer keeps the stamps of what it offers.
        let stamp = progress.clock.tick(0);
        let mutations = std::mem::take(&mut offers.mutations);
        offers.bytes = 0;
        offers.grew = true;
        self.post(number, &Transaction { number, stamp, mutations }.encode())?;
        let read = self.transaction(number)?;
        for key in read.rows() {
            let stored = self.load(key)?;
            let was_in = stored.as_ref().map(|stored| stored.head.place);
            let (head, visible) =
                stored.map_or((None, None), |stored| (Some(stored.head), stored.visible));
            let (scope, sum) = head.as_ref().map_or((None, None), |head| (head.scope, head.sum));
            let mut pending = head.and_then(|head| head.pending).unwrap_or_else(|| Pending {
                numbers: Numbers::default(),
                base: visible.as_ref().map(RowState::encode),
            });
            pending.numbers.add(number);
            let visible = self.overlay(key, visible, &Numbers::one(number))?;
            let scope = match scope {
                Some(scope) => Some(scope),
                None => self.resolved_scope(key, visible.as_ref())?,
            };
            self.save(key, was_in, scope, sum, Some(&pending), visible.as_ref())?;
        }
        Ok(())
    }
}

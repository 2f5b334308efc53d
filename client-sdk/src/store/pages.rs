//! Pages: applied at once, or staged until the checkpoint that makes them whole.

use std::collections::{HashMap, HashSet};

use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::digest::row_sum;
use farshore_sync_core::hlc::{Hlc, Stamp};
use farshore_sync_core::replica::Checked;
use farshore_sync_core::row::{Life, RowState};
use farshore_sync_core::wire::{Checkpoint, ChunkEntry, Page, Refill, RowEntry, RowPayload};

use super::error::Failure;
use super::numbers::ScopeNumber;
use super::progress::to_sql;
use super::rebase::{Base, Landed};
use super::rows::RowKey;
use super::transaction::Tx;

/// What storing a page led to.
#[derive(Debug, Default)]
pub(super) struct PageStored {
    pub checkpoint: Option<Checked>,
    pub outbox_grew: bool,
}

impl Tx<'_> {
    /// Applies or stages a page.
    pub(super) fn page(&mut self, page: &Page, now_ms: u64) -> Result<PageStored, Failure> {
        match page.checkpoint {
            Some(checkpoint) => self.checkpoint_page(page, checkpoint, now_ms),
            None => {
                let progressively = self.known.progress.fills_progressively()
                    || bugs::planted(Bug::StagedPagesShown);
                if progressively {
                    self.apply_page(&page.rows, &page.chunks, &mut Landed::default())?;
                } else {
                    self.stage(page)?;
                }
                for update in &page.positions {
                    in_63_bits(update.seq)?;
                    let (scopes, index) = (&mut self.known.scopes, update.scope.into());
                    if progressively {
                        scopes.applied_to(self.connection, index, update.seq)?;
                    } else {
                        scopes.staged_to(self.connection, index, update.seq)?;
                    }
                }
                Ok(PageStored::default())
            }
        }
    }

    fn stage(&mut self, page: &Page) -> Result<(), Failure> {
        let bytes = minicbor::to_vec(page).expect("writing to memory cannot fail");
        let place = self.known.progress.staged;
        let mut statement = self
            .connection
            .prepare_cached("INSERT INTO fs_staged (place, page) VALUES (?1, ?2)")?;
        statement.execute(rusqlite::params![to_sql(place), bytes])?;
        self.known.progress.staged += 1;
        Ok(())
    }

    /// Drops staged pages: nothing of them was ever visible.
    pub(super) fn drop_staged(&mut self) -> Result<(), Failure> {
        if self.known.progress.staged > 0 {
            self.connection.prepare_cached("DELETE FROM fs_staged")?.execute([])?;
            self.known.progress.staged = 0;
        }
        Ok(())
    }

    fn checkpoint_page(
        &mut self,
        page: &Page,
        checkpoint: Checkpoint,
        now_ms: u64,
    ) -> Result<PageStored, Failure> {
        in_63_bits(checkpoint.seq)?;
        let refill = self.known.progress.refill;
        if refill == Refill::NewEpoch {
            self.age_changes()?;
        }
        let mut landed = Landed::new(self.landed_by(checkpoint.seq)?);
        if bugs::planted(Bug::CursorBeforeRows) {
            self.drop_staged()?;
        }
        for place in 0..self.known.progress.staged {
            let staged = self.staged(place)?;
            self.apply_page(&staged.rows, &staged.chunks, &mut landed)?;
        }
        self.apply_page(&page.rows, &page.chunks, &mut landed)?;
        self.land(&mut landed)?;
        self.let_go(&landed)?;
        let outbox_grew = match refill {
            Refill::No => false,
            Refill::BelowHorizon | Refill::NewEpoch => self.complete_refill(refill, now_ms)?,
        };
        self.drop_staged()?;
        self.sweep_graves()?;
        self.known.scopes.all_at(self.connection, None)?;
        let progress = &mut self.known.progress;
        progress.cursor = checkpoint.seq;
        progress.filled = true;
        progress.refill = Refill::No;
        self.save_digests()?;
        let in_step = self.known.totals.root(&self.known.scopes) == checkpoint.root;
        Ok(PageStored { checkpoint: Some(Checked { seq: checkpoint.seq, in_step }), outbox_grew })
    }

    fn staged(&self, place: u64) -> Result<Page, Failure> {
        let mut statement =
            self.connection.prepare_cached("SELECT page FROM fs_staged WHERE place = ?1")?;
        let bytes: Vec<u8> = statement.query_row([to_sql(place)], |row| row.get(0))?;
        minicbor::decode(&bytes)
            .map_err(|error| Failure::damaged(format!("a staged page: {error}")))
    }

    /// Applies rows in their order, each after its document changes: its state counts them as the server's.
    ///
    /// The changes come right before their row, not all at first: where a row left one scope and came into another
    /// in the same page, leaving takes the changes away and coming brings them.
    pub(super) fn apply_page(
        &mut self,
        rows: &[RowEntry],
        chunks: &[ChunkEntry],
        landed: &mut Landed,
    ) -> Result<(), Failure> {
        let mut by_row: HashMap<RowKey, Vec<&ChunkEntry>> = HashMap::new();
        for chunk in chunks {
            by_row.entry((chunk.collection, chunk.row)).or_default().push(chunk);
        }
        let stated: HashSet<RowKey> = rows
            .iter()
            .filter(|entry| matches!(entry.payload, RowPayload::State(_)))
            .map(|entry| (entry.collection, entry.row))
            .collect();
        for chunk in chunks.iter().filter(|chunk| !stated.contains(&(chunk.collection, chunk.row)))
        {
            self.add_server_change(chunk)?;
        }
        for entry in rows {
            let changes = by_row.get(&(entry.collection, entry.row)).into_iter().flatten();
            for chunk in changes.filter(|_| matches!(entry.payload, RowPayload::State(_))) {
                self.add_server_change(chunk)?;
            }
            self.apply_entry(entry, landed)?;
        }
        Ok(())
    }

    /// Applies what the server says of one row.
    fn apply_entry(&mut self, entry: &RowEntry, landed: &mut Landed) -> Result<(), Failure> {
        let granted = self.known.scopes.granted().get(usize::from(entry.scope));
        let scope = granted
            .ok_or_else(|| Failure::protocol("a row in a scope that is not granted"))?
            .number;
        let key = (entry.collection, entry.row);
        if self.known.progress.refill != Refill::No && entry.payload != RowPayload::Departed {
            self.note_seen(key, landed)?;
        }
        match &entry.payload {
            RowPayload::State(bytes) => self.apply_state(key, scope, bytes, landed),
            RowPayload::Deleted(stamp) => self.apply_deletion(key, scope, *stamp, landed),
            RowPayload::Departed => self.apply_departure(key, scope, landed),
        }
    }

    fn apply_state(
        &mut self,
        key: RowKey,
        scope: ScopeNumber,
        bytes: &[u8],
        landed: &mut Landed,
    ) -> Result<(), Failure> {
        let mut state =
            RowState::decode(bytes).map_err(|error| Failure::protocol(error.to_string()))?;
        if let (true, Some(layout)) =
            (bugs::planted(Bug::UnknownColumnsDropped), self.layout.collection(key.0))
        {
            state.cells.retain(|cell| {
                layout.columns.iter().any(|known| known.id == cell.column && known.in_app)
            });
        }
        self.observe(&state);
        let base = Base { scope, state, bytes: bytes.to_vec() };
        if self.known.progress.fills_progressively() && self.insert_new(key, &base)? {
            return Ok(());
        }
        let head = self.head(key)?;
        // Where pages were staged the row may come again, deleted.
        let waits = head.as_ref().is_some_and(|head| head.pending.is_some());
        if waits && self.known.progress.staged > 0 {
            self.hold(key, landed)?;
        }
        self.set_base(key, head, Some(base), landed)
    }

    /// Remembers what is held of a row until the checkpoint is complete.
    fn hold(&mut self, key: RowKey, landed: &mut Landed) -> Result<(), Failure> {
        let Some(stored) = self.load(key)? else { return Ok(()) };
        let state = self.with_answered(key, &stored)?;
        if let Some(state) = state {
            landed.held.entry(key).or_insert(state);
        }
        Ok(())
    }

    /// The checkpoint is complete: what was held of rows that came neither again nor as deleted goes.
    fn let_go(&mut self, landed: &Landed) -> Result<(), Failure> {
        for key in landed.held.keys() {
            let base = match self.load(*key)? {
                Some(stored) => stored.base()?,
                None => None,
            };
            if base.is_none() {
                self.forget_confirmed_changes(*key)?;
            }
        }
        Ok(())
    }

    /// Inserts a row that nothing is known of; `false` where something is, or might be.
    fn insert_new(&mut self, key: RowKey, base: &Base) -> Result<bool, Failure> {
        let layout = self.layout;
        let Some(layout) = layout.collection(key.0) else { return Ok(false) };
        if self.known.has_graves || base.state.is_deleted() {
            return Ok(false);
        }
        let digest_key = self.known.progress.digest_key();
        let sum = row_sum(&digest_key, key.0, key.1, &base.bytes);
        let inserted = self.insert_state(layout, key.1, base.scope, sum, &base.state)?;
        if inserted {
            self.recount(key, None, Some((base.scope, sum)))?;
        }
        Ok(inserted)
    }

    /// A row was deleted. What this device has of it stays in its grave, so that it can be restored.
    fn apply_deletion(
        &mut self,
        key: RowKey,
        scope: ScopeNumber,
        stamp: Stamp,
        landed: &mut Landed,
    ) -> Result<(), Failure> {
        let (stored, held) = (self.load(key)?, landed.held.remove(&key));
        if stored.is_none() && held.is_none() {
            return Ok(());
        }
        self.observe_hlc(stamp.hlc);
        // The server sends no values of a deleted row: what answered transactions made of them is known here alone,
        // and a restore has to find it.
        let (known, has_come) = match &stored {
            Some(stored) => (self.with_answered(key, stored)?, stored.base()?.is_some()),
            None => (None, false),
        };
        let mut state = match (known, held) {
            (Some(known), Some(held)) => {
                let documents = if has_come { &known.documents } else { &held.documents };
                RowState { documents: documents.clone(), ..known.merge(&held) }
            }
            (known, held) => known.or(held).unwrap_or_default(),
        };
        state.life = Some(Life { stamp, deleted: true });
        let bytes = state.encode();
        let head = stored.map(|stored| stored.head);
        let waits = head.as_ref().and_then(|head| head.pending.as_ref());
        let waits = waits.map(|pending| pending.numbers.clone()).unwrap_or_default();
        let unanswered = self.unanswered_on(&waits)?;
        let mut numbers = landed.numbers.clone();
        numbers.extend(waits.iter().filter(|number| !unanswered.contains(number)));
        let base = Some(Base { scope, state, bytes });
        self.set_base(key, head, base, &mut Landed::new(numbers))
    }

    /// A row left a scope. Where a newer entry has put it into another scope already, that one holds.
    fn apply_departure(
        &mut self,
        key: RowKey,
        scope: ScopeNumber,
        landed: &mut Landed,
    ) -> Result<(), Failure> {
        let Some(stored) = self.load(key)? else { return Ok(()) };
        let pending = stored.head.pending.as_ref();
        let on_server = pending.is_none_or(|pending| pending.base.is_some());
        if !on_server || stored.head.scope != Some(scope) {
            return Ok(());
        }
        if self.known.progress.refill == Refill::NewEpoch
            && let Some(before) = self.held_by_the_lost_server(key, &stored)?
        {
            landed.departed.insert(key, before);
        }
        self.hold(key, landed)?;
        self.set_base(key, Some(stored.head), None, landed)
    }

    /// The next local write has to be later than what it is written over.
    fn observe(&mut self, state: &RowState) {
        if let Some(latest) = state.latest_hlc() {
            self.observe_hlc(latest);
        }
    }

    fn observe_hlc(&mut self, hlc: Hlc) {
        if bugs::planted(Bug::ClockNotObserved) {
            return;
        }
        let progress = &mut self.known.progress;
        progress.seen = progress.seen.max(hlc);
        progress.clock.observe(hlc);
    }
}

/// SQLite counts to 63 bits; a server that has more has gone wrong.
pub(super) fn in_63_bits(seq: u64) -> Result<(), Failure> {
    match i64::try_from(seq) {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::protocol("a seq beyond 63 bits")),
    }
}

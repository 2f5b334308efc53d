//! The server's state of a row, and the pending transactions over it.
//!
//! What the app sees is the server's state with every pending transaction applied again, in the order of their
//! numbers. One that no longer applies (its row was deleted, say) is passed over: the server will refuse it.

use std::collections::{BTreeSet, HashMap, HashSet};

use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::digest::row_sum;
use farshore_sync_core::document::ChangeHash;
use farshore_sync_core::hlc::Stamp;
use farshore_sync_core::ids::ColumnId;
use farshore_sync_core::mutation::Op;
use farshore_sync_core::row::{ApplyError, RowState};

use super::error::Failure;
use super::numbers::ScopeNumber;
use super::pending::{Numbers, Pending};
use super::progress::to_sql;
use super::rows::{Head, RowKey, Stored};
use super::transaction::Tx;

/// What an operation makes of a row.
type Apply = fn(Option<RowState>, Op, Stamp, Option<&ChangeHash>) -> Result<RowState, ApplyError>;

/// The server's state of a row.
#[derive(Debug)]
pub(super) struct Base {
    pub scope: ScopeNumber,
    pub state: RowState,
    /// Its canonical bytes.
    pub bytes: Vec<u8>,
}

/// The transactions whose outcome the server's state holds by now.
#[derive(Debug, Default)]
pub(super) struct Landed {
    pub numbers: BTreeSet<u64>,
    /// Rows that were laid anew without them.
    rows: HashSet<RowKey>,
    /// What the lost server had of rows that left a scope in a new epoch: they may come again in another one.
    pub departed: HashMap<RowKey, RowState>,
    /// What was held of rows before they left a scope, or came without what landed on them: they may be deleted
    /// further on in the same checkpoint, and of a deleted row the server sends no values. Their document changes stay
    /// until then as well.
    pub held: HashMap<RowKey, RowState>,
}

impl Landed {
    pub(super) fn new(numbers: BTreeSet<u64>) -> Self {
        Self { numbers, ..Self::default() }
    }
}

impl Tx<'_> {
    /// Takes over what the server says of a row (`None`: it has none for this device), and lays what is pending
    /// over it. `head` is what is kept of the row now.
    pub(super) fn set_base(
        &mut self,
        key: RowKey,
        head: Option<Head>,
        base: Option<Base>,
        landed: &mut Landed,
    ) -> Result<(), Failure> {
        let sum = base.as_ref().filter(|base| !base.state.is_deleted()).map(|base| {
            (base.scope, row_sum(&self.known.progress.digest_key(), key.0, key.1, &base.bytes))
        });
        self.recount(key, head.as_ref().and_then(Head::counted), sum)?;
        if base.is_none() && !landed.held.contains_key(&key) {
            self.forget_confirmed_changes(key)?;
        }
        let was_in = head.as_ref().map(|head| head.place);
        let waiting =
            head.and_then(|head| head.pending).map(|pending| pending.numbers).unwrap_or_default();
        let numbers = waiting.filtered(|number| {
            !landed.numbers.contains(&number) && !bugs::planted(Bug::PendingNotKept)
        });
        if numbers != waiting {
            landed.rows.insert(key);
        }
        let (scope, state, bytes) = base.map_or((None, None, None), |base| {
            (Some(base.scope), Some(base.state), Some(base.bytes))
        });
        let pending = (!numbers.is_empty()).then_some(Pending { numbers, base: bytes });
        let visible = match &pending {
            None => state,
            Some(pending) => self.overlay(key, state, &pending.numbers)?,
        };
        let scope = match scope {
            Some(scope) => Some(scope),
            None => self.resolved_scope(key, visible.as_ref())?,
        };
        self.save(key, was_in, scope, sum.map(|(_, sum)| sum), pending.as_ref(), visible.as_ref())
    }

    /// The state with what the transactions do to it.
    pub(super) fn overlay(
        &mut self,
        key: RowKey,
        state: Option<RowState>,
        numbers: &Numbers,
    ) -> Result<Option<RowState>, Failure> {
        self.lay_over(key, state, numbers, RowState::apply)
    }

    /// The state with what the server has done to it by transactions that it took.
    pub(super) fn with_taken(
        &mut self,
        key: RowKey,
        state: Option<RowState>,
        numbers: &Numbers,
    ) -> Result<Option<RowState>, Failure> {
        self.lay_over(key, state, numbers, apply_taken)
    }

    fn lay_over(
        &mut self,
        key: RowKey,
        mut state: Option<RowState>,
        numbers: &Numbers,
        apply: Apply,
    ) -> Result<Option<RowState>, Failure> {
        for number in numbers.iter() {
            let read = self.transaction(number)?;
            let stamp = self.stamp_of(&read);
            let edits = read.of_row(key).any(|mutation| matches!(mutation.op, Op::Document { .. }));
            let mut changes = if edits { self.pending_changes(number, key)? } else { Vec::new() };
            let of_set = |op: &Op| matches!(op, Op::SetAdd { .. } | Op::SetRemove { .. });
            let sets = read.of_row(key).any(|mutation| of_set(&mutation.op));
            let before = if sets { state.clone() } else { None };
            for mutation in read.of_row(key) {
                let new_change = match &mutation.op {
                    Op::Document { column, .. } => take_change(&mut changes, *column),
                    _ => None,
                };
                let op = mutation.op.clone();
                let op = match &before {
                    Some(before) => before.not_done_yet(op, stamp),
                    None => op,
                };
                let applied = apply(state.clone(), op, stamp, new_change.as_ref());
                if let Ok(changed) = applied {
                    state = Some(changed);
                }
            }
        }
        Ok(state)
    }

    /// Takes transactions out of the pending lists of the rows that they touch, and lays those rows anew.
    pub(super) fn take_off(&mut self, number: u64, landed: &mut Landed) -> Result<(), Failure> {
        let read = self.transaction(number)?;
        for key in read.rows() {
            if landed.rows.contains(&key) {
                continue;
            }
            let waits = self.head(key)?.and_then(|head| head.pending);
            if waits.is_some_and(|pending| pending.numbers.contains(number)) {
                self.lay_anew(key, landed)?;
            }
        }
        Ok(())
    }

    /// Lays all rows anew that a transaction touches.
    pub(super) fn lay_all_anew(&mut self, number: u64) -> Result<(), Failure> {
        for key in self.transaction(number)?.rows() {
            self.lay_anew(key, &mut Landed::default())?;
        }
        Ok(())
    }

    /// Lays the pending transactions that have not landed over the server's state once more.
    pub(super) fn lay_anew(&mut self, key: RowKey, landed: &mut Landed) -> Result<(), Failure> {
        let Some(stored) = self.load(key)? else { return Ok(()) };
        let base = self.base_of(&stored)?;
        self.set_base(key, Some(stored.head), base, landed)
    }

    /// The server's state of a stored row.
    pub(super) fn base_of(&self, stored: &Stored) -> Result<Option<Base>, Failure> {
        let Some(state) = stored.base()? else { return Ok(None) };
        let scope = stored
            .head
            .scope
            .ok_or_else(|| Failure::damaged("a row of the server without a scope"))?;
        let bytes = state.encode();
        Ok(Some(Base { scope, state, bytes }))
    }

    /// The scope that a row would be in by its own columns.
    pub(super) fn resolved_scope(
        &mut self,
        key: RowKey,
        visible: Option<&RowState>,
    ) -> Result<Option<ScopeNumber>, Failure> {
        let layout = self.layout;
        let Some((layout, state)) = layout.collection(key.0).zip(visible) else { return Ok(None) };
        match layout.scope_of(|column| state.value(column)) {
            Some(scope) => self.known.scopes.number_of(self.connection, &scope).map(Some),
            None => Ok(None),
        }
    }

    /// The transactions have landed: rows no longer wait for them, and answered ones leave the outbox.
    pub(super) fn land(&mut self, landed: &mut Landed) -> Result<(), Failure> {
        for number in landed.numbers.clone() {
            let answered: bool = self
                .connection
                .prepare_cached("SELECT answered IS NOT NULL FROM fs_outbox WHERE number = ?1")?
                .query_row([to_sql(number)], |row| row.get(0))?;
            if answered {
                self.keep_in_graves(number, landed)?;
            }
            self.take_off(number, landed)?;
            if answered {
                self.confirm_changes(number)?;
                self.forget_transaction(number)?;
            } else {
                // What became of it is in the server's state; whether it was refused, its answer will say.
                let mut statement = self
                    .connection
                    .prepare_cached("UPDATE fs_outbox SET decided = 0 WHERE number = ?1")?;
                statement.execute([to_sql(number)])?;
            }
        }
        Ok(())
    }

    /// What the server took of a deleted row it does not send back: it stays in the row's grave.
    fn keep_in_graves(&mut self, number: u64, landed: &mut Landed) -> Result<(), Failure> {
        if !self.known.has_graves {
            return Ok(());
        }
        for key in self.transaction(number)?.rows() {
            if landed.rows.contains(&key) {
                continue;
            }
            let Some(stored) = self.load(key)? else { continue };
            let Some(pending) = stored.head.pending.as_ref() else { continue };
            let lands = pending
                .numbers
                .filtered(|lands| lands <= number && landed.numbers.contains(&lands));
            let base = self.base_of(&stored)?.filter(|base| base.state.is_deleted());
            let Some(base) = base.filter(|_| lands.contains(number)) else { continue };
            let Some(state) = self.overlay(key, Some(base.state), &lands)? else { continue };
            if state.is_deleted() {
                let bytes = state.encode();
                let base = Base { scope: base.scope, state, bytes };
                let up_to_here = lands.iter().collect();
                self.set_base(key, Some(stored.head), Some(base), &mut Landed::new(up_to_here))?;
            }
        }
        Ok(())
    }

    /// The server's state of a row with the answered transactions that wait on it.
    pub(super) fn with_answered(
        &mut self,
        key: RowKey,
        stored: &Stored,
    ) -> Result<Option<RowState>, Failure> {
        let pending = stored.head.pending.as_ref();
        let pending = pending.map(|pending| pending.numbers.clone()).unwrap_or_default();
        let unanswered = self.unanswered_on(&pending)?;
        let answered = pending.filtered(|number| !unanswered.contains(&number));
        let base = self.base_or_offers(key, stored, &pending)?;
        self.with_taken(key, base, &answered)
    }

    /// The server's state of a row. Where the row never came, what these transactions offer of it stands for that:
    /// whatever the server took of the row before, it took upon the same from another device.
    pub(super) fn base_or_offers(
        &mut self,
        key: RowKey,
        stored: &Stored,
        numbers: &Numbers,
    ) -> Result<Option<RowState>, Failure> {
        match stored.base()? {
            Some(base) => Ok(Some(base)),
            None => {
                let offers = self.offers_among(key, numbers)?;
                self.overlay(key, None, &offers)
            }
        }
    }

    /// The transactions that offer a row.
    fn offers_among(&mut self, key: RowKey, numbers: &Numbers) -> Result<Numbers, Failure> {
        let mut offers = Numbers::default();
        for number in numbers.iter() {
            let read = self.transaction(number)?;
            if read.of_row(key).any(|mutation| matches!(mutation.op, Op::Offer { .. })) {
                offers.add(number);
            }
        }
        Ok(offers)
    }

    /// Removes an answered transaction from the outbox.
    pub(super) fn forget_transaction(&mut self, number: u64) -> Result<(), Failure> {
        self.connection
            .prepare_cached("DELETE FROM fs_outbox WHERE number = ?1")?
            .execute([to_sql(number)])?;
        self.known.progress.unconfirmed = self.known.progress.unconfirmed.saturating_sub(1);
        self.touched.outbox = true;
        Ok(())
    }
}

/// Like [`RowState::apply`], of what the server took. Where the row is deleted for all that is known here, it was not
/// there: another device had brought it back.
fn apply_taken(
    row: Option<RowState>,
    op: Op,
    stamp: Stamp,
    new_change: Option<&ChangeHash>,
) -> Result<RowState, ApplyError> {
    let buried = match (&row, &op) {
        (_, Op::Delete | Op::Restore | Op::Offer { .. }) => None,
        (row, _) => row.as_ref().and_then(|row| row.life).filter(|life| life.deleted),
    };
    let Some(life) = buried else { return RowState::apply(row, op, stamp, new_change) };
    let living = row.map(|row| RowState { life: None, ..row });
    let changed = RowState::apply(living, op, stamp, new_change)?;
    Ok(RowState { life: Some(life), ..changed })
}

/// One of the changes of a document. Which one goes with which mutation does not matter: a summary is a sum.
fn take_change(changes: &mut Vec<(ColumnId, ChangeHash)>, column: ColumnId) -> Option<ChangeHash> {
    let at = changes.iter().position(|(of, _)| *of == column)?;
    Some(changes.swap_remove(at).1)
}

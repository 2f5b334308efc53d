//! What apps did in a run, as they saw it: what each transaction wrote, over what, and what became of it.

use std::collections::{BTreeMap, BTreeSet};

use farshore_client::store::ColumnValue;
use farshore_sync_core::ids::{RowId, Scope};
use farshore_sync_core::value::Value;

use crate::causal::Read;
use crate::shape::{SITE_COLUMN, site_scope};

/// A row: the name of its collection and its id.
pub type RowKey = (String, RowId);
/// A column of a row.
pub type Cell = (RowKey, String);
/// What a device shows: its live rows.
pub type View = BTreeMap<RowKey, BTreeMap<String, ColumnValue>>;

/// One thing that a transaction did.
#[derive(Debug, Clone, PartialEq)]
pub enum Deed {
    /// Made a row.
    Insert {
        /// Which.
        row: RowKey,
        /// In which scope.
        scope: Scope,
    },
    /// Deleted a row.
    Delete {
        /// Which.
        row: RowKey,
    },
    /// Brought a deleted row back.
    Restore {
        /// Which.
        row: RowKey,
    },
    /// Wrote a scalar.
    Write {
        /// Where.
        cell: Cell,
        /// What.
        value: Value,
        /// What was there, as far as this device saw.
        over: Option<Value>,
    },
    /// Added to a counter.
    Add {
        /// Where.
        cell: Cell,
        /// How much.
        delta: i64,
    },
    /// Added an element to a set; it is added once in a run.
    SetAdd {
        /// Where.
        cell: Cell,
        /// What.
        element: Value,
    },
    /// Removed an element that it saw.
    SetRemove {
        /// Where.
        cell: Cell,
        /// What.
        element: Value,
    },
    /// Typed a word that nobody else types.
    Type {
        /// Where.
        cell: Cell,
        /// What.
        word: String,
    },
}

impl Deed {
    /// The row that it is about.
    #[must_use]
    pub const fn row(&self) -> &RowKey {
        match self {
            Self::Insert { row, .. } | Self::Delete { row } | Self::Restore { row } => row,
            Self::Write { cell, .. }
            | Self::Add { cell, .. }
            | Self::SetAdd { cell, .. }
            | Self::SetRemove { cell, .. }
            | Self::Type { cell, .. } => &cell.0,
        }
    }
}

/// One transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Transaction {
    /// The device that made it.
    pub device: usize,
    /// Its number on that device.
    pub number: u64,
    /// What it did, in order.
    pub deeds: Vec<Deed>,
    /// What became of it.
    pub fate: Fate,
    /// What it read, in runs that judge causal consistency.
    pub read: Option<Read>,
    /// Whether its stamp was ahead of the server's clock, so that the time at which it came counts.
    pub ahead: bool,
    /// Whether it waited for its answer when the server was lost, or was written before its device heard of that, so that
    /// it came to the restored one over what that lacked.
    pub resent: bool,
    /// Whether the app sent it once more after it had been refused: it was written then.
    pub resubmitted: bool,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Fate {
    /// The device says that the server has it.
    #[default]
    Accepted,
    /// The device says that it was refused.
    Refused,
    /// The device gave it up without knowing whether the server had it already.
    Doubtful,
}

/// What the apps of one tenant did.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Every transaction that a store took, in the order in which they were made.
    pub transactions: Vec<Transaction>,
    /// Whether the server was restored from a backup. Of a row that was deleted then, what it held is kept only as
    /// far as the devices know it.
    pub restored: bool,
    /// Rows that a device offered to a restored server and that it refused, for a schema that it had not yet when the
    /// backup was taken, say: they wait in a quarantine, of which the app is told. And rows that a device could not offer,
    /// because they were moved to where it may not write.
    pub set_aside: BTreeSet<RowKey>,
}

impl History {
    /// The history of the rows that nobody had to set aside.
    #[must_use]
    pub fn without_set_aside(&self) -> Self {
        let mut rest = self.clone();
        for made in &mut rest.transactions {
            made.deeds.retain(|deed| !self.set_aside.contains(deed.row()));
        }
        rest
    }

    /// The rows that were moved to where somebody who wrote to them may not write.
    pub fn moved_out_of_reach(&self, may: impl Fn(usize, &Scope) -> bool) -> BTreeSet<RowKey> {
        let mut writers: BTreeMap<&RowKey, BTreeSet<usize>> = BTreeMap::new();
        let counted = || self.transactions.iter().filter(|made| made.fate != Fate::Refused);
        for made in counted() {
            for deed in &made.deeds {
                writers.entry(deed.row()).or_default().insert(made.device);
            }
        }
        let moved = counted().flat_map(|made| &made.deeds).filter_map(|deed| match deed {
            Deed::Write { cell: (row, column), value: Value::Text(site), .. }
                if column == SITE_COLUMN =>
            {
                Some((row, site_scope(site)))
            }
            _ => None,
        });
        let out_of_reach =
            moved.filter(|(row, scope)| writers[row].iter().any(|device| !may(*device, scope)));
        out_of_reach.map(|(row, _)| row.clone()).collect()
    }

    /// The transactions that may have had an effect, and whether they certainly had.
    pub fn effective(&self) -> impl Iterator<Item = (&Deed, Fate)> {
        let counted = self.transactions.iter().filter(|made| made.fate != Fate::Refused);
        counted.flat_map(|made| made.deeds.iter().map(|deed| (deed, made.fate)))
    }

    /// What counts as written later than it was: what was refused when the app sent it once more, and what was ahead of
    /// every clock when the restored server took it, whatever others wrote over it on the lost one: its
    /// device cannot know that the lost server had it, nor since when. Where the restored server's clock stands behind
    /// what others write over, it may lose to that as well.
    pub fn written_anew(&self) -> impl Iterator<Item = &Deed> {
        let is_anew = |made: &&Transaction| made.resubmitted || (made.ahead && made.resent);
        let anew = self.transactions.iter().filter(is_anew);
        anew.flat_map(|made| &made.deeds)
    }

    /// What was certainly without effect.
    pub fn refused(&self) -> impl Iterator<Item = &Deed> {
        let refused = self.transactions.iter().filter(|made| made.fate == Fate::Refused);
        refused.flat_map(|made| &made.deeds)
    }
}

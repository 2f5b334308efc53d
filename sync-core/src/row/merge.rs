//! The merge of two states of one row.

use std::cmp::Ordering;

use super::{Cell, CounterTotal, DocumentSummary, RowState, SetEntry};

impl RowState {
    /// The state that holds what both hold: commutative, associative and idempotent.
    ///
    /// Documents merge by their chunks, not by their summaries; of two summaries the larger one stays until
    /// the chunks have been exchanged.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let mut merged = self.clone();
        merged.life = self.life.max(other.life);
        merged.cells = merge_cells(&self.cells, &other.cells);
        for (column, totals) in &other.counters {
            let mine = merged.counters.entry(*column).or_default();
            for (device, theirs) in totals {
                let total = mine.entry(*device).or_default();
                *total = CounterTotal {
                    added: total.added.max(theirs.added),
                    taken: total.taken.max(theirs.taken),
                };
            }
        }
        for (column, entries) in &other.sets {
            let mine = merged.sets.entry(*column).or_default();
            for (element, adds) in entries {
                let mine = mine.entry(element.clone()).or_default();
                for (device, theirs) in adds {
                    mine.entry(*device)
                        .and_modify(|entry| *entry = later(*entry, *theirs))
                        .or_insert(*theirs);
                }
            }
        }
        for (column, theirs) in &other.documents {
            let mine = merged.documents.entry(*column).or_default();
            *mine = larger(*mine, *theirs);
        }
        merged
    }
}

fn merge_cells(mine: &[Cell], theirs: &[Cell]) -> Vec<Cell> {
    let mut merged = Vec::with_capacity(mine.len().max(theirs.len()));
    let (mut mine, mut theirs) = (mine.iter().peekable(), theirs.iter().peekable());
    loop {
        let order = match (mine.peek(), theirs.peek()) {
            (Some(a), Some(b)) => a.column.cmp(&b.column),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return merged,
        };
        let winner = match order {
            Ordering::Less => mine.next(),
            Ordering::Greater => theirs.next(),
            Ordering::Equal => {
                let (a, b) = (mine.next(), theirs.next());
                // One stamp is one write; bytes decide only where a cloned device broke that.
                a.zip(b).map(|(a, b)| if (a.stamp, &a.value) < (b.stamp, &b.value) { b } else { a })
            }
        };
        merged.extend(winner.cloned());
    }
}

fn later(a: SetEntry, b: SetEntry) -> SetEntry {
    match a.hlc.cmp(&b.hlc) {
        Ordering::Greater => a,
        Ordering::Less => b,
        Ordering::Equal => SetEntry { hlc: a.hlc, alive: a.alive && b.alive },
    }
}

fn larger(a: DocumentSummary, b: DocumentSummary) -> DocumentSummary {
    if (a.changes, a.sum) < (b.changes, b.sum) { b } else { a }
}

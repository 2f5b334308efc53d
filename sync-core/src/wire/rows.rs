//! The rows of a page on the wire: what they have in common is written once.
//!
//! A page is a byte string: rows one after the other, each saying what it is by pointing back at what the page has
//! said already. Numbers are LEB128.
//!
//! | part of a row | what it is |
//! |---|---|
//! | shape | scope, collection, what became of the row, and the columns that it has; a [reference](Recent) |
//! | identity | how many first bytes it shares with the row before, at most 6 as the time in a UUIDv7, then the others |
//! | stamp | of a state the one that most cells share, of a deletion its own; a reference |
//! | other stamps | twice how many cells have another one, plus 1 where the row has more than cells; for each such cell its column and its stamp, a reference |
//! | values | their CBOR, one behind the other |
//! | the rest | where there is more than cells: the head of the row's array, the length, and the bytes as they are in the row |
//!
//! A row comes out with the bytes that went in, to the bit: its canonical encoding is what is stored and hashed, and
//! is none of this module's business. Bytes that are no row travel as they are.

mod decode;
mod encode;
mod split;
#[cfg(test)]
mod tests;

pub(super) use decode::decode;
pub(super) use encode::encode;

use crate::ids::{CollectionId, ColumnId, DeviceId};
use crate::wire::ScopeIndex;

/// How far back a reference may point: the search for one costs at most as many comparisons.
const MAX_DISTANCE: usize = 32;
/// Most bytes of an identity that are not repeated: the milliseconds of a UUIDv7.
const MAX_SHARED_BYTES: usize = 6;
/// The reference that points at nothing: what is meant follows.
const FOLLOWS: u64 = 0;

/// What became of the rows of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A state, taken apart.
    State,
    /// Deleted under a stamp.
    Deleted,
    /// Left the scope.
    Departed,
    /// Bytes in the place of a state that are not the canonical encoding of one.
    Bytes,
}

impl Kind {
    const ALL: [Self; 4] = [Self::State, Self::Deleted, Self::Departed, Self::Bytes];

    const fn number(self) -> u64 {
        match self {
            Self::State => 0,
            Self::Deleted => 1,
            Self::Departed => 2,
            Self::Bytes => 3,
        }
    }
}

/// What many rows of a page have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    scope: ScopeIndex,
    collection: CollectionId,
    kind: Kind,
    /// The columns of a state, in its order; of anything else none.
    columns: Vec<ColumnId>,
}

/// The last [`MAX_DISTANCE`] things of one kind that a page named: a reference is the distance back to one of them,
/// from 1, or [`FOLLOWS`].
#[derive(Debug)]
struct Recent<T> {
    items: Vec<T>,
    /// Where the next one goes, once all places are taken.
    oldest: usize,
}

impl<T> Recent<T> {
    const fn new() -> Self {
        Self { items: Vec::new(), oldest: 0 }
    }

    fn push(&mut self, item: T) {
        if self.items.len() < MAX_DISTANCE {
            self.items.push(item);
        } else {
            self.items[self.oldest] = item;
            self.oldest = (self.oldest + 1) % MAX_DISTANCE;
        }
    }

    /// What a reference points at; `None` where it points at nothing.
    fn get(&self, distance: u64) -> Option<&T> {
        let back = usize::try_from(distance).ok().filter(|back| *back > 0)?;
        let before_end = self.items.len().checked_sub(back)?;
        Some(&self.items[(self.oldest + before_end) % self.items.len()])
    }

    /// The reference to the newest one that is wanted, or [`FOLLOWS`].
    fn find(&self, wanted: impl Fn(&T) -> bool) -> u64 {
        let distances = 1..=self.items.len() as u64;
        distances.into_iter().find(|at| self.get(*at).is_some_and(&wanted)).unwrap_or(FOLLOWS)
    }
}

/// The stamps of a page that are about one thing. A new one is the change of the milliseconds since the one named
/// before, the counter, and the device, a reference among all devices.
#[derive(Debug)]
struct Stamps {
    recent: Recent<crate::hlc::Stamp>,
    wall_ms: u64,
}

/// Everything that references of a page point at.
#[derive(Debug)]
struct Said {
    shapes: Recent<Shape>,
    devices: Recent<DeviceId>,
    /// The stamps of deletions, and those that most cells of a row share.
    stamps: Stamps,
    /// The stamps of single cells: those of rows that come from everywhere do not push them out.
    cell_stamps: Stamps,
    row: [u8; 16],
}

impl Said {
    const fn nothing() -> Self {
        const NONE: Stamps = Stamps { recent: Recent::new(), wall_ms: 0 };
        Self {
            shapes: Recent::new(),
            devices: Recent::new(),
            stamps: NONE,
            cell_stamps: NONE,
            row: [0; 16],
        }
    }
}

//! The vocabulary of edits: paths, values and what can be done with them.
//!
//! Positions and lengths in texts count Unicode code points, in lists items.

use std::fmt;

use super::{ChangeHash, DocumentError, FieldKind, MAX_DOCUMENT_DEPTH};

/// One step from a map or a list to what lies inside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathStep {
    /// The entry of a map.
    Key(String),
    /// The item of a list, from 0.
    Index(usize),
}

impl From<&str> for PathStep {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for PathStep {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// The way from the root of a document to a field; empty for the root, which is a map.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct DocumentPath(pub Vec<PathStep>);

impl DocumentPath {
    /// The path one step further.
    #[must_use]
    pub fn then(mut self, step: impl Into<PathStep>) -> Self {
        self.0.push(step.into());
        self
    }
}

impl<const N: usize> From<[&str; N]> for DocumentPath {
    fn from(keys: [&str; N]) -> Self {
        Self(keys.into_iter().map(PathStep::from).collect())
    }
}

impl fmt::Display for DocumentPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| match step {
            PathStep::Key(key) => write!(f, "/{key}"),
            PathStep::Index(index) => write!(f, "/{index}"),
        })
    }
}

/// A value that is written as a whole: the last writer wins.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// Nothing, which is a value.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Real(f64),
    /// A string that is replaced rather than edited; see [`FieldKind::Text`] for the other kind.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// What an edit writes into a map or a list.
#[derive(Debug, Clone, PartialEq)]
pub enum NewValue {
    /// A scalar.
    Scalar(Scalar),
    /// An empty text, list or map.
    Empty(FieldKind),
}

/// One edit of one field.
#[derive(Debug, Clone, PartialEq)]
pub enum DocumentEdit {
    /// Replaces characters of a text.
    SpliceText {
        /// The text.
        path: DocumentPath,
        /// Where, in code points.
        position: usize,
        /// How many code points go.
        delete: usize,
        /// What comes in their place.
        insert: String,
    },
    /// Sets an entry of a map.
    Put {
        /// The map.
        path: DocumentPath,
        /// The entry.
        key: String,
        /// Its new value.
        value: NewValue,
    },
    /// Removes an entry of a map; nothing happens where there is none.
    Delete {
        /// The map.
        path: DocumentPath,
        /// The entry.
        key: String,
    },
    /// Inserts an item into a list.
    InsertItem {
        /// The list.
        path: DocumentPath,
        /// Before which item; the length of the list to append.
        index: usize,
        /// The item.
        value: NewValue,
    },
    /// Removes items of a list.
    DeleteItems {
        /// The list.
        path: DocumentPath,
        /// The first item to go.
        index: usize,
        /// How many items go.
        count: usize,
    },
}

/// Why a field cannot be read or edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The path leads nowhere.
    #[error("there is no field at {path:?}")]
    NoSuchField {
        /// The path.
        path: String,
    },
    /// The path leads to something else.
    #[error("the field at {path:?} is not a {expected:?}")]
    WrongKind {
        /// The path.
        path: String,
        /// What it should be.
        expected: FieldKind,
    },
    /// The edit reaches beyond the end of the text or list; edits of a text that go on from one another count as one.
    #[error("{position} to {end} is out of range, the length is {length}")]
    OutOfRange {
        /// Where the edit begins.
        position: usize,
        /// Where it ends.
        end: usize,
        /// How long the text or list is.
        length: usize,
    },
    /// The field lies, or would lie, deeper than [`MAX_DOCUMENT_DEPTH`].
    #[error("the document is nested deeper than {}", MAX_DOCUMENT_DEPTH)]
    TooDeep,
    /// The document has no such change.
    #[error("the document has no change {0}")]
    UnknownHead(ChangeHash),
    /// The edits make a change that peers would refuse, mostly for its size.
    #[error("the edits make no valid change: {0}")]
    Refused(#[source] DocumentError),
    /// An edit failed half-way; open the document again from its stored changes.
    #[error("the document is broken and has to be opened again")]
    Broken,
}

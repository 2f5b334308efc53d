//! Collaborative documents: text, lists and nested maps, kept as a set of hashed change chunks.
//!
//! A document *is* the set of its changes: two devices that hold the same hashes see the same text.
//! A change names the changes it was made upon, so the order of arrival does not matter.
//! The server keeps changes without ever building a document from them; [`inspect`] is all it needs.
//! Devices build a [`Document`] with [`open`], edit it, and hand every [`Change`] that an edit returns to the store.
//!
//! What a peer sends is hostile until proven otherwise, and this room is where that is proven:
//! - `chunk` walks a chunk and bounds all that it could expand to, before any engine sees it;
//! - `causal_order` puts changes behind what they depend on, or names what is missing;
//! - `edit` is the vocabulary of edits and paths;
//! - `automerge` is the engine, the only place that names it.
//!
//! A device never makes two changes with the same actor and sequence, provided that it opens a document with *all* changes it ever made of it.
//! A device that dropped one of its own changes (discarded it after a refusal, or came back from a backup) has to open the document as a new actor.

mod automerge;
mod causal_order;
mod chunk;
mod edit;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

pub use edit::{AccessError, DocumentEdit, DocumentPath, NewValue, PathStep, Scalar};

/// Longest change chunk, in bytes as stored and sent.
pub const MAX_CHANGE_BYTES: usize = 1 << 20;
/// What a compressed change chunk may inflate to, in bytes.
pub const MAX_CHANGE_INFLATED_BYTES: usize = 16 << 20;
/// How many changes one change may directly depend on.
pub const MAX_CHANGE_DEPS: usize = 256;
/// How many operations one change may hold; a typed or deleted character is one.
pub const MAX_CHANGE_OPERATIONS: usize = 1 << 18;
/// How many other actors one change may refer to.
pub const MAX_CHANGE_ACTORS: usize = 4096;
/// All change chunks of one document, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 32 << 20;
/// All operations of one document.
pub const MAX_DOCUMENT_OPERATIONS: usize = 1 << 22;
/// How many maps and lists may lie inside one another.
pub const MAX_DOCUMENT_DEPTH: usize = 32;

/// The actor of [`genesis`]; nobody else may use it.
const GENESIS_ACTOR: [u8; 16] = [0; 16];

/// The name of a change: the SHA-256 of its content, compressed or not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeHash(pub [u8; 32]);

impl fmt::Display for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChangeHash({self})")
    }
}

/// One sound change: made by an edit, or read by [`inspect`] or [`read`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Its name.
    pub hash: ChangeHash,
    /// The changes that it was made upon.
    pub deps: Vec<ChangeHash>,
    /// Who made it: the actor that opened the document, or one derived from it for an edit of an older version.
    pub actor: Vec<u8>,
    /// Its number among the changes of its actor, from 1.
    pub sequence: u64,
    /// How many operations it holds.
    pub operations: usize,
    /// The chunk as stored and sent.
    pub bytes: Vec<u8>,
    parsed: automerge::Parsed,
}

/// What a field of a document holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldKind {
    /// Characters that several people type.
    Text,
    /// Values in an order.
    List,
    /// Values by name.
    Map,
}

/// Why a change, or the document that it would make, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The chunk is longer than [`MAX_CHANGE_BYTES`].
    #[error("the change is {bytes} bytes long, the limit is {}", MAX_CHANGE_BYTES)]
    ChangeTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The chunk inflates to more than [`MAX_CHANGE_INFLATED_BYTES`].
    #[error("the change inflates to more than {} bytes", MAX_CHANGE_INFLATED_BYTES)]
    InflatesTooLarge,
    /// The change declares more of something than one change may hold.
    #[error("the change has {count} {what}, the limit is {limit}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many it declares.
        count: u64,
        /// How many are allowed.
        limit: usize,
    },
    /// The bytes are something else than exactly one change chunk.
    #[error("not one change: {0}")]
    NotAChange(&'static str),
    /// The chunk is a change, but broken.
    #[error("the change is damaged: {0}")]
    Damaged(String),
    /// The change claims to come from the actor of [`genesis`].
    #[error("the change uses the actor of the first change")]
    ReservedActor,
    /// One of the chunks that [`open`] was given is refused.
    #[error("chunk {index} of the document: {source}")]
    Chunk {
        /// Its place among the chunks, from 0.
        index: usize,
        /// Why.
        source: Box<DocumentError>,
    },
    /// A change was made upon one that is neither in the document nor among the new ones.
    #[error("change {change} depends on {dependency}, which is missing")]
    MissingDependency {
        /// The change that cannot be added.
        change: ChangeHash,
        /// What it lacks.
        dependency: ChangeHash,
    },
    /// The document would grow beyond [`MAX_DOCUMENT_BYTES`] or [`MAX_DOCUMENT_OPERATIONS`].
    #[error("the document would hold {bytes} bytes in {operations} operations")]
    DocumentTooLarge {
        /// The length of all its changes.
        bytes: usize,
        /// The operations in all its changes.
        operations: usize,
    },
    /// A sound change does not fit this document: its sequence is taken, or it points at things that are not there.
    #[error("change {change} does not fit the document: {reason}")]
    Unfit {
        /// The change.
        change: ChangeHash,
        /// What the engine says.
        reason: String,
    },
    /// An edit failed half-way; open the document again from its stored changes.
    #[error("the document is broken and has to be opened again")]
    Broken,
}

/// An open document.
///
/// Nothing is half done: where a method returns an error the document is as before, or says [`AccessError::Broken`] from then on.
pub trait Document: fmt::Debug + Send + Sync {
    /// The newest changes: those that no other change was made upon, sorted.
    fn heads(&self) -> Vec<ChangeHash>;

    /// Those of `changes` that the document lacks.
    fn missing(&self, changes: &[ChangeHash]) -> Vec<ChangeHash>;

    /// Makes one change of `edits`, each seeing the ones before it; `None` where they alter nothing.
    ///
    /// # Errors
    ///
    /// An edit names a field or a position that is not there, or the change would be one that peers refuse.
    fn edit(&mut self, edits: &[DocumentEdit]) -> Result<Option<Change>, AccessError> {
        self.edit_at(&self.heads(), edits)
    }

    /// Like [`edit`](Self::edit), with paths and positions as they were when `heads` were the newest changes:
    /// for an editor whose view lags behind what has arrived since.
    ///
    /// # Errors
    ///
    /// As for [`edit`](Self::edit), or the document lacks one of `heads`.
    fn edit_at(
        &mut self,
        heads: &[ChangeHash],
        edits: &[DocumentEdit],
    ) -> Result<Option<Change>, AccessError>;

    /// Adds the changes that the document lacks, in any order, all or none; returns how many those were.
    ///
    /// # Errors
    ///
    /// A dependency is missing, a change does not fit, or the document would become too large.
    fn apply(&mut self, changes: &[Change]) -> Result<usize, DocumentError>;

    /// The characters of a text field.
    ///
    /// # Errors
    ///
    /// There is no text at `path`.
    fn text(&self, path: &DocumentPath) -> Result<String, AccessError>;

    /// The whole document, keys sorted; the winner where writes conflict.
    /// JSON knows neither bytes nor NaN: bytes become an array of numbers, NaN and infinities become null.
    ///
    /// # Errors
    ///
    /// The document is nested deeper than [`MAX_DOCUMENT_DEPTH`].
    fn to_json(&self) -> Result<serde_json::Value, AccessError> {
        let json = self.to_json_within(usize::MAX)?;
        Ok(json.expect("nothing in memory is longer than memory"))
    }

    /// Like [`to_json`](Self::to_json); `None` where the JSON is surely longer than `most_bytes`. That is mostly seen
    /// without reading the document, so that a long one costs nothing at each edit; JSON that did come out may still
    /// be longer by its punctuation.
    ///
    /// # Errors
    ///
    /// As for [`to_json`](Self::to_json).
    fn to_json_within(&self, most_bytes: usize) -> Result<Option<serde_json::Value>, AccessError>;

    /// How many changes the document holds; its genesis does not count.
    fn change_count(&self) -> usize;

    /// The length of all its changes, in bytes.
    fn approximate_bytes(&self) -> usize;
}

/// Reads what must be known of a change to store it, without building its document.
///
/// # Errors
///
/// The bytes are not exactly one sound change within the bounds of this module.
pub fn inspect(bytes: &[u8]) -> Result<Change, DocumentError> {
    Ok(Change { parsed: automerge::Parsed::default(), ..read(bytes)? })
}

/// The same for a change that is to be applied soon: what the engine read stays in memory, several times as long as the
/// chunk, so that applying does not read it once more.
///
/// # Errors
///
/// As for [`inspect`].
pub fn read(bytes: &[u8]) -> Result<Change, DocumentError> {
    automerge::read(bytes)
}

/// The first bytes of the hash of a change, as its chunk claims them; `None` where it is too short.
#[must_use]
pub fn claimed_checksum(bytes: &[u8]) -> Option<&[u8]> {
    chunk::claimed_checksum(bytes)
}

/// The first change of every document with these fields at its root; `None` without fields.
///
/// It depends on nothing but `fields`, so two devices that create a document offline share its children.
/// It is made where it is needed and never stored or sent.
#[must_use]
pub fn genesis(fields: &BTreeMap<String, FieldKind>) -> Option<Change> {
    automerge::genesis(fields)
}

/// Builds a document from its changes, in any order, to be edited by `actor`.
///
/// # Errors
///
/// A chunk is refused by [`inspect`], or the changes do not make a document (see [`Document::apply`]).
pub fn open<'a>(
    actor: [u8; 16],
    genesis: Option<&Change>,
    changes: impl Iterator<Item = &'a [u8]>,
) -> Result<Box<dyn Document>, DocumentError> {
    Ok(Box::new(automerge::AutomergeDocument::open(actor, genesis, changes)?))
}

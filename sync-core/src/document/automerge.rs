//! The engine behind [`Document`]: automerge.
//!
//! Automerge panics on some changes that parse well but point at things that do not exist.
//! Such changes are tried on a copy and refused, so they never reach an open document;
//! an edit, which is too frequent for copies, breaks its document in that case rather than its process.

mod fields;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ::automerge::transaction::{CommitOptions, Transactable as _};
use ::automerge::{ActorId, Automerge, PatchLog, ReadDoc as _, TextEncoding};

use self::fields::Editor;
use super::causal_order::causal_order;
use super::{
    AccessError, Change, ChangeHash, Document, DocumentEdit, DocumentError, DocumentPath,
    FieldKind, GENESIS_ACTOR, MAX_DOCUMENT_BYTES, MAX_DOCUMENT_OPERATIONS, chunk,
};

type EngineChange = ::automerge::Change;
type EngineHash = ::automerge::ChangeHash;

/// What the engine read of a change, where it was kept. It is no part of what the change is.
#[derive(Clone, Default)]
pub(super) struct Parsed(Option<Arc<EngineChange>>);

impl PartialEq for Parsed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Parsed {}

impl fmt::Debug for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "kept" } else { "not kept" })
    }
}

/// Bounds, parses and verifies a chunk.
pub(super) fn read(bytes: &[u8]) -> Result<Change, DocumentError> {
    chunk::check_bounds(bytes)?;
    let parsed = parse(bytes)?;
    if chunk::claimed_checksum(bytes) != parsed.hash().0.get(..4) {
        return Err(DocumentError::Damaged("its checksum is wrong".to_owned()));
    }
    let change = by_an_editor(&parsed, bytes.to_vec())?;
    Ok(Change { parsed: Parsed(Some(Arc::new(parsed))), ..change })
}

fn parse(bytes: &[u8]) -> Result<EngineChange, DocumentError> {
    match catch_unwind(|| EngineChange::try_from(bytes)) {
        Ok(parsed) => parsed.map_err(|error| DocumentError::Damaged(error.to_string())),
        Err(_) => Err(DocumentError::Damaged("the engine fails on it".to_owned())),
    }
}

fn by_an_editor(parsed: &EngineChange, bytes: Vec<u8>) -> Result<Change, DocumentError> {
    let change = describe(parsed, bytes);
    if change.actor == GENESIS_ACTOR { Err(DocumentError::ReservedActor) } else { Ok(change) }
}

fn describe(parsed: &EngineChange, bytes: Vec<u8>) -> Change {
    Change {
        hash: ChangeHash(parsed.hash().0),
        deps: parsed.deps().iter().map(|hash| ChangeHash(hash.0)).collect(),
        actor: parsed.actor_id().to_bytes().to_vec(),
        sequence: parsed.seq(),
        operations: parsed.len(),
        bytes,
        parsed: Parsed::default(),
    }
}

/// What the engine reads of a change that was found sound.
fn engine_change(change: &Change) -> Result<Arc<EngineChange>, DocumentError> {
    match &change.parsed.0 {
        Some(parsed) => Ok(Arc::clone(parsed)),
        None => parse(&change.bytes).map(Arc::new),
    }
}

/// See [`super::genesis`].
pub(super) fn genesis(fields: &BTreeMap<String, FieldKind>) -> Option<Change> {
    let mut engine = new_engine(GENESIS_ACTOR);
    let mut transaction = engine.transaction();
    for (name, kind) in fields {
        transaction
            .put_object(::automerge::ROOT, name.as_str(), fields::object_type(*kind))
            .expect("the root is a map and takes any key");
    }
    let (hash, _) = transaction.commit_with(CommitOptions::default().with_time(0));
    let change = engine.get_change_by_hash(&hash?).expect("it was just made");
    // Uncompressed, so that its bytes depend on no version of a compressor.
    Some(describe(&change, change.raw_bytes().to_vec()))
}

fn new_engine(actor: [u8; 16]) -> Automerge {
    // Positions count code points on every platform, whatever automerge's own default is there.
    Automerge::new_with_encoding(TextEncoding::UnicodeCodePoint).with_actor(ActorId::from(actor))
}

/// A document held by automerge.
pub(super) struct AutomergeDocument {
    engine: Automerge,
    totals: Totals,
    broken: bool,
}

/// What the changes of a document add up to, its genesis left out.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    changes: usize,
    bytes: usize,
    operations: usize,
}

impl Totals {
    fn with<'a>(
        mut self,
        changes: impl IntoIterator<Item = &'a Change>,
    ) -> Result<Self, DocumentError> {
        for change in changes {
            self.changes += 1;
            self.bytes += change.bytes.len();
            self.operations += change.operations;
        }
        if self.bytes > MAX_DOCUMENT_BYTES || self.operations > MAX_DOCUMENT_OPERATIONS {
            let Self { bytes, operations, .. } = self;
            return Err(DocumentError::DocumentTooLarge { bytes, operations });
        }
        Ok(self)
    }
}

impl AutomergeDocument {
    /// See [`super::open`].
    pub(super) fn open<'a>(
        actor: [u8; 16],
        genesis: Option<&Change>,
        changes: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, DocumentError> {
        let mut engine = new_engine(actor);
        if let Some(genesis) = genesis {
            engine = extend(&engine, &[engine_change(genesis)?])
                .map_err(|reason| DocumentError::Unfit { change: genesis.hash, reason })?;
        }
        let mut totals = Totals::default();
        let mut lacking = Vec::new();
        for (index, bytes) in changes.enumerate() {
            let in_chunk = |source| DocumentError::Chunk { index, source: Box::new(source) };
            let change = read(bytes).map_err(in_chunk)?;
            totals = totals.with([&change])?;
            lacking.push(change);
        }
        let mut document = Self { engine, totals: Totals::default(), broken: false };
        document.apply(&lacking)?;
        Ok(document)
    }

    fn holds(&self, hash: &ChangeHash) -> bool {
        self.engine.get_missing_deps(&[EngineHash::from(*hash)]).is_empty()
    }

    /// Returns to what the document was at `heads`.
    fn return_to(&mut self, heads: &[EngineHash]) -> Result<(), AccessError> {
        let actor = self.engine.get_actor().clone();
        self.engine =
            self.engine.fork_at(heads).map_err(|_| AccessError::Broken)?.with_actor(actor);
        Ok(())
    }

    /// Runs `edits` at `heads`; the hash of the change that they made.
    fn transact(
        &mut self,
        heads: &[EngineHash],
        edits: &[DocumentEdit],
    ) -> Result<Option<EngineHash>, AccessError> {
        // A transaction rolls back when it is dropped, and a panic in there during a panic would end the process.
        let mut transaction = ManuallyDrop::new(if heads == self.engine.get_heads() {
            self.engine.transaction()
        } else {
            // Where this actor has changes that `heads` do not cover, automerge derives another actor from it,
            // numbered by how many such branches there are; so an actor and a sequence still name one change.
            self.engine
                .transaction_at(PatchLog::inactive(), heads)
                .expect("an inactive patch log fits every document")
        });
        let mut editor = Editor::new(&mut transaction);
        let done = edits.iter().try_for_each(|edit| editor.perform(edit));
        let done = done.and_then(|()| editor.finish());
        let transaction = ManuallyDrop::into_inner(transaction);
        if let Err(error) = done {
            transaction.rollback();
            return Err(error);
        }
        Ok(transaction.commit_with(CommitOptions::default().with_time(0)).0)
    }

    /// Makes the change of `edits` and takes it back where peers would refuse it for its bounds or its actor.
    fn edit_sound(
        &mut self,
        heads: &[EngineHash],
        edits: &[DocumentEdit],
    ) -> Result<Option<Change>, AccessError> {
        let before = self.engine.get_heads();
        let Some(hash) = self.transact(heads, edits)? else { return Ok(None) };
        let mut made = self.engine.get_change_by_hash(&hash).ok_or(AccessError::Broken)?;
        let bytes = made.bytes().into_owned();
        let checked = chunk::check_bounds(&bytes).and_then(|()| {
            let change = by_an_editor(&made, bytes)?;
            Ok((self.totals.with([&change])?, change))
        });
        match checked {
            Ok((totals, change)) => {
                self.totals = totals;
                Ok(Some(change))
            }
            Err(error) => {
                self.return_to(&before)?;
                Err(AccessError::Refused(error))
            }
        }
    }
}

impl fmt::Debug for AutomergeDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("AutomergeDocument");
        shown.field("heads", &self.heads()).field("totals", &self.totals);
        shown.field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl Document for AutomergeDocument {
    fn heads(&self) -> Vec<ChangeHash> {
        self.engine.get_heads().into_iter().map(ChangeHash::from).collect()
    }

    fn missing(&self, changes: &[ChangeHash]) -> Vec<ChangeHash> {
        changes.iter().copied().filter(|hash| !self.holds(hash)).collect()
    }

    fn edit_at(
        &mut self,
        heads: &[ChangeHash],
        edits: &[DocumentEdit],
    ) -> Result<Option<Change>, AccessError> {
        if self.broken {
            return Err(AccessError::Broken);
        }
        if let Some(unknown) = self.missing(heads).first() {
            return Err(AccessError::UnknownHead(*unknown));
        }
        let mut heads: Vec<EngineHash> = heads.iter().copied().map(EngineHash::from).collect();
        heads.sort_unstable();
        heads.dedup();
        let edited = catch_unwind(AssertUnwindSafe(|| self.edit_sound(&heads, edits)));
        let edited = edited.unwrap_or(Err(AccessError::Broken));
        self.broken = edited == Err(AccessError::Broken);
        edited
    }

    fn apply(&mut self, changes: &[Change]) -> Result<usize, DocumentError> {
        if self.broken {
            return Err(DocumentError::Broken);
        }
        let mut seen = HashSet::new();
        let lacking: Vec<&Change> = changes
            .iter()
            .filter(|change| !self.holds(&change.hash) && seen.insert(change.hash))
            .collect();
        if lacking.is_empty() {
            return Ok(0);
        }
        let totals = self.totals.with(lacking.iter().copied())?;
        let ordered = causal_order(&lacking, |hash| self.holds(hash))?;
        let parsed: Vec<Arc<EngineChange>> =
            ordered.iter().map(|change| engine_change(change)).collect::<Result<_, _>>()?;
        self.engine =
            extend(&self.engine, &parsed).map_err(|reason| unfit(&self.engine, &parsed, reason))?;
        self.totals = totals;
        Ok(parsed.len())
    }

    fn text(&self, path: &DocumentPath) -> Result<String, AccessError> {
        let read = catch_unwind(AssertUnwindSafe(|| fields::text(&self.engine, path)));
        read.unwrap_or(Err(AccessError::Broken))
    }

    fn to_json_within(&self, most_bytes: usize) -> Result<Option<serde_json::Value>, AccessError> {
        let read = catch_unwind(AssertUnwindSafe(|| fields::to_json(&self.engine, most_bytes)));
        read.unwrap_or(Err(AccessError::Broken))
    }

    fn change_count(&self) -> usize {
        self.totals.changes
    }

    fn approximate_bytes(&self) -> usize {
        self.totals.bytes
    }
}

/// A copy of `engine` with `changes` added, or why they do not fit.
///
/// A change fits if the engine can give it back: whatever points at things that are not there fails in this or comes back as another.
fn extend(engine: &Automerge, changes: &[Arc<EngineChange>]) -> Result<Automerge, String> {
    let attempt = || {
        let mut copy = engine.clone();
        let applied = changes.iter().map(|change| EngineChange::clone(change));
        copy.apply_changes(applied).map_err(|error| error.to_string())?;
        let kept = copy.get_changes(&engine.get_heads());
        let kept: HashSet<EngineHash> = kept.iter().map(EngineChange::hash).collect();
        let whole = changes.iter().all(|change| kept.contains(&change.hash()));
        whole.then_some(copy).ok_or_else(|| "the engine cannot keep it".to_owned())
    };
    catch_unwind(AssertUnwindSafe(attempt))
        .unwrap_or_else(|_| Err("the engine fails on it".to_owned()))
}

/// Names the first of `changes`, which are in causal order, that does not fit.
fn unfit(engine: &Automerge, changes: &[Arc<EngineChange>], reason: String) -> DocumentError {
    let ends: Vec<usize> = (1..changes.len()).collect();
    let fitting = ends.partition_point(|end| extend(engine, &changes[..*end]).is_ok());
    DocumentError::Unfit { change: ChangeHash(changes[fitting].hash().0), reason }
}

impl From<EngineHash> for ChangeHash {
    fn from(hash: EngineHash) -> Self {
        Self(hash.0)
    }
}

impl From<ChangeHash> for EngineHash {
    fn from(hash: ChangeHash) -> Self {
        Self(hash.0)
    }
}

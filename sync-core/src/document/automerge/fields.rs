//! Finds, reads and edits the fields of an automerge document.

use std::borrow::Cow;

use ::automerge::transaction::{Transactable as _, Transaction};
use ::automerge::{
    Automerge, AutomergeError, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, ScalarValueRef, Value,
    ValueRef,
};
use serde_json::Value as Json;

use crate::document::{
    AccessError, DocumentEdit, DocumentError, DocumentPath, FieldKind, MAX_DOCUMENT_DEPTH,
    NewValue, PathStep, Scalar,
};

pub(super) const fn object_type(kind: FieldKind) -> ObjType {
    match kind {
        FieldKind::Text => ObjType::Text,
        FieldKind::List => ObjType::List,
        FieldKind::Map => ObjType::Map,
    }
}

/// The text, list or map at `path`.
fn find(
    view: &impl ReadDoc,
    path: &DocumentPath,
    expected: FieldKind,
) -> Result<ObjId, AccessError> {
    if path.0.len() > MAX_DOCUMENT_DEPTH {
        return Err(AccessError::TooDeep);
    }
    let mut field = (ROOT, ObjType::Map);
    for step in &path.0 {
        let value = match step {
            PathStep::Key(key) => view.get(&field.0, key.as_str()),
            PathStep::Index(index) => view.get(&field.0, *index),
        };
        field = match value {
            Ok(Some((Value::Object(kind), id))) => (id, kind),
            Ok(Some((Value::Scalar(_), _))) => return Err(wrong_kind(path, expected)),
            Ok(None) | Err(_) => return Err(AccessError::NoSuchField { path: path.to_string() }),
        };
    }
    if field.1 == object_type(expected) { Ok(field.0) } else { Err(wrong_kind(path, expected)) }
}

fn wrong_kind(path: &DocumentPath, expected: FieldKind) -> AccessError {
    AccessError::WrongKind { path: path.to_string(), expected }
}

/// Checks that `count` units from `position` on lie within `length`.
fn check_range(position: usize, count: usize, length: usize) -> Result<(), AccessError> {
    let end = position.saturating_add(count);
    if end > length { Err(AccessError::OutOfRange { position, end, length }) } else { Ok(()) }
}

/// Edits of one transaction. Where one fails, the transaction is to be rolled back.
pub(super) struct Editor<'t, 'd, 'e> {
    transaction: &'t mut Transaction<'d>,
    /// What is still to be done to a text: the engine does one long splice much faster than many short ones.
    splice: Option<Splice<'e>>,
    /// The text that was edited last, so that many edits of one text look for it once.
    in_hand: Option<TextInHand<'e>>,
}

/// Some edits of a text, one going on where the other ended.
struct Splice<'e> {
    path: &'e DocumentPath,
    position: usize,
    delete: usize,
    insert: Cow<'e, str>,
    /// The code points of `insert`.
    inserted: usize,
}

struct TextInHand<'e> {
    path: &'e DocumentPath,
    text: ObjId,
    /// Its code points, where that is known without asking.
    length: Option<usize>,
}

impl Splice<'_> {
    /// Takes `next` in, where it types on or deletes on, forward or back; whether it did.
    /// What comes of it is the same, but for the order in which the characters that go are named, and but for texts
    /// into which a foreign editor put several characters as one: positions in the middle of those are moved, which
    /// happens to a joined edit once.
    fn goes_on(&mut self, next: &Self) -> bool {
        if self.path != next.path {
            return false;
        }
        let types_on = next.delete == 0
            && (self.delete == 0 || self.inserted > 0)
            && self.position.checked_add(self.inserted) == Some(next.position);
        if types_on {
            self.insert.to_mut().push_str(&next.insert);
            self.inserted += next.inserted;
            return true;
        }
        let deletes_back = next.position.checked_add(next.delete) == Some(self.position);
        let deletes_on = self.inserted == 0
            && next.inserted == 0
            && (deletes_back || next.position == self.position);
        if deletes_on {
            self.position = next.position;
            self.delete = self.delete.saturating_add(next.delete);
        }
        deletes_on
    }
}

impl<'t, 'd, 'e> Editor<'t, 'd, 'e> {
    pub(super) const fn new(transaction: &'t mut Transaction<'d>) -> Self {
        Self { transaction, splice: None, in_hand: None }
    }

    pub(super) fn perform(&mut self, edit: &'e DocumentEdit) -> Result<(), AccessError> {
        if !matches!(edit, DocumentEdit::SpliceText { .. }) {
            self.finish()?;
            // Only edits of its own characters leave a text where it was.
            self.in_hand = None;
        }
        let transaction = &mut *self.transaction;
        match edit {
            DocumentEdit::SpliceText { path, position, delete, insert } => {
                let inserted = insert.chars().count();
                let insert = Cow::Borrowed(insert.as_str());
                let (position, delete) = (*position, *delete);
                return self.splice(Splice { path, position, delete, insert, inserted });
            }
            DocumentEdit::Put { path, key, value } => {
                let map = find(transaction, path, FieldKind::Map)?;
                match new_value(path, value)? {
                    Value::Object(kind) => {
                        transaction.put_object(&map, key.as_str(), kind).map(drop)
                    }
                    Value::Scalar(scalar) => {
                        transaction.put(&map, key.as_str(), scalar.into_owned())
                    }
                }
            }
            DocumentEdit::Delete { path, key } => {
                let map = find(transaction, path, FieldKind::Map)?;
                transaction.delete(&map, key.as_str())
            }
            DocumentEdit::InsertItem { path, index, value } => {
                let list = find(transaction, path, FieldKind::List)?;
                check_range(*index, 0, transaction.length(&list))?;
                match new_value(path, value)? {
                    Value::Object(kind) => transaction.insert_object(&list, *index, kind).map(drop),
                    Value::Scalar(scalar) => transaction.insert(&list, *index, scalar.into_owned()),
                }
            }
            DocumentEdit::DeleteItems { path, index, count } => {
                let list = find(transaction, path, FieldKind::List)?;
                check_range(*index, *count, transaction.length(&list))?;
                (0..*count).try_for_each(|_| transaction.delete(&list, *index))
            }
        }
        .map_err(refused)
    }

    fn splice(&mut self, next: Splice<'e>) -> Result<(), AccessError> {
        if !self.splice.as_mut().is_some_and(|splice| splice.goes_on(&next)) {
            self.finish()?;
            self.splice = Some(next);
        }
        Ok(())
    }

    /// Does what is still to be done.
    pub(super) fn finish(&mut self) -> Result<(), AccessError> {
        let Some(Splice { path, position, delete, insert, inserted }) = self.splice.take() else {
            return Ok(());
        };
        let mut found = match self.in_hand.take().filter(|before| before.path == path) {
            Some(before) => before,
            None => {
                let text = find(self.transaction, path, FieldKind::Text)?;
                TextInHand { path, text, length: None }
            }
        };
        let length = found.length.unwrap_or_else(|| self.transaction.length(&found.text));
        check_range(position, delete, length)?;
        self.transaction
            .splice_text(&found.text, position, delete.cast_signed(), &insert)
            .map_err(refused)?;
        // What goes may be longer than it was said to be, where a foreign editor put characters in as one.
        found.length = (delete == 0).then(|| length + inserted);
        self.in_hand = Some(found);
        Ok(())
    }
}

fn refused(error: AutomergeError) -> AccessError {
    AccessError::Refused(DocumentError::Damaged(error.to_string()))
}

/// What the engine calls a value that is put inside the field at `path`.
fn new_value(path: &DocumentPath, value: &NewValue) -> Result<Value<'static>, AccessError> {
    Ok(match value {
        NewValue::Empty(_) if path.0.len() >= MAX_DOCUMENT_DEPTH => {
            return Err(AccessError::TooDeep);
        }
        NewValue::Empty(kind) => Value::Object(object_type(*kind)),
        NewValue::Scalar(scalar) => Value::from(match scalar {
            Scalar::Null => ScalarValue::Null,
            Scalar::Bool(truth) => ScalarValue::Boolean(*truth),
            Scalar::Int(number) => ScalarValue::Int(*number),
            Scalar::Real(number) => ScalarValue::F64(*number),
            Scalar::Text(string) => ScalarValue::Str(string.as_str().into()),
            Scalar::Bytes(bytes) => ScalarValue::Bytes(bytes.clone()),
        }),
    })
}

pub(super) fn text(engine: &Automerge, path: &DocumentPath) -> Result<String, AccessError> {
    let text = find(engine, path, FieldKind::Text)?;
    engine.text(&text).map_err(|_| wrong_kind(path, FieldKind::Text))
}

/// The whole document; `None` where its JSON is surely longer than `most_bytes`, seen before all of it was read.
pub(super) fn to_json(engine: &Automerge, most_bytes: usize) -> Result<Option<Json>, AccessError> {
    let mut reading = Reading { engine, bytes_left: most_bytes };
    match reading.object(&ROOT, ObjType::Map, 0) {
        Ok(json) => Ok(Some(json)),
        Err(Unread::TooLong) => Ok(None),
        Err(Unread::Failed(error)) => Err(error),
    }
}

/// Why a document was not read to its end.
enum Unread {
    TooLong,
    Failed(AccessError),
}

struct Reading<'a> {
    engine: &'a Automerge,
    /// What the JSON may still take at most.
    bytes_left: usize,
}

impl Reading<'_> {
    /// Takes note of that much more JSON, at least.
    fn takes(&mut self, bytes: usize) -> Result<(), Unread> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(Unread::TooLong)?;
        Ok(())
    }

    fn object(&mut self, id: &ObjId, kind: ObjType, depth: usize) -> Result<Json, Unread> {
        if depth > MAX_DOCUMENT_DEPTH {
            return Err(Unread::Failed(AccessError::TooDeep));
        }
        match kind {
            ObjType::Text => {
                // A code point takes at least a byte, and how many there are is known without reading them.
                self.takes(self.engine.length(id))?;
                let text = self.engine.text(id).map_err(|_| Unread::Failed(AccessError::Broken));
                text.map(Json::String)
            }
            ObjType::List => self
                .engine
                .list_range(id, ..)
                .map(|item| self.value(item.value.clone(), item.id(), depth))
                .collect::<Result<_, _>>()
                .map(Json::Array),
            ObjType::Map | ObjType::Table => self
                .engine
                .map_range(id, ..)
                .map(|item| {
                    self.takes(item.key.len())?;
                    let value = self.value(item.value.clone(), item.id(), depth)?;
                    Ok((item.key.to_string(), value))
                })
                .collect::<Result<_, _>>()
                .map(Json::Object),
        }
    }

    fn value(&mut self, value: ValueRef<'_>, id: ObjId, depth: usize) -> Result<Json, Unread> {
        match value {
            ValueRef::Object(kind) => self.object(&id, kind, depth + 1),
            ValueRef::Scalar(scalar) => {
                let at_least = match &scalar {
                    ScalarValueRef::Str(string) => string.len(),
                    ScalarValueRef::Bytes(bytes) => bytes.len(),
                    _ => 1,
                };
                self.takes(at_least)?;
                Ok(scalar_to_json(&scalar))
            }
        }
    }
}

fn scalar_to_json(scalar: &ScalarValueRef<'_>) -> Json {
    match scalar {
        ScalarValueRef::Null => Json::Null,
        ScalarValueRef::Boolean(truth) => Json::from(*truth),
        ScalarValueRef::Int(number)
        | ScalarValueRef::Counter(number)
        | ScalarValueRef::Timestamp(number) => Json::from(*number),
        ScalarValueRef::Uint(number) => Json::from(*number),
        ScalarValueRef::F64(number) => Json::from(*number),
        ScalarValueRef::Str(string) => Json::from(string.as_ref()),
        ScalarValueRef::Bytes(bytes) | ScalarValueRef::Unknown { bytes, .. } => {
            Json::from(bytes.as_ref())
        }
    }
}

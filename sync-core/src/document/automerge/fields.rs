//! Finds, reads and edits the fields of an automerge document.

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

/// Makes one edit. Where it fails, the transaction is to be rolled back.
pub(super) fn perform(
    transaction: &mut Transaction<'_>,
    edit: &DocumentEdit,
) -> Result<(), AccessError> {
    match edit {
        DocumentEdit::SpliceText { path, position, delete, insert } => {
            let text = find(transaction, path, FieldKind::Text)?;
            check_range(*position, *delete, transaction.length(&text))?;
            transaction.splice_text(&text, *position, delete.cast_signed(), insert)
        }
        DocumentEdit::Put { path, key, value } => {
            let map = find(transaction, path, FieldKind::Map)?;
            match new_value(path, value)? {
                Value::Object(kind) => transaction.put_object(&map, key.as_str(), kind).map(drop),
                Value::Scalar(scalar) => transaction.put(&map, key.as_str(), scalar.into_owned()),
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
    .map_err(|error: AutomergeError| {
        AccessError::Refused(DocumentError::Damaged(error.to_string()))
    })
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

pub(super) fn to_json(engine: &Automerge) -> Result<Json, AccessError> {
    object_to_json(engine, &ROOT, ObjType::Map, 0)
}

fn object_to_json(
    engine: &Automerge,
    id: &ObjId,
    kind: ObjType,
    depth: usize,
) -> Result<Json, AccessError> {
    if depth > MAX_DOCUMENT_DEPTH {
        return Err(AccessError::TooDeep);
    }
    let value_to_json = |value: ValueRef<'_>, id: ObjId| match value {
        ValueRef::Object(kind) => object_to_json(engine, &id, kind, depth + 1),
        ValueRef::Scalar(scalar) => Ok(scalar_to_json(&scalar)),
    };
    match kind {
        ObjType::Text => engine.text(id).map(Json::String).map_err(|_| AccessError::Broken),
        ObjType::List => engine
            .list_range(id, ..)
            .map(|item| value_to_json(item.value.clone(), item.id()))
            .collect::<Result<_, _>>()
            .map(Json::Array),
        ObjType::Map | ObjType::Table => engine
            .map_range(id, ..)
            .map(|item| Ok((item.key.to_string(), value_to_json(item.value.clone(), item.id())?)))
            .collect::<Result<_, _>>()
            .map(Json::Object),
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

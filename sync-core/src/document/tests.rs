//! What a document promises, one file per theme; the documents and sealed chunks that they share.

mod convergence;
mod edits;
mod hostile;
mod trace;

use std::collections::BTreeMap;

use super::{Change, Document, DocumentEdit, DocumentPath, FieldKind, NewValue, Scalar};

const ALICE: [u8; 16] = [0xa1; 16];
const BOB: [u8; 16] = [0xb0; 16];

fn fields() -> BTreeMap<String, FieldKind> {
    let fields = [("text", FieldKind::Text), ("list", FieldKind::List), ("map", FieldKind::Map)];
    fields.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect()
}

fn open(actor: [u8; 16], changes: &[Change]) -> Box<dyn Document> {
    let genesis = super::genesis(&fields());
    let chunks = changes.iter().map(|change| change.bytes.as_slice());
    super::open(actor, genesis.as_ref(), chunks).unwrap()
}

fn path(key: &str) -> DocumentPath {
    DocumentPath::from([key])
}

fn splice(position: usize, delete: usize, insert: &str) -> DocumentEdit {
    let insert = insert.to_owned();
    DocumentEdit::SpliceText { path: path("text"), position, delete, insert }
}

fn put(key: &str, value: NewValue) -> DocumentEdit {
    DocumentEdit::Put { path: path("map"), key: key.to_owned(), value }
}

fn int(number: i64) -> NewValue {
    NewValue::Scalar(Scalar::Int(number))
}

fn change(document: &mut dyn Document, edits: &[DocumentEdit]) -> Change {
    document.edit(edits).unwrap().expect("the edits alter something")
}

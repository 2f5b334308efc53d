//! What yrs and loro make of one small document, by themselves and in memory: a map with fields that are edited one after the
//! other. Reads one [`Document`] as JSON from its standard input and writes one [`Sizes`] for each engine, by name.
//!
//! What they give is neither encrypted nor in a frame, and says not whose it is.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{stdin, stdout};

use loro::{ExportMode, LoroDoc};
use serde::{Deserialize, Serialize};
use yrs::{Doc, Map as _, ReadTxn as _, StateVector, Transact as _};

/// The map at the root of a document needs a name in both engines: the shortest.
const MAP: &str = "m";

#[derive(Deserialize)]
struct Document {
    /// Names and values, written in one change.
    fields: Vec<(String, String)>,
    /// Names and new values, each a change.
    edits: Vec<(String, String)>,
}

/// In bytes.
#[derive(Serialize)]
struct Sizes {
    /// The document, saved with what the engine keeps of its history.
    saved: usize,
    /// The last change, as it would be sent.
    change: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let document: Document = serde_json::from_reader(stdin().lock())?;
    let sizes = BTreeMap::from([("yrs", with_yrs(&document)), ("loro", with_loro(&document)?)]);
    Ok(serde_json::to_writer(stdout().lock(), &sizes)?)
}

/// With the first version of its encoding, which its peers speak by default. It forgets values that were replaced.
fn with_yrs(document: &Document) -> Sizes {
    let doc = Doc::new();
    let map = doc.get_or_insert_map(MAP);
    {
        let mut transaction = doc.transact_mut();
        for (key, value) in &document.fields {
            map.insert(&mut transaction, key.as_str(), value.as_str());
        }
    }
    let mut change = 0;
    for (key, value) in &document.edits {
        let mut transaction = doc.transact_mut();
        map.insert(&mut transaction, key.as_str(), value.as_str());
        change = transaction.encode_update_v1().len();
    }
    let saved = doc.transact().encode_state_as_update_v1(&StateVector::default()).len();
    Sizes { saved, change }
}

/// As a snapshot, which holds the whole history.
fn with_loro(document: &Document) -> Result<Sizes, Box<dyn Error>> {
    let doc = LoroDoc::new();
    let map = doc.get_map(MAP);
    for (key, value) in &document.fields {
        map.insert(key, value.as_str())?;
    }
    doc.commit();
    let mut change = 0;
    for (key, value) in &document.edits {
        let before = doc.oplog_vv();
        map.insert(key, value.as_str())?;
        doc.commit();
        change = doc.export(ExportMode::updates(&before))?.len();
    }
    Ok(Sizes { saved: doc.export(ExportMode::Snapshot)?.len(), change })
}

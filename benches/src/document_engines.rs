//! The peers: document engines by themselves, in memory: how long a saved document is that was edited field by field, and
//! how long one change is. None is encrypted or in a frame, and nothing says whose it is.

use std::io::Write as _;
use std::process::{Command, Stdio};

use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ROOT};
use serde::{Deserialize, Serialize};

use crate::outcome::{Outcome, ensure};

const PROGRAM: &str = "document-peers";
/// What the table says where the others are not there.
pub const MISSING: &str = "yrs and loro not measured: no document-peers on the PATH; `cargo install --path benches/document-peers --locked` installs it";

/// A document: its fields, written in one change, and what is then written to them, each in its own.
#[derive(Debug, Serialize)]
pub struct Edited {
    pub fields: Vec<(String, String)>,
    pub edits: Vec<(String, String)>,
}

/// What one document takes, in bytes.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Sizes {
    /// The document with its history.
    pub saved: usize,
    /// The last of its changes.
    pub change: usize,
}

/// Engines of which nothing is in Farshore. Yrs forgets values that were replaced.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Peers {
    pub yrs: Sizes,
    pub loro: Sizes,
}

/// With automerge, the engine that is inside.
pub fn automerge(document: &Edited) -> Outcome<Sizes> {
    let mut engine = AutoCommit::new();
    for (key, value) in &document.fields {
        engine.put(ROOT, key.as_str(), value.as_str())?;
    }
    engine.commit();
    let mut change = 0;
    for (key, value) in &document.edits {
        engine.put(ROOT, key.as_str(), value.as_str())?;
        engine.commit();
        change = engine.get_last_local_change().ok_or("no change")?.raw_bytes().len();
    }
    Ok(Sizes { saved: engine.save().len(), change })
}

/// With the others; `None` where the program is not installed that has them.
pub fn peers(document: &Edited) -> Outcome<Option<Peers>> {
    let mut command = Command::new(PROGRAM);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut process) = command.spawn() else { return Ok(None) };
    let mut input = process.stdin.take().ok_or("no way to its input")?;
    input.write_all(&serde_json::to_vec(document)?)?;
    drop(input);
    let output = process.wait_with_output()?;
    ensure(output.status.success(), || format!("{PROGRAM} failed"))?;
    Ok(Some(serde_json::from_slice(&output.stdout)?))
}

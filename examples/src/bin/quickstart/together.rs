//! Two people type into one document, each on a device of their own, as a recording says that it once happened.
//!
//! Where the recording says that one had seen what the other wrote, it has to have come through the server first.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use farshore_examples::device::{Device, PATIENCE};
use farshore_examples::outcome::{Failure, Outcome, ensure, ensure_equal};
use farshore_examples::telling::{Progress, Telling};
use farshore_examples::trace::{AUTHORS, Span, Trace, friends_forever};
use farshore_sync_core::document::ChangeHash;
use farshore_sync_core::ids::RowId;

use crate::cast::Cast;

const COLLECTION: &str = "notes";
const COLUMN: &str = "body";
const FIELD: &str = "text";

/// The note that both type into.
pub fn note(device: &Device) -> Outcome<RowId> {
    device.id("SELECT id FROM notes", &[])
}

/// What the note says on a device.
pub fn text(device: &Device) -> Outcome<String> {
    let text = device.client.document_text(COLLECTION, note(device)?, COLUMN, &[FIELD].into())?;
    text.ok_or_else(|| gone(device))
}

fn gone(device: &Device) -> Failure {
    format!("the note is gone on {}", device.name).into()
}

pub fn type_it(cast: &Cast, telling: &Telling) -> Outcome {
    let trace = friends_forever(FIELD)?;
    let (edits, merges) = (trace.edits, trace.merges);
    telling.line(format!("{edits} keystrokes of two authors, {merges} of which merge"));
    let progress = telling.progress("keystrokes", trace.edits);
    let versions = Versions::new(trace.spans.len());
    let outcomes: [Outcome; AUTHORS] = std::thread::scope(|scope| {
        let (trace, versions, progress) = (&trace, &versions, &progress);
        let authors = [&cast.alice, &cast.bruno];
        let typing = [0, 1].map(|author| {
            scope.spawn(move || {
                Author { author, device: authors[author], trace, versions, progress }.write()
            })
        });
        typing.map(|thread| thread.join().unwrap_or_else(|_| Err("an author panicked".into())))
    });
    outcomes.into_iter().collect::<Outcome<()>>()?;
    cast.converge()?;
    let took = progress.finish();
    for device in cast.devices() {
        ensure_equal(&format!("the text on {}", device.name), &trace.end_content, &text(device)?)?;
    }
    telling.line(format!(
        "{} transactions in {:.1} s; both texts are the recording's, character by character",
        trace.spans.len(),
        took.as_secs_f64()
    ));
    Ok(())
}

/// One of the two, at work.
struct Author<'a> {
    author: usize,
    device: &'a Device,
    trace: &'a Trace,
    versions: &'a Versions,
    progress: &'a Progress,
}

impl Author<'_> {
    /// Writes everything that this author wrote, each span on the versions that the author had seen.
    fn write(&self) -> Outcome {
        let note = note(self.device)?;
        let mine =
            self.trace.spans.iter().enumerate().filter(|(_, span)| span.author == self.author);
        for (index, span) in mine {
            let written = self.write_span(note, span);
            let is_over = written.is_err();
            self.versions.publish(index, written.as_ref().ok().copied());
            if is_over {
                written?;
            }
            self.progress.advance(span.edits.len() as u64);
        }
        Ok(())
    }

    fn write_span(&self, note: RowId, span: &Span) -> Result<ChangeHash, Failure> {
        let client = &self.device.client;
        let heads = match span.parents.as_slice() {
            [] => {
                client.document_heads(COLLECTION, note, COLUMN)?.ok_or_else(|| gone(self.device))?
            }
            parents => self.versions.of(parents)?,
        };
        self.wait_for(note, &heads)?;
        let written =
            client.write(|t| t.edit_document_at(COLLECTION, note, COLUMN, &heads, &span.edits))?;
        written.ok_or_else(|| "a keystroke changed nothing".into())
    }

    /// What the other one wrote comes through the server, like everything else.
    fn wait_for(&self, note: RowId, heads: &[ChangeHash]) -> Outcome {
        let client = &self.device.client;
        let started = Instant::now();
        let mut watch = client.watch_status();
        loop {
            let missing = client.document_missing(COLLECTION, note, COLUMN, heads)?;
            if missing.ok_or_else(|| gone(self.device))?.is_empty() {
                return Ok(());
            }
            let left = PATIENCE.saturating_sub(started.elapsed());
            ensure(!left.is_zero(), || {
                format!("{}: a change did not arrive within {PATIENCE:?}", self.device.name)
            })?;
            watch.next_within(left);
        }
    }
}

/// Which change each span became, as far as it was written: what the recording knows of its people.
struct Versions {
    written: Mutex<Written>,
    more: Condvar,
}

struct Written {
    hashes: Vec<Option<ChangeHash>>,
    gave_up: bool,
}

impl Versions {
    fn new(spans: usize) -> Self {
        let written = Written { hashes: vec![None; spans], gave_up: false };
        Self { written: Mutex::new(written), more: Condvar::new() }
    }

    /// A span was written; `None` where its author gave up.
    fn publish(&self, span: usize, hash: Option<ChangeHash>) {
        let mut written = self.lock();
        written.hashes[span] = hash;
        written.gave_up |= hash.is_none();
        drop(written);
        self.more.notify_all();
    }

    /// The changes that spans became; waits until all of them are written.
    fn of(&self, spans: &[usize]) -> Outcome<Vec<ChangeHash>> {
        let mut written = self.lock();
        loop {
            let hashes: Option<Vec<_>> = spans.iter().map(|span| written.hashes[*span]).collect();
            if let Some(hashes) = hashes {
                return Ok(hashes);
            }
            ensure(!written.gave_up, || "the other author gave up".into())?;
            written = self.more.wait(written).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

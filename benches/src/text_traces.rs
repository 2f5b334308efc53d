//! `text_traces`: a recorded author types a paper into a document through the SDK, the server gets it, and another
//! device reads it, against the same edits in the same changes with automerge alone, saved and loaded.
//!
//! Ours stores each transaction durably and encrypted on the device; automerge alone keeps everything in memory.

use std::time::Instant;

use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ObjType, ROOT, ReadDoc as _};
use farshore_client::Client;
use farshore_sync_core::document::{DocumentEdit, DocumentPath};
use farshore_sync_core::value::Value;
use flate2::read::GzDecoder;
use serde::Deserialize;

use crate::device;
use crate::flights::SCHEMA;
use crate::legs::{Readings, in_turns};
use crate::outcome::{Outcome, ensure};
use crate::plan::Plan;
use crate::report::Figure;
use crate::server::Server;

const NAME: &str = "text_traces";
const FILE: &[u8] = include_bytes!("../data/automerge-paper.json.gz");
/// Edits of one transaction: what is typed in some minutes.
const EDITS_PER_TRANSACTION: usize = 1_000;
const QUICK_EDITS: usize = 20_000;
const FIELD: &str = "text";

#[derive(Debug, Deserialize)]
struct Trace {
    #[serde(rename = "startContent")]
    start: String,
    #[serde(rename = "endContent")]
    end: String,
    txns: Vec<Typed>,
}

#[derive(Debug, Deserialize)]
struct Typed {
    patches: Vec<Patch>,
}

/// Where, how many characters go, and what comes.
#[derive(Debug, Deserialize)]
struct Patch(usize, usize, String);

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let trace: Trace = serde_json::from_reader(GzDecoder::new(FILE))?;
    ensure(trace.start.is_empty(), || "the trace begins with an empty text".into())?;
    let mut patches: Vec<Patch> = trace.txns.into_iter().flat_map(|typed| typed.patches).collect();
    let mut end = Some(trace.end);
    if plan.quick {
        patches.truncate(QUICK_EDITS);
        end = None;
    }
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    let mut leg = 0;
    let mut typed = Vec::new();
    let mut ours = || {
        leg += 1;
        let tenant = format!("traces-{leg}");
        server.create_tenant(&tenant, SCHEMA)?;
        let (dir, other) = (plan.fresh_dir()?, plan.fresh_dir()?);
        let author =
            device::of_tenant(dir.path(), &server.url(), &server.token(&tenant, "tenant:rw")?)?;
        let reader =
            device::of_tenant(other.path(), &server.url(), &server.token(&tenant, "tenant:rw")?)?;
        let started = Instant::now();
        let (text, typing_s) = through_the_sdk(&author, &reader, &patches)?;
        let took = started.elapsed().as_secs_f64();
        typed.push(typing_s);
        ensure(end.as_ref().is_none_or(|end| *end == text), || "the text is another one".into())?;
        author.close()?;
        reader.close()?;
        Ok(took)
    };
    let mut bytes = 0;
    let mut alone = || {
        let started = Instant::now();
        let (text, saved) = with_automerge_alone(&patches)?;
        let took = started.elapsed().as_secs_f64();
        bytes = saved;
        ensure(end.as_ref().is_none_or(|end| *end == text), || "the text is another one".into())?;
        Ok(took)
    };
    let [ours, theirs] =
        in_turns(NAME, plan.pairs, [("the SDK", &mut ours), ("automerge alone", &mut alone)])?;
    let note = format!(
        "{NAME}: {} edits, {EDITS_PER_TRANSACTION} in a transaction: {:.2} to {:.2} s, of which typing {:.2} s; \
         automerge alone {:.2} to {:.2} s, {bytes} bytes saved",
        patches.len(),
        ours.range().0,
        ours.range().1,
        Readings::new(typed).median(),
        theirs.range().0,
        theirs.range().1,
    );
    let reference = "automerge alone: the same changes, saved and loaded, nothing stored";
    let figure = Figure::against(NAME, ours.median(), "s", reference, theirs.median());
    Ok(vec![figure.noted(note)])
}

/// Types, syncs, and reads on another device; gives the text and how long typing took.
fn through_the_sdk(author: &Client, reader: &Client, patches: &[Patch]) -> Outcome<(String, f64)> {
    let path = DocumentPath::from([FIELD]);
    let started = Instant::now();
    let note = author.write(|t| t.insert("notes", None, &[("title", Value::from("The paper"))]))?;
    for batch in patches.chunks(EDITS_PER_TRANSACTION) {
        let edit = |Patch(position, delete, insert): &Patch| DocumentEdit::SpliceText {
            path: path.clone(),
            position: *position,
            delete: *delete,
            insert: insert.clone(),
        };
        let edits: Vec<DocumentEdit> = batch.iter().map(edit).collect();
        author.write(|t| t.edit_document("notes", note, "body", &edits))?;
    }
    let typing_s = started.elapsed().as_secs_f64();
    for client in [author, reader] {
        let report = client.sync_once(device::PATIENCE)?;
        ensure(report.complete, || format!("it did not get there: {:?}", report.cause))?;
    }
    let text = reader.document_text("notes", note, "body", &path)?;
    Ok((text.ok_or("the document did not arrive")?, typing_s))
}

/// The text in the end and how long the saved document is.
fn with_automerge_alone(patches: &[Patch]) -> Outcome<(String, usize)> {
    let mut document = AutoCommit::new();
    let text = document.put_object(ROOT, FIELD, ObjType::Text)?;
    for batch in patches.chunks(EDITS_PER_TRANSACTION) {
        for Patch(position, delete, insert) in batch {
            document.splice_text(&text, *position, isize::try_from(*delete)?, insert)?;
        }
        document.commit();
    }
    let saved = document.save();
    let loaded = AutoCommit::load(&saved)?;
    Ok((loaded.text(&text)?, saved.len()))
}

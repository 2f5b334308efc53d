//! `text_traces`: a recorded author types a paper into a document through the SDK, the server gets it, and another
//! device reads it, against the same edits in the same changes with automerge alone, saved and loaded. The devices
//! connect when everything is typed; `connected`: they are connected meanwhile, so that the other one takes in what comes
//! change by change.
//!
//! Ours stores each transaction durably and encrypted on the device; automerge alone keeps everything in memory.

use std::thread;
use std::time::{Duration, Instant};

use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ObjType, ROOT, ReadDoc as _};
use farshore_client::{Client, Goal};
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
const CONNECTED: &str = "text_traces.connected";
const FILE: &[u8] = include_bytes!("../data/automerge-paper.json.gz");
/// Edits of one transaction: what is typed in some minutes.
const EDITS_PER_TRANSACTION: usize = 1_000;
const QUICK_EDITS: usize = 20_000;
const FIELD: &str = "text";
/// How long the reader waits before it looks again whether the last change has come.
const LOOK: Duration = Duration::from_millis(2);

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
    let is_whole = |text: &str| end.as_ref().is_none_or(|end| end == text);
    let typist =
        |when| Typist { plan, server: &server, patches: &patches, when, typing: Vec::new() };
    let (mut connected, mut offline) = (typist(When::Connected), typist(When::Offline));
    let mut bytes = 0;
    let mut alone = || {
        let started = Instant::now();
        let (text, saved) = with_automerge_alone(&patches)?;
        let took = started.elapsed().as_secs_f64();
        bytes = saved;
        ensure(is_whole(&text), || "the text is another one".into())?;
        Ok(took)
    };
    let [live_s, later_s, alone] = in_turns(
        NAME,
        plan.pairs,
        [
            ("the SDK, connected", &mut || connected.leg(is_whole)),
            ("the SDK, offline", &mut || offline.leg(is_whole)),
            ("automerge alone", &mut alone),
        ],
    )?;
    let figure = |name: &str, ours: &Readings, typist: Typist<'_>| {
        let note = format!(
            "{name}: {} edits, {EDITS_PER_TRANSACTION} in a transaction: {:.2} to {:.2} s, of which typing {:.2} s; \
             automerge alone {:.2} to {:.2} s, {bytes} bytes saved",
            patches.len(),
            ours.range().0,
            ours.range().1,
            Readings::new(typist.typing).median(),
            alone.range().0,
            alone.range().1,
        );
        let reference = "automerge alone: the same changes, saved and loaded, nothing stored";
        Figure::against(name, ours.median(), "s", reference, alone.median()).noted(note)
    };
    Ok(vec![figure(NAME, &later_s, offline), figure(CONNECTED, &live_s, connected)])
}

/// When the devices are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// All the time.
    Connected,
    /// After everything was typed.
    Offline,
}

/// Who types the paper, time and again.
struct Typist<'a> {
    plan: &'a Plan,
    server: &'a Server,
    patches: &'a [Patch],
    when: When,
    /// How long typing took, in seconds.
    typing: Vec<f64>,
}

impl Typist<'_> {
    /// Types it once, with new devices, and gives the seconds until the other one shows it.
    fn leg(&mut self, is_whole: impl Fn(&str) -> bool) -> Outcome<f64> {
        let Self { plan, server, patches, when, typing } = self;
        let tenant = format!("{when:?}-{}", typing.len()).to_lowercase();
        server.create_tenant(&tenant, SCHEMA)?;
        let token = || server.token(&tenant, "tenant:rw");
        let (dir, other) = (plan.fresh_dir()?, plan.fresh_dir()?);
        let author = device::of_tenant(dir.path(), &server.url(), &token()?)?;
        let reader = device::of_tenant(other.path(), &server.url(), &token()?)?;
        if *when == When::Connected {
            for client in [&author, &reader] {
                client.connect()?;
                client.wait_for(Goal::CaughtUp, device::PATIENCE)?;
            }
        }
        let started = Instant::now();
        let (text, typing_s) = through_the_sdk(&author, &reader, patches, *when)?;
        let took = started.elapsed().as_secs_f64();
        typing.push(typing_s);
        ensure(is_whole(&text), || "the text is another one".into())?;
        author.close()?;
        reader.close()?;
        Ok(took)
    }
}

/// Types, syncs, and reads on another device; gives the text and how long typing took.
fn through_the_sdk(
    author: &Client,
    reader: &Client,
    patches: &[Patch],
    when: When,
) -> Outcome<(String, f64)> {
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
    match when {
        When::Offline => {
            for client in [author, reader] {
                let report = client.sync_once(device::PATIENCE)?;
                ensure(report.complete, || format!("it did not get there: {:?}", report.cause))?;
            }
        }
        When::Connected => {
            author.wait_for(Goal::Synced, device::PATIENCE)?;
            let heads = author.document_heads("notes", note, "body")?.unwrap_or_default();
            let lacks = || reader.document_missing("notes", note, "body", &heads);
            let deadline = Instant::now() + device::PATIENCE;
            while lacks()?.is_none_or(|missing| !missing.is_empty()) {
                ensure(Instant::now() < deadline, || "it did not come".into())?;
                thread::park_timeout(LOOK);
            }
        }
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

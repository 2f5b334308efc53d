//! `small_documents`: many work orders, each a document of 8 fields that is edited 20 times: what they take on the
//! device and on the server, what one edit costs on the wire, and what the server holds in memory for each of them
//! while nobody touches them, which is the slope between half of them and all. Beside it stands what document engines
//! alone make of one such document.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use farshore_client::{Client, Goal};
use farshore_sync_core::document::{DocumentEdit, DocumentPath, NewValue, Scalar};
use farshore_sync_core::ids::RowId;
use farshore_sync_core::value::Value;

use crate::device;
use crate::document_engines::{self, Edited, MISSING, Peers};
use crate::flights::SCHEMA;
use crate::legs::progress;
use crate::machine;
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::proxy::{Carried, Proxy};
use crate::report::Figure;
use crate::server::Server;
use crate::sqlite;

const NAME: &str = "small_documents";
const TENANT: &str = "orders";
const DOCUMENTS: usize = 10_000;
const QUICK_DOCUMENTS: usize = 500;
const EDITS: usize = 20;
const PER_TRANSACTION: usize = 100;
/// The document that the engines write alone.
const ONE_OF_THEM: usize = 4_711;
/// Edits that go over the wire one by one.
const LONE_EDITS: usize = 100;
const MIB: f64 = 1_048_576.0;
/// Until the server has given back what the edits took.
const HOLD: Duration = Duration::from_secs(5);
const FIELDS: [(&str, &str); 8] = [
    ("status", "open"),
    ("title", "Gate 7 does not close"),
    ("site", "JFK"),
    ("assignee", "maria"),
    ("priority", "high"),
    ("due", "2013-01-05"),
    ("part", "hinge 40 mm"),
    ("remark", "seen by the morning shift"),
];

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let documents = if plan.quick { QUICK_DOCUMENTS } else { DOCUMENTS };
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    server.create_tenant(TENANT, SCHEMA)?;
    let empty = stored_under(home.path())?;
    let memory = || machine::own_memory_mib(server.process()).ok_or("no memory in /proc");
    let memory_before = memory()?;

    let dir = plan.fresh_dir()?;
    let proxy = Proxy::to(server.address())?;
    let client = device::of_tenant(dir.path(), &proxy.url(), &server.token(TENANT, "tenant:rw")?)?;
    let (mut orders, mut together, mut memory_after) = (Vec::new(), Carried::default(), Vec::new());
    for half in [0..documents / 2, documents / 2..documents] {
        client.connect()?;
        let made = create(&client, half)?;
        client.wait_for(Goal::Synced, device::PATIENCE)?;
        proxy.take();
        edit_all(&client, &made)?;
        client.wait_for(Goal::Synced, device::PATIENCE)?;
        let carried = proxy.take();
        together.up += carried.up;
        together.down += carried.down;
        orders.extend(made);
        client.disconnect();
        std::thread::park_timeout(HOLD);
        memory_after.push(memory()?);
    }
    client.connect()?;
    client.wait_for(Goal::Synced, device::PATIENCE)?;
    proxy.take();
    for (order, row) in orders.iter().cycle().take(LONE_EDITS) {
        client.write(|t| t.edit_document("notes", *row, "body", &[edit(*order, EDITS)]))?;
        client.wait_for(Goal::Synced, device::PATIENCE)?;
    }
    let alone = proxy.take();
    client.close()?;
    server.stop()?;
    let on_server = stored_under(home.path())?.saturating_sub(empty);
    let on_device = sqlite::used_bytes(&device::behind_the_sdk(dir.path())?)?;

    let one = one_of_them();
    let automerge = document_engines::automerge(&one)?;
    let peers = document_engines::peers(&one)?;
    let each = |bytes: f64| bytes / documents as f64;
    let note = format!(
        "{NAME}: {documents} documents of 8 fields, {EDITS} edits each: {} bytes up, {} down in transactions of \
         {PER_TRANSACTION}, answers and checkpoints included; lone edits: {} up, {} down for {LONE_EDITS}; the server's own memory while nobody is connected: {memory_before:.1} MiB before, {:.1} with half of them, {:.1} with all",
        together.up, together.down, alone.up, alone.down, memory_after[0], memory_after[1]
    );
    let stored = each(on_server as f64);
    let edit = together.up as f64 / (documents * EDITS) as f64;
    let against = |name: &str, value, unit, (reference, theirs): (&str, usize)| {
        Figure::against(&format!("{NAME}{name}"), value, unit, reference, theirs as f64)
    };
    let on_the_server = "bytes a document on the server";
    let from_the_device = "bytes an edit from the device";
    let saved = ("automerge alone: one such document, saved", automerge.saved);
    let change = ("automerge alone: one change", automerge.change);
    let mut figures = vec![
        against("", stored, on_the_server, saved).noted(note),
        against(".device", each(on_device as f64), "bytes a document on the device", saved),
        against(".edit", edit, from_the_device, change),
        against(".lone_edit", alone.up as f64 / LONE_EDITS as f64, from_the_device, change),
        Figure::alone(
            "small_documents.idle_memory",
            (memory_after[1] - memory_after[0]) * MIB / (documents - documents / 2) as f64,
            "bytes of the server's memory for a further document, while nobody touches them",
        ),
    ];
    match peers {
        Some(Peers { yrs, loro }) => figures.extend([
            against(".yrs", stored, on_the_server, ("yrs alone, saved; it forgets", yrs.saved)),
            against(".loro", stored, on_the_server, ("loro alone, saved", loro.saved)),
            against(".edit.yrs", edit, from_the_device, ("yrs alone: one change", yrs.change)),
            against(".edit.loro", edit, from_the_device, ("loro alone: one change", loro.change)),
        ]),
        None => figures[0] = figures[0].clone().remarked(MISSING),
    }
    Ok(figures)
}

/// A document: the how manieth it is, and its row.
type Order = (usize, RowId);

/// Creates documents, in transactions of many.
fn create(client: &Client, numbers: Range<usize>) -> Outcome<Vec<Order>> {
    let mut orders = Vec::with_capacity(numbers.len());
    for batch in numbers.collect::<Vec<_>>().chunks(PER_TRANSACTION) {
        orders.extend(client.write(|t| {
            let mut made = Vec::with_capacity(PER_TRANSACTION);
            for order in batch {
                let row = t.insert("notes", None, &[("title", Value::from("work order"))])?;
                let fields: Vec<DocumentEdit> =
                    written(*order).map(|(key, value)| put(key, &value)).collect();
                t.edit_document("notes", row, "body", &fields)?;
                made.push((*order, row));
            }
            Ok(made)
        })?);
    }
    Ok(orders)
}

/// Edits each document so many times as the row says, in transactions of many.
fn edit_all(client: &Client, orders: &[Order]) -> Outcome {
    let bar = progress("small_documents: edits", orders.len() * EDITS);
    for number in 0..EDITS {
        for batch in orders.chunks(PER_TRANSACTION) {
            client.write(|t| {
                for (order, row) in batch {
                    t.edit_document("notes", *row, "body", &[edit(*order, number)])?;
                }
                Ok(())
            })?;
            bar.inc(batch.len() as u64);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn put(key: &str, value: &str) -> DocumentEdit {
    DocumentEdit::Put {
        path: DocumentPath::default(),
        key: key.to_owned(),
        value: NewValue::Scalar(Scalar::Text(value.to_owned())),
    }
}

/// What a document says at first. No two are alike: their changes would be the same bytes, which compress to nothing.
fn written(order: usize) -> impl Iterator<Item = (&'static str, String)> {
    FIELDS.iter().map(move |(key, value)| (*key, format!("{value} ({order})")))
}

/// One edit: another field each time.
fn edit(order: usize, number: usize) -> DocumentEdit {
    let (key, value) = edited(order, number);
    put(key, &value)
}

fn edited(order: usize, number: usize) -> (&'static str, String) {
    (FIELDS[number % FIELDS.len()].0, format!("as of edit {number} ({order})"))
}

/// What the engines write alone.
fn one_of_them() -> Edited {
    let owned = |(key, value): (&str, String)| (key.to_owned(), value);
    Edited {
        fields: written(ONE_OF_THEM).map(owned).collect(),
        edits: (0..EDITS).map(|number| owned(edited(ONE_OF_THEM, number))).collect(),
    }
}

/// The bytes of all files below a directory.
fn stored_under(dir: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)?.flatten() {
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { stored_under(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

//! `visible_latency`: from a write on one device until a live query on another one shows it.
//!
//! The load is open: each write has a time at which it is due, and that is where its clock starts, so that a stall
//! counts for all writes that it holds up. Nothing that does the same was there to compare with; the reference is
//! what the disk takes to make one small write durable, three of which lie on the way.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use farshore_client::store::SqlValue;
use farshore_client::{Client, Goal, LiveQuery};
use farshore_sync_core::ids::RowId;
use farshore_sync_core::value::Value;
use hdrhistogram::Histogram;

use crate::device;
use crate::flights::SCHEMA;
use crate::legs::progress;
use crate::machine::{self, Busy};
use crate::outcome::{Outcome, ensure};
use crate::plan::Plan;
use crate::report::Figure;
use crate::server::Server;

const TENANT: &str = "visible-latency";
const WRITES_PER_SECOND: u32 = 200;
const SECONDS: u32 = 30;
const QUICK_SECONDS: u32 = 5;
/// Writes before the clock starts: connections, caches and files are warm then.
const WARM_UP_WRITES: u32 = 200;
/// A write that is not visible by then is lost.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// Most that the histogram knows, in microseconds.
const MOST_US: u64 = 60_000_000;

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let seconds = if plan.quick { QUICK_SECONDS } else { SECONDS };
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    server.create_tenant(TENANT, SCHEMA)?;
    let writer = connected(plan, &server, &home.path().join("writer"))?;
    let reader = connected(plan, &server, &home.path().join("reader"))?;
    let counter =
        writer.write(|t| t.insert("stock", None, &[("name", Value::from("blankets"))]))?;

    let fsync_before = machine::fsync_probe(home.path())?;
    let writes = WARM_UP_WRITES + seconds * WRITES_PER_SECOND;
    let busy = Busy::of(std::process::id());
    let serving = Busy::of(server.process());
    let measured = measure(&writer, &reader, counter, writes)?;
    let busy = format!("both devices {}, server {}", busy.describe(), serving.describe());
    let fsync_after = machine::fsync_probe(home.path())?;
    for client in [writer, reader] {
        client.close()?;
    }

    let ms = |quantile| measured.visible.value_at_quantile(quantile) as f64 / 1e3;
    let committed_ms = measured.committed.value_at_quantile(0.5) as f64 / 1e3;
    let fsync_ms = f64::midpoint(fsync_before.median_ms, fsync_after.median_ms);
    let reference = "one durable 4 KiB write of the same disk, median";
    let note = format!(
        "visible_latency: {WRITES_PER_SECOND} writes/s for {seconds} s, {} results shown for {} writes; \
         the writer's own commit: median {committed_ms:.2} ms; {busy}",
        measured.shown,
        measured.visible.len()
    );
    Ok(vec![
        Figure::against("visible_latency", ms(0.5), "ms", reference, fsync_ms).noted(note),
        Figure::alone("visible_latency.p99", ms(0.99), "ms"),
        Figure::alone("visible_latency.max", measured.visible.max() as f64 / 1e3, "ms"),
    ])
}

fn connected(_plan: &Plan, server: &Server, dir: &std::path::Path) -> Outcome<Client> {
    let client = device::of_tenant(dir, &server.url(), &server.token(TENANT, "tenant:rw")?)?;
    client.connect()?;
    client.wait_for(Goal::CaughtUp, device::PATIENCE)?;
    Ok(client)
}

struct Measured {
    /// From when a write was due until it was visible on the other device, in microseconds.
    visible: Histogram<u64>,
    /// From when a write was due until it was durable on its own device, in microseconds.
    committed: Histogram<u64>,
    /// How many results the live query gave: it may show several writes at once.
    shown: usize,
}

fn measure(writer: &Client, reader: &Client, counter: RowId, writes: u32) -> Outcome<Measured> {
    // The counter's value is the number of the newest write that is visible.
    let select = "SELECT count FROM stock WHERE id = ?";
    let live = reader.live(select, &[SqlValue::Bytes(counter.as_bytes().to_vec())])?;
    let (arrivals, arrived) = mpsc::channel();
    let watching = thread::spawn(move || watch(live, writes, &arrivals));
    let bar = progress("visible_latency: writes", writes as usize);
    let interval = Duration::from_secs(1) / WRITES_PER_SECOND;
    let started = Instant::now();
    let mut committed = Histogram::new_with_max(MOST_US, 3)?;
    for number in 0..writes {
        let due = started + interval * number;
        thread::park_timeout(due.saturating_duration_since(Instant::now()));
        writer.write(|t| t.increment("stock", counter, "count", 1))?;
        if number >= WARM_UP_WRITES {
            committed.saturating_record(micros(due.elapsed()));
        }
        bar.inc(1);
    }
    watching.join().unwrap_or_else(|_| Err("the watching thread panicked".into()))?;
    bar.finish_and_clear();

    let mut visible = Histogram::new_with_max(MOST_US, 3)?;
    let mut seen = 0;
    let mut shown = 0;
    for (upto, at) in arrived {
        shown += 1;
        for number in seen.max(WARM_UP_WRITES)..upto {
            let due = started + interval * number;
            visible.saturating_record(micros(at.saturating_duration_since(due)));
        }
        seen = upto;
    }
    Ok(Measured { visible, committed, shown })
}

/// Notes when the live query showed which write.
fn watch(mut live: LiveQuery, writes: u32, arrivals: &mpsc::Sender<(u32, Instant)>) -> Outcome {
    let mut newest = 0;
    while newest < writes {
        let result = live.recv_timeout(LOST_AFTER);
        let at = Instant::now();
        let rows =
            result.ok_or_else(|| format!("write {newest} was the last one to be seen"))??;
        newest = match rows.rows.first().map(Vec::as_slice) {
            Some([SqlValue::Int(count)]) => u32::try_from(*count)?,
            _ => 0,
        };
        ensure(arrivals.send((newest, at)).is_ok(), || "nobody listens".into())?;
    }
    Ok(())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

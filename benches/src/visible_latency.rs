//! `visible_latency`: from a write on one device until a live query on another one shows it, while 100 and 1,000
//! others are connected.
//!
//! Those are in sites of 100: each write goes to all of one site, which the measured devices belong to. The load is
//! open: each write has a time at which it is due, and that is where its clock starts, so that a stall counts for all
//! writes that it holds up. Nothing that does the same was there to compare with; the reference is what the disk takes
//! to make one small write durable, three of which lie on the way.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use farshore_client::store::SqlValue;
use farshore_client::{Client, Goal, LiveQuery};
use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;

use crate::crowd::Crowd;
use crate::device;
use crate::drive::{Both, Drive};
use crate::flights::SCHEMA;
use crate::latencies::Latencies;
use crate::legs::progress;
use crate::machine::{self, Busy};
use crate::outcome::{Outcome, ensure};
use crate::plan::Plan;
use crate::report::Figure;
use crate::server::Server;

const NAME: &str = "visible_latency";
const TENANT: &str = "visible-latency";
/// Devices that are connected besides the two that are measured, with what the figures are called.
const CROWDS: [(usize, &str); 2] = [(100, NAME), (1_000, "visible_latency.1000")];
/// How many of them are in one site.
const SITE_DEVICES: usize = 100;
const WRITES_PER_SECOND: u32 = 200;
const SECONDS: u32 = 120;
const QUICK_SECONDS: u32 = 6;
/// In how many parts the time is cut, to see whether the last one is as good as the first.
const PARTS: usize = 4;
/// Writes before the clock starts: connections, caches and files are warm then.
const WARM_UP_WRITES: u32 = 200;
/// A write that is not visible by then is lost.
const LOST_AFTER: Duration = Duration::from_secs(30);

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let mut figures = Vec::new();
    for (devices, name) in CROWDS {
        figures.extend(among(plan, devices, name)?);
    }
    Ok(figures)
}

/// Measures while so many others are connected.
fn among(plan: &Plan, devices: usize, name: &str) -> Outcome<Vec<Figure>> {
    let seconds = if plan.quick { QUICK_SECONDS } else { SECONDS };
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    server.create_tenant(TENANT, SCHEMA)?;
    let schema = Schema::parse(SCHEMA)?;
    let mut crowd = Crowd::default();
    for site in 0..devices / SITE_DEVICES {
        crowd.invite(&server, &schema, (TENANT, &grant(site)), SITE_DEVICES)?;
    }
    let mut others = crowd.connected(0..devices)?;
    let writer = connected(&server, &home.path().join("writer"))?;
    let reader = connected(&server, &home.path().join("reader"))?;

    let fsync_before = machine::fsync_probe(home.path())?;
    let writes = WARM_UP_WRITES + seconds * WRITES_PER_SECOND;
    let (busy, both) =
        (Busy::of(std::process::id()), Both::of(&[others.process()], &[server.process()]));
    let measured = measure(&writer, &reader, writes)?;
    let mut drive = Drive::default();
    drive.note(&both);
    let busy = busy.describe();
    others.is_there()?;
    let fsync_after = machine::fsync_probe(home.path())?;
    for client in [writer, reader] {
        client.close()?;
    }
    let note = format!(
        "{name}: {devices} devices connected in sites of {SITE_DEVICES}; {WRITES_PER_SECOND} writes/s for {seconds} s, \
         {} results shown for {} writes; the writer's own commit: median {:.2} ms; both devices {busy}; \
         the generator is the others",
        measured.shown,
        measured.visible()?.count(),
        measured.committed.ms_at(0.5),
    );
    let fsync_ms = f64::midpoint(fsync_before.median_ms, fsync_after.median_ms);
    let figures = measured.figures(name, fsync_ms)?;
    let mut figures = figures.into_iter();
    let main = figures.next().map(|main| main.noted(note).driven_by(&drive));
    Ok(main.into_iter().chain(figures).collect())
}

/// A device of the site to which each write goes.
fn connected(server: &Server, dir: &Path) -> Outcome<Client> {
    let client = device::of_tenant(dir, &server.url(), &server.token(TENANT, &grant(0))?)?;
    client.connect()?;
    client.wait_for(Goal::CaughtUp, device::PATIENCE)?;
    Ok(client)
}

fn grant(site: usize) -> String {
    format!("site/{}:rw", site_id(site))
}

fn site_id(site: usize) -> String {
    format!("s{site}")
}

struct Measured {
    /// From when a write was due until it was visible on the other device, in each part of the time.
    parts: [Latencies; PARTS],
    /// From when a write was due until it was durable on its own device.
    committed: Latencies,
    /// How many results the live query gave: it may show several writes at once.
    shown: usize,
}

impl Measured {
    /// All parts together.
    fn visible(&self) -> Outcome<Latencies> {
        let mut all = Latencies::new();
        self.parts.iter().try_for_each(|part| all.add(part))?;
        Ok(all)
    }

    fn figures(&self, name: &str, fsync_ms: f64) -> Outcome<[Figure; 4]> {
        let visible = self.visible()?;
        let [first, .., last] = self.parts.each_ref().map(|part| part.ms_at(0.5));
        let of = |what: &str| format!("{name}.{what}");
        let fsync = "one durable 4 KiB write of the same disk, median";
        let in_first = "the median of the first quarter of the same writes";
        Ok([
            Figure::against(name, visible.ms_at(0.5), "ms", fsync, fsync_ms),
            Figure::alone(&of("p99"), visible.ms_at(0.99), "ms"),
            Figure::alone(&of("max"), visible.most_ms(), "ms"),
            Figure::against(&of("last_quarter"), last, "ms", in_first, first),
        ])
    }
}

fn measure(writer: &Client, reader: &Client, writes: u32) -> Outcome<Measured> {
    // What the row says is the number of the newest write that is visible.
    let begins_at = |number: u32| ("starts_at", Value::Timestamp(number.into()));
    let site = ("site_id", Value::from(site_id(0)));
    let visit = writer.write(|t| t.insert("visits", None, &[site.clone(), begins_at(0)]))?;
    let select = "SELECT starts_at FROM visits WHERE id = ?";
    let live = reader.live(select, &[SqlValue::Bytes(visit.as_bytes().to_vec())])?;
    let (arrivals, arrived) = mpsc::channel();
    let watching = thread::spawn(move || watch(live, writes, &arrivals));
    let bar = progress(NAME, writes as usize);
    let interval = Duration::from_secs(1) / WRITES_PER_SECOND;
    let started = Instant::now();
    let mut committed = Latencies::new();
    for number in 0..writes {
        let due = started + interval * number;
        thread::park_timeout(due.saturating_duration_since(Instant::now()));
        writer.write(|t| t.update("visits", visit, &[begins_at(number + 1)]))?;
        if number >= WARM_UP_WRITES {
            committed.note(due.elapsed());
        }
        bar.inc(1);
    }
    watching.join().unwrap_or_else(|_| Err("the watching thread panicked".into()))?;
    bar.finish_and_clear();

    let mut parts = std::array::from_fn(|_| Latencies::new());
    let part_writes = (writes - WARM_UP_WRITES) as usize / PARTS;
    let mut seen = 0;
    let mut shown = 0;
    for (upto, at) in arrived {
        shown += 1;
        for number in seen.max(WARM_UP_WRITES)..upto {
            let due = started + interval * number;
            let part = (number - WARM_UP_WRITES) as usize / part_writes;
            parts[part.min(PARTS - 1)].note(at.saturating_duration_since(due));
        }
        seen = upto;
    }
    Ok(Measured { parts, committed, shown })
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

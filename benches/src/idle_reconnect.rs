//! `idle_reconnect`: what a device that is up to date sends and receives to find that out, at two sizes, against
//! set reconciliation of the same ids.
//!
//! Counted are all bytes after the HTTP upgrade, both ways, WebSocket framing included, until the connection is closed again.

use std::path::Path;
use std::time::{Duration, Instant};

use farshore_client::store::SqlValue;
use farshore_client::{Client, Goal};
use farshore_sync_core::ids::RowId;
use farshore_sync_core::value::Value;

use crate::device;
use crate::flights::{self, Flight, SCHEMA};
use crate::legs::{Readings, progress};
use crate::load;
use crate::machine;
use crate::outcome::{Outcome, ensure};
use crate::plan::Plan;
use crate::proxy::{Carried, Proxy};
use crate::report::Figure;
use crate::server::Server;
use crate::set_reconciliation::{self, Exchange};

const SMALL_ROWS: usize = 1_000;
const LARGE_ROWS: usize = 1_000_000;
const QUICK_LARGE_ROWS: usize = 27_000;
const DOCUMENTS: usize = 10_000;
const QUICK_DOCUMENTS: usize = 1_000;
/// Reconnects over which the server's processor time is taken.
const TIMED_RECONNECTS: u32 = 50;
const DOCUMENTS_PER_TRANSACTION: usize = 100;
/// How long a connection may take to be closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// What a device holds.
#[derive(Debug, Clone, Copy)]
pub struct Holdings {
    pub rows: usize,
    pub documents: usize,
}

/// What was found at one size.
pub struct Size {
    /// Processor time of the server for one reconnect, with the HTTP upgrade and the token's signature.
    pub server_ms: f64,
    pub bytes: Readings,
    upgrade_bytes: Readings,
    round_trips: Readings,
    elapsed_ms: Readings,
    negentropy: Exchange,
}

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let large_rows = if plan.quick { QUICK_LARGE_ROWS } else { LARGE_ROWS };
    let documents = if plan.quick { QUICK_DOCUMENTS } else { DOCUMENTS };
    let flights = flights::read(large_rows.min(plan.rows()))?;
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    let at_size =
        |tenant, rows| at_size(plan, &server, tenant, &flights, Holdings { rows, documents });
    let small = at_size("idle-small", SMALL_ROWS)?;
    let large = at_size("idle-large", large_rows)?;

    let peer =
        |rows: usize| format!("negentropy on the ids of {rows} rows and {documents} documents");
    let figure = |name: &str, size: &Size, rows| {
        let theirs = size.negentropy.bytes as f64;
        let note = format!(
            "{name}: {rows} rows: {} bytes, the HTTP upgrade {} besides; {} round trip(s), the SDK reports {} ms",
            size.bytes.describe(),
            size.upgrade_bytes.describe(),
            size.round_trips.describe(),
            size.elapsed_ms.describe()
        );
        Figure::against(name, size.bytes.median(), "bytes", &peer(rows), theirs).noted(note)
    };
    let round_trips = large.round_trips.range().1.max(small.round_trips.range().1);
    Ok(vec![
        figure("idle_reconnect", &large, large_rows),
        figure("idle_reconnect.small", &small, SMALL_ROWS),
        Figure::against(
            "idle_reconnect.round_trips",
            round_trips,
            "round trips",
            &peer(large_rows),
            large.negentropy.round_trips as f64,
        ),
        Figure::alone("idle_reconnect.server_time", large.server_ms, "ms of a processor"),
        Figure::alone("idle_reconnect.upgrade", large.upgrade_bytes.median(), "bytes"),
    ])
}

/// Fills a tenant and a device, and lets it find out again and again that nothing changed.
pub fn at_size(
    plan: &Plan,
    server: &Server,
    tenant: &str,
    flights: &[Flight],
    holdings: Holdings,
) -> Outcome<Size> {
    server.create_tenant(tenant, SCHEMA)?;
    let home = plan.fresh_dir()?;
    let notes = write_documents(server, tenant, &home.path().join("author"), holdings.documents)?;
    let ids = flights::ids(holdings.rows, device::now_ms())?;
    load::seed(server, tenant, &ids, flights)?;

    let proxy = Proxy::to(server.address())?;
    let dir = home.path().join("device");
    let client = device::of_tenant(&dir, &proxy.url(), &server.token(tenant, "tenant:rw")?)?;
    fill(&client, holdings)?;
    client.disconnect();
    wait_until_closed(&proxy)?;
    proxy.take();

    let mut sizes = [const { Vec::new() }; 4];
    let bar = progress(&format!("idle_reconnect: {} rows", holdings.rows), plan.pairs);
    for _ in 0..plan.pairs {
        let (carried, elapsed_ms) = reconnect(&client, &proxy)?;
        let bytes = carried.up + carried.down;
        let found = [bytes, carried.upgrade, carried.round_trips].map(|count| count as f64);
        let found = found.into_iter().chain([elapsed_ms as f64]);
        sizes.iter_mut().zip(found).for_each(|(readings, found)| readings.push(found));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let serving = machine::processor_time(server.process());
    for _ in 0..TIMED_RECONNECTS {
        reconnect(&client, &proxy)?;
    }
    let serving = machine::processor_time(server.process()).zip(serving);
    let serving = serving.ok_or("this system does not say how long a process ran")?;
    let server_ms =
        serving.0.saturating_sub(serving.1).as_secs_f64() * 1e3 / f64::from(TIMED_RECONNECTS);
    client.close()?;
    let [bytes, upgrade_bytes, round_trips, elapsed_ms] = sizes.map(Readings::new);
    let all_ids = [ids, notes].concat();
    let negentropy = set_reconciliation::of_equal_sides(&all_ids)?;
    Ok(Size { server_ms, bytes, upgrade_bytes, round_trips, elapsed_ms, negentropy })
}

/// A device of its own writes the documents and goes; gives their ids.
fn write_documents(
    server: &Server,
    tenant: &str,
    dir: &Path,
    documents: usize,
) -> Outcome<Vec<RowId>> {
    let author = device::of_tenant(dir, &server.url(), &server.token(tenant, "tenant:rw")?)?;
    for batch in 0..documents / DOCUMENTS_PER_TRANSACTION {
        author.write(|transaction| {
            for number in 0..DOCUMENTS_PER_TRANSACTION {
                let title = format!("Visit {}", batch * DOCUMENTS_PER_TRANSACTION + number);
                let text =
                    format!("{title}: the door of gate {number} was checked and closes again.");
                let note = transaction.insert("notes", None, &[("title", Value::from(title))])?;
                transaction.edit_text("notes", note, "body", "text", 0, 0, &text)?;
            }
            Ok(())
        })?;
    }
    let report = author.sync_once(device::PATIENCE)?;
    ensure(report.complete, || format!("the documents did not get there: {:?}", report.cause))?;
    let found = author.query("SELECT id FROM notes", &[])?;
    let id = |row: &Vec<SqlValue>| match row.as_slice() {
        [SqlValue::Bytes(id)] => Ok(RowId::from_bytes(id.as_slice().try_into()?)),
        other => Err(format!("{other:?} is no id").into()),
    };
    let ids = found.rows.iter().map(id).collect::<Outcome<Vec<_>>>()?;
    author.close()?;
    Ok(ids)
}

fn fill(client: &Client, Holdings { rows, documents }: Holdings) -> Outcome {
    client.connect()?;
    client.wait_for(Goal::CaughtUp, device::PATIENCE)?;
    let count = |what| device::integer(client, &format!("SELECT count(*) FROM {what}"));
    let (flights, notes) = (count("flights")?, count("notes")?);
    let is_full = usize::try_from(flights) == Ok(rows) && usize::try_from(notes) == Ok(documents);
    ensure(is_full, || format!("the device has {flights} rows and {notes} documents"))?;
    ensure(client.status().in_step, || "the device is not in step with the server".into())
}

fn reconnect(client: &Client, proxy: &Proxy) -> Outcome<(Carried, u64)> {
    let report = client.sync_once(device::PATIENCE)?;
    ensure(report.complete, || format!("the device did not catch up: {:?}", report.cause))?;
    ensure(report.advanced == 0, || "something changed meanwhile".into())?;
    wait_until_closed(proxy)?;
    Ok((proxy.take(), report.elapsed_ms))
}

fn wait_until_closed(proxy: &Proxy) -> Outcome {
    let started = Instant::now();
    while proxy.is_open() {
        ensure(started.elapsed() < CLOSED_WITHIN, || "the connection was not closed".into())?;
        std::thread::park_timeout(BETWEEN_LOOKS);
    }
    Ok(())
}

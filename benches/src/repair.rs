//! `repair`: one row of a large copy differs in the device's file, as after a fault of its memory: what it takes to
//! find and mend it when the device comes back.

use std::path::Path;
use std::time::{Duration, Instant};

use farshore_client::Goal;
use farshore_sync_core::digest::{Buckets, Sum, bucket_of};
use farshore_sync_core::ids::RowId;
use rusqlite::params;

use crate::device;
use crate::flights::{self, SCHEMA};
use crate::load;
use crate::outcome::{Outcome, ensure};
use crate::plan::Plan;
use crate::proxy::Proxy;
use crate::report::Figure;
use crate::server::Server;

const NAME: &str = "repair";
const TENANT: &str = "repair";
const ROWS: usize = 1_000_000;
const QUICK_ROWS: usize = 27_000;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
/// A value that no flight has.
const WRONG_DELAY: i64 = 123_456;
/// A sum that no row has.
const WRONG_SUM: Sum = Sum(0x0bad_0bad);

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let rows = if plan.quick { QUICK_ROWS } else { ROWS };
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    server.create_tenant(TENANT, SCHEMA)?;
    let ids = flights::ids(rows, device::now_ms())?;
    load::seed(&server, TENANT, &ids, &flights::read(rows.min(plan.rows()))?)?;
    let token = server.token(TENANT, "tenant:rw")?;
    let dir = plan.fresh_dir()?;
    let client = device::of_tenant(dir.path(), &server.url(), &token)?;
    let report = client.sync_once(device::PATIENCE)?;
    ensure(report.complete, || format!("the device did not fill: {:?}", report.cause))?;
    let before = client.digests()?;
    client.close()?;
    alter(dir.path(), ids[rows / 2])?;

    let proxy = Proxy::to(server.address())?;
    let client = device::of_tenant(dir.path(), &proxy.url(), &token)?;
    let wrong = format!("SELECT count(*) FROM flights WHERE dep_delay = {WRONG_DELAY}");
    ensure(device::integer(&client, &wrong)? == 1, || "the row was not altered".into())?;
    let started = Instant::now();
    client.connect()?;
    client.wait_for(Goal::CaughtUp, device::PATIENCE)?;
    while client.status().repairs == 0 || !client.status().in_step {
        ensure(started.elapsed() < device::PATIENCE, || "the row was not mended".into())?;
        std::thread::park_timeout(BETWEEN_LOOKS);
    }
    let took = started.elapsed();
    ensure(device::integer(&client, &wrong)? == 0, || "the row is still wrong".into())?;
    ensure(client.digests()? == before, || "the sums are others than before".into())?;
    let carried = proxy.take();
    client.close()?;
    let bytes = (carried.up + carried.down) as f64 / 1024.0;
    // The first one is Hello, which every connection has.
    let round_trips = carried.round_trips.saturating_sub(1) as f64;
    let note = format!(
        "{NAME}: one row of {rows} altered in the device's file: mended {:.0} ms after connecting; \
         {} bytes up, {} down, Hello and its answer included",
        took.as_secs_f64() * 1e3,
        carried.up,
        carried.down
    );
    Ok(vec![
        Figure::alone(NAME, bytes, "KiB").noted(note),
        Figure::alone("repair.round_trips", round_trips, "round trips"),
    ])
}

/// Changes a value and counts the row with another sum, as a device would that had stored something else.
fn alter(dir: &Path, row: RowId) -> Outcome {
    let file = device::behind_the_sdk(dir)?;
    let id = row.as_bytes();
    let (sum, scope, collection, buckets): ([u8; 16], i64, i64, Vec<u8>) = file.query_row(
        "SELECT fs_sum, d.scope, d.collection, d.buckets
         FROM fs_rows_flights r JOIN fs_digests d ON d.scope = r.fs_scope WHERE r.id = ?1",
        [id],
        |found| Ok((found.get(0)?, found.get(1)?, found.get(2)?, found.get(3)?)),
    )?;
    let mut buckets = Buckets::from_bytes(&buckets).ok_or("the buckets are damaged")?;
    let bucket = buckets.bucket_mut(bucket_of(row));
    bucket.remove(Sum(u128::from_le_bytes(sum)));
    bucket.add(WRONG_SUM);
    let changed = file.execute(
        "UPDATE fs_rows_flights SET dep_delay = ?1, fs_sum = ?2 WHERE id = ?3",
        params![WRONG_DELAY, WRONG_SUM.0.to_le_bytes(), id],
    )? + file.execute(
        "UPDATE fs_digests SET buckets = ?1, total = ?2 WHERE scope = ?3 AND collection = ?4",
        params![buckets.to_bytes(), buckets.total().0.to_le_bytes(), scope, collection],
    )?;
    ensure(changed == 2, || format!("{changed} rows were altered, not one and its sums"))
}

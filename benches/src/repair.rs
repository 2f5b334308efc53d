//! `repair`: one row of a large copy differs in the device's file, as after a fault of its memory, and then one in the
//! server's: what it takes to find it and to make both the same when the device comes back. The server's copy decides.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use farshore_client::Goal;
use farshore_store::sealing::MasterKey;
use farshore_sync_core::digest::{Buckets, DigestKey, Sum, bucket_of, row_sum};
use farshore_sync_core::ids::{CollectionId, RowId, Scope};
use farshore_sync_core::row::RowState;
use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;
use rusqlite::{Connection, params};

use crate::device;
use crate::flights::{self, SCHEMA};
use crate::load;
use crate::outcome::{Outcome, ensure};
use crate::plan::Plan;
use crate::proxy::{Carried, Proxy};
use crate::report::Figure;
use crate::server::Server;

const NAME: &str = "repair";
const TENANT: &str = "repair";
const ROWS: usize = 1_000_000;
const QUICK_ROWS: usize = 27_000;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
/// A value that no flight has.
const WRONG_DELAY: i64 = 123_456;
/// How the server's files are authenticated.
const CIPHER: &str = "PRAGMA cipher_hmac_algorithm = HMAC_SHA256;";
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
    let sound = client.digests()?;
    client.close()?;

    alter_device(dir.path(), ids[rows / 2])?;
    let of_device = mend(dir.path(), &server, &token, [1, 0])?;
    ensure(of_device.digests == sound, || "the sums are others than before".into())?;
    let server = server
        .while_stopped(home.path(), |master| alter_server(home.path(), master, ids[rows / 3]))?;
    let of_server = mend(dir.path(), &server, &token, [0, 1])?;
    ensure(of_server.digests != sound, || "the server had not altered a row".into())?;
    let device = of_device.figures(NAME, "repair.round_trips", "the device's", rows);
    let server =
        of_server.figures("repair.server", "repair.server.round_trips", "the server's", rows);
    Ok([device, server].concat())
}

/// What it took until the copies were the same.
struct Mended {
    took: Duration,
    carried: Carried,
    /// Of the device's copy afterwards.
    digests: Vec<(Scope, CollectionId, Sum)>,
}

/// Lets the device meet the server; it has so many wrong rows before and after.
fn mend(dir: &Path, server: &Server, token: &str, wrong: [i64; 2]) -> Outcome<Mended> {
    let proxy = Proxy::to(server.address())?;
    let client = device::of_tenant(dir, &proxy.url(), token)?;
    let count = format!("SELECT count(*) FROM flights WHERE dep_delay = {WRONG_DELAY}");
    let found = device::integer(&client, &count)?;
    ensure(found == wrong[0], || format!("{found} rows are wrong before, not {}", wrong[0]))?;
    let started = Instant::now();
    client.connect()?;
    client.wait_for(Goal::CaughtUp, device::PATIENCE)?;
    while client.status().repairs == 0 || !client.status().in_step {
        ensure(started.elapsed() < device::PATIENCE, || "the row was not mended".into())?;
        std::thread::park_timeout(BETWEEN_LOOKS);
    }
    let took = started.elapsed();
    let found = device::integer(&client, &count)?;
    ensure(found == wrong[1], || format!("{found} rows are wrong afterwards, not {}", wrong[1]))?;
    let (digests, carried) = (client.digests()?, proxy.take());
    client.close()?;
    Ok(Mended { took, carried, digests })
}

impl Mended {
    fn figures(
        &self,
        name: &'static str,
        round_trips: &'static str,
        whose: &str,
        rows: usize,
    ) -> Vec<Figure> {
        let Self { took, carried, .. } = self;
        let note = format!(
            "{name}: one row of {rows} altered in {whose} file: the same {:.0} ms after connecting; \
             {} bytes up, {} down, Hello and its answer included",
            took.as_secs_f64() * 1e3,
            carried.up,
            carried.down
        );
        let bytes = (carried.up + carried.down) as f64 / 1024.0;
        // The first one is Hello, which every connection has.
        let trips = carried.round_trips.saturating_sub(1) as f64;
        vec![
            Figure::alone(name, bytes, "KiB").noted(note),
            Figure::alone(round_trips, trips, "round trips"),
        ]
    }
}

/// Changes a value and counts the row with another sum, as a device would that had stored something else.
fn alter_device(dir: &Path, row: RowId) -> Outcome {
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

/// Does the same to the file of a server that does not run.
fn alter_server(home: &Path, master: &MasterKey, row: RowId) -> Outcome {
    let tenants = home.join("data").join("tenants");
    let sealed = fs::read(tenants.join(TENANT).with_extension("key"))?;
    let key = master.open(&format!("tenant-key/{TENANT}"), &sealed)?;
    let file = Connection::open(tenants.join(TENANT).with_extension("db"))?;
    let key = HEXLOWER.encode(&key);
    file.execute_batch(&format!("PRAGMA key = \"x'{key}'\"; {CIPHER}"))?;
    let read =
        "SELECT digest_key, collection, state FROM standing, changes WHERE id = ?1 AND kind = 0";
    let (digest_key, collection, state): (_, u16, Vec<u8>) =
        file.query_row(read, [row.as_bytes()], |found| {
            Ok((DigestKey(found.get(0)?), found.get(1)?, found.get(2)?))
        })?;
    let mut altered = RowState::decode(&state)?;
    let schema = Schema::parse(SCHEMA)?;
    let delay =
        schema.collections.iter().find_map(|collection| collection.column_named("dep_delay"));
    let delay = delay.ok_or("flights have no delay")?.column_id();
    let cell = altered.cells.iter_mut().find(|cell| cell.column == delay);
    cell.ok_or("the flight has no delay")?.value = Value::Int(WRONG_DELAY);
    let altered = altered.encode();
    let sum = |state: &[u8]| row_sum(&digest_key, CollectionId(collection), row, state);
    // There is one scope, and one collection with rows in it.
    let buckets: Vec<u8> = file.query_row("SELECT buckets FROM sums", [], |found| found.get(0))?;
    let mut buckets = Buckets::from_bytes(&buckets).ok_or("the buckets are damaged")?;
    let bucket = buckets.bucket_mut(bucket_of(row));
    bucket.remove(sum(&state));
    bucket.add(sum(&altered));
    let total = buckets.total().0.to_le_bytes();
    let changed = file
        .execute("UPDATE changes SET state = ?1 WHERE id = ?2", params![altered, row.as_bytes()])?
        + file.execute(
            "UPDATE sums SET buckets = ?1, total = ?2",
            params![buckets.to_bytes(), total],
        )?;
    ensure(changed == 2, || format!("{changed} rows were altered, not one and its sums"))
}

//! `durable_push`: acknowledged rows a second from 16 devices that push transactions of 100 rows, against SQLite by
//! hand with `synchronous=FULL` and one transaction for each 100 rows.
//!
//! Each device has a scope of its own, so that nobody receives what the others write. The devices send what was
//! encoded beforehand and store nothing.

use farshore_sync_core::ids::RowId;
use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;

use crate::device;
use crate::drive::Drive;
use crate::flights::{self, Flight, SCHEMA_BY_SITE};
use crate::legs::in_turns;
use crate::load::{Load, ROWS_PER_TRANSACTION, Shape, Target};
use crate::machine;
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::pushing::Push;
use crate::report::Figure;
use crate::server::Server;
use crate::sqlite::{Encryption, Raw};

/// Devices, each in a scope of its own.
pub const DEVICES: usize = 16;
const ROWS_PER_DEVICE: usize = 4_000;
const QUICK_ROWS_PER_DEVICE: usize = 1_000;

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let rows_per_device = if plan.quick { QUICK_ROWS_PER_DEVICE } else { ROWS_PER_DEVICE };
    let rows = rows_per_device * DEVICES;
    let flights = flights_by_site(rows_per_device)?;
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    let schema = Schema::parse(SCHEMA_BY_SITE)?;

    let mut leg = 0;
    let mut drive = Drive::default();
    let mut ours = || {
        // A tenant of its own for each run: a file of its own, as the reference has one.
        leg += 1;
        let tenant = format!("durable-push-{leg}");
        server.create_tenant(&tenant, SCHEMA_BY_SITE)?;
        let loads = prepare(&server, &tenant, &schema, &flights)?;
        drive.run(&Push(loads), &[server.process()])
    };
    let ids = flights::ids(rows, device::now_ms())?;
    let by_hand = |encryption| {
        let dir = plan.fresh_dir()?;
        let mut raw = Raw::create(&dir.path().join("raw.db"), encryption, &flights[0])?;
        raw.insert(&ids, &flights, ROWS_PER_TRANSACTION)
    };
    let [ours, plain, encrypted] = in_turns(
        "durable_push",
        plan.pairs,
        [
            ("16 devices", &mut ours),
            ("SQLite by hand", &mut || by_hand(Encryption::Off)),
            ("SQLCipher by hand", &mut || by_hand(Encryption::On)),
        ],
    )?;
    let plain_reference = "SQLite by hand, not encrypted, synchronous=FULL, batches of 100";
    let encrypted_reference = "SQLCipher by hand, synchronous=FULL, batches of 100";
    let mut figures = vec![
        Figure::of_rates("durable_push", &ours, plain_reference, &plain).driven_by(&drive),
        Figure::of_rates("durable_push.encrypted", &ours, encrypted_reference, &encrypted),
    ];
    if let Some(memory) = machine::peak_memory_mib(server.process()) {
        figures.push(Figure::alone("durable_push.server_memory", memory, "MiB"));
    }
    Ok(figures)
}

/// What the devices push, each its own part.
pub fn flights_by_site(rows_per_device: usize) -> Outcome<Vec<Flight>> {
    let mut flights = flights::read(rows_per_device * DEVICES)?;
    for (site, flights) in flights.chunks_mut(rows_per_device).enumerate() {
        flights.iter_mut().for_each(|flight| flight.push(("site_id", Value::from(site_id(site)))));
    }
    Ok(flights)
}

/// The load of each device, on one server.
pub fn prepare(
    server: &Server,
    tenant: &str,
    schema: &Schema,
    flights: &[Flight],
) -> Outcome<Vec<Load>> {
    prepare_on(&[server], tenant, schema, flights)
}

/// The load of each device, on several servers in turns.
pub fn prepare_on(
    servers: &[&Server],
    tenant: &str,
    schema: &Schema,
    flights: &[Flight],
) -> Outcome<Vec<Load>> {
    let per_device = flights.len() / DEVICES;
    let now_ms = device::now_ms();
    let ids = flights::ids_of_devices(DEVICES, per_device, ROWS_PER_TRANSACTION, now_ms)?;
    let parts = ids.chunks(per_device).zip(flights.chunks(per_device)).enumerate();
    let load = |(site, (ids, flights)): (usize, (&[RowId], &[Flight]))| {
        let server = servers[site % servers.len()];
        let grant = format!("site/{}:rw", site_id(site));
        let target = Target { server, tenant, schema, grant: &grant };
        Load::prepare(target, Shape::BULK, ids, flights)
    };
    parts.map(load).collect()
}

fn site_id(site: usize) -> String {
    format!("s{site:02}")
}

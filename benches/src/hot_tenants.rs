//! `hot_tenants`: acknowledged transactions of one row a second from 1,000 devices that each wait for the answer
//! before they send the next, each in a tenant of its own, against as many devices in one tenant.
//!
//! Fsyncs are counted by the kernel, not by us. All tenants are in use, and the server may keep as many open: closing
//! and opening the file of a tenant costs it some fsyncs as well, which are not those of its commits.

use std::thread;

use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;

use crate::device;
use crate::drive::Drive;
use crate::flights::{self, Flight, SCHEMA_BY_SITE};
use crate::legs::{Readings, in_turns, progress};
use crate::load::{Load, Shape, Target};
use crate::outcome::{Failure, Outcome};
use crate::plan::Plan;
use crate::pushing::Push;
use crate::report::Figure;
use crate::server::Server;
use crate::syncs::Syncs;

const NAME: &str = "hot_tenants";
const DEVICES: usize = 1_000;
const QUICK_DEVICES: usize = 100;
/// Of each device in each run.
const ROWS: usize = 20;
/// Tenants that are open beside those of the devices.
const TENANTS_BESIDE: usize = 8;
/// Commands that prepare tenants and devices at a time.
const PREPARING: usize = 4;
const UNIT: &str = "transactions/s";
const SITE: &str = "s00";

/// What the devices push in each run; the first one stands last.
type Runs = Vec<Vec<Load>>;

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let devices = if plan.quick { QUICK_DEVICES } else { DEVICES };
    let home = plan.fresh_dir()?;
    let open = format!("max_open_tenants = {}", devices + TENANTS_BESIDE);
    let server = Server::start_with_store(home.path(), &open)?;
    let many = Many { prefix: "hot", devices, rows: ROWS, shape: Shape::ONE_BY_ONE };
    let (mut of_many, mut of_one) = prepare(plan, &server, &many)?;

    let mut drive = Drive::default();
    let (mut syncs_many, mut syncs_one) = (Vec::new(), Vec::new());
    let mut uncounted = None;
    let rows = (devices * ROWS) as f64;
    let mut leg = |runs: &mut Runs, syncs: &mut Vec<f64>| {
        let loads = runs.pop().ok_or("more runs than were prepared")?;
        let counting = Syncs::of(server.process(), home.path());
        let rate = drive.run(&Push(loads), &[server.process()])?;
        match counting.and_then(Syncs::count) {
            Ok(count) => syncs.push(count as f64 / rows),
            Err(missing) => uncounted = Some(missing),
        }
        Ok::<_, Failure>(rate)
    };
    let leg = std::cell::RefCell::new(&mut leg);
    let [many, one] = in_turns(
        NAME,
        plan.pairs,
        [
            ("many tenants", &mut || (leg.borrow_mut())(&mut of_many, &mut syncs_many)),
            ("one tenant", &mut || (leg.borrow_mut())(&mut of_one, &mut syncs_one)),
        ],
    )?;
    let reference = format!("{devices} devices in one tenant");
    let figure = Figure::of_legs(NAME, UNIT, &many, &reference, &one);
    let note = format!("{}; {devices} tenants", figure.note);
    let mut figures = vec![figure.noted(note).driven_by(&drive)];
    figures.push(match uncounted {
        None => Figure::against(
            "hot_tenants.fsyncs",
            Readings::new(syncs_many).median(),
            "fsyncs a row",
            &reference,
            Readings::new(syncs_one).median(),
        ),
        Some(missing) => Figure::alone("hot_tenants.fsyncs", f64::NAN, "fsyncs a row")
            .remarked(missing.to_string()),
    });
    Ok(figures)
}

/// Devices that each have a tenant of their own, and as many that share one.
#[derive(Debug, Clone, Copy)]
pub struct Many<'a> {
    /// What the names of the tenants begin with.
    pub prefix: &'a str,
    pub devices: usize,
    /// Of each device in each run.
    pub rows: usize,
    pub shape: Shape,
}

/// The loads of each run: of devices in tenants of their own, and of as many in one tenant.
pub fn prepare(plan: &Plan, server: &Server, many: &Many<'_>) -> Outcome<(Runs, Runs)> {
    let Many { prefix, devices, rows, shape } = *many;
    let schema = Schema::parse(SCHEMA_BY_SITE)?;
    let rows = rows * plan.pairs;
    let shared = format!("{prefix}-one");
    server.create_tenant(&shared, SCHEMA_BY_SITE)?;
    let numbers: Vec<usize> = (0..devices).collect();
    let bar = progress("preparing tenants", devices);
    let flights = flights::read(rows)?;
    let prepare_one = |number: &usize| {
        let (tenant, site) = (format!("{prefix}-{number}"), format!("s{number}"));
        server.create_tenant(&tenant, SCHEMA_BY_SITE)?;
        let load = |tenant, site| load_of(server, &schema, (tenant, site, shape), &flights);
        let many = load(&tenant, SITE)?.split(plan.pairs);
        let one = load(&shared, &site)?.split(plan.pairs);
        bar.inc(1);
        Ok::<_, Failure>((many, one))
    };
    let prepared: Vec<Outcome<Vec<_>>> = thread::scope(|scope| {
        let parts: Vec<_> = numbers
            .chunks(devices.div_ceil(PREPARING))
            .map(|numbers| scope.spawn(move || numbers.iter().map(prepare_one).collect()))
            .collect();
        let joined = parts.into_iter().map(thread::ScopedJoinHandle::join);
        joined
            .map(|part| part.unwrap_or_else(|_| Err("a preparing thread panicked".into())))
            .collect()
    });
    bar.finish_and_clear();
    let empty = || (0..plan.pairs).map(|_| Vec::with_capacity(devices)).collect::<Runs>();
    let (mut of_many, mut of_one) = (empty(), empty());
    for (many, one) in prepared.into_iter().collect::<Outcome<Vec<_>>>()?.into_iter().flatten() {
        // Runs are taken from the end, and numbers rise.
        of_many.iter_mut().rev().zip(many).for_each(|(run, load)| run.push(load));
        of_one.iter_mut().rev().zip(one).for_each(|(run, load)| run.push(load));
    }
    Ok((of_many, of_one))
}

/// What one device of a site pushes.
pub fn load_of(
    server: &Server,
    schema: &Schema,
    (tenant, site, shape): (&str, &str, Shape),
    flights: &[Flight],
) -> Outcome<Load> {
    let mut flights = flights.to_vec();
    flights.iter_mut().for_each(|flight| flight.push(("site_id", Value::from(site))));
    let ids = flights::ids(flights.len(), device::now_ms())?;
    let grant = format!("site/{site}:rw");
    let target = Target { server, tenant, schema, grant: &grant };
    Load::prepare(target, shape, &ids, &flights)
}

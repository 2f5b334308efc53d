//! `single_write`: acknowledged transactions of one row a second, from 64 devices of one tenant that each wait for
//! the answer before they send the next, against `pgbench` inserting the same rows one by one from 64 clients.
//!
//! Each device has a scope of its own, so that nobody receives what the others write: Postgres sends nothing on
//! either.

use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;

use crate::device;
use crate::drive::Drive;
use crate::flights::{self, SCHEMA_BY_SITE};
use crate::legs::{Readings, in_turns, progress};
use crate::load::{Load, Shape, Target};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::postgres::{self, Postgres};
use crate::pushing::Push;
use crate::report::Figure;
use crate::server::Server;

const DEVICES: usize = 64;
const ROWS_PER_DEVICE: usize = 400;
const QUICK_ROWS_PER_DEVICE: usize = 50;
const NAME: &str = "single_write";
const UNIT: &str = "transactions/s";

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let rows_per_device = if plan.quick { QUICK_ROWS_PER_DEVICE } else { ROWS_PER_DEVICE };
    let mut flights = flights::read(rows_per_device * DEVICES)?;
    for (site, flights) in flights.chunks_mut(rows_per_device).enumerate() {
        flights.iter_mut().for_each(|flight| flight.push(("site_id", Value::from(site_id(site)))));
    }
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    let schema = Schema::parse(SCHEMA_BY_SITE)?;
    let mut leg = 0;
    let mut drive = Drive::default();
    let mut ours = || {
        leg += 1;
        let tenant = format!("single-write-{leg}");
        server.create_tenant(&tenant, SCHEMA_BY_SITE)?;
        let ids = flights::ids_of_devices(DEVICES, rows_per_device, 1, device::now_ms())?;
        let parts = ids.chunks(rows_per_device).zip(flights.chunks(rows_per_device)).enumerate();
        let loads = parts.map(|(site, (ids, flights))| {
            let grant = format!("site/{}:rw", site_id(site));
            let target =
                Target { server: &server, tenant: &tenant, schema: &schema, grant: &grant };
            Load::prepare(target, Shape::ONE_BY_ONE, ids, flights)
        });
        let loads = loads.collect::<Outcome<_>>()?;
        drive.run(&Push(loads), &[server.process()])
    };
    let (ours, theirs) = match Postgres::start(&plan.open_dir()?) {
        Ok(postgres) => {
            postgres.create_table(&flights[0])?;
            let mut peer = || postgres.insert_one_by_one(DEVICES, rows_per_device, &flights[0]);
            let legs: [(&str, crate::legs::Leg<'_>); 2] =
                [("64 devices", &mut ours), ("pgbench", &mut peer)];
            let [ours, theirs] = in_turns(NAME, plan.pairs, legs)?;
            (ours, Ok(theirs))
        }
        Err(missing) => {
            let bar = progress(NAME, plan.pairs);
            let readings = (0..plan.pairs).map(|_| ours()).collect::<Outcome<_>>()?;
            bar.finish_and_clear();
            (Readings::new(readings), Err(missing))
        }
    };
    let figure = match theirs {
        Ok(theirs) => Figure::of_legs(NAME, UNIT, &ours, postgres::REFERENCE, &theirs),
        Err(missing) => Figure::alone(NAME, ours.median(), UNIT).remarked(missing.to_string()),
    };
    Ok(vec![figure.driven_by(&drive)])
}

fn site_id(site: usize) -> String {
    format!("s{site:02}")
}

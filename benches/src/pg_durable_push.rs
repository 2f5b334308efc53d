//! `pg_durable_push`: `durable_push` with the tenants in Postgres, against the same rows through the same driver by hand:
//! one UNNEST insert for each transaction of 100, over one connection and over as many as there are devices.

use farshore_sync_core::schema::Schema;

use crate::device;
use crate::drive::Drive;
use crate::driver::Driver;
use crate::durable_push::{DEVICES, flights_by_site, prepare};
use crate::flights::{self, SCHEMA_BY_SITE};
use crate::legs::in_turns;
use crate::load::ROWS_PER_TRANSACTION;
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::postgres::Postgres;
use crate::pushing::Push;
use crate::report::Figure;
use crate::server::Server;

const NAME: &str = "pg_durable_push";
const ROWS_PER_DEVICE: usize = 4_000;
const QUICK_ROWS_PER_DEVICE: usize = 1_000;

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let rows_per_device = if plan.quick { QUICK_ROWS_PER_DEVICE } else { ROWS_PER_DEVICE };
    let flights = flights_by_site(rows_per_device)?;
    let (home, cluster) = (plan.fresh_dir()?, plan.open_dir()?);
    let postgres = Postgres::start(&cluster)?;
    let server = Server::start_on_postgres(home.path(), &postgres.fresh_database("ours")?, "")?;
    let driver = Driver::new(&postgres.fresh_database("by_hand")?)?;
    let schema = Schema::parse(SCHEMA_BY_SITE)?;

    let mut leg = 0;
    let mut drive = Drive::default();
    let mut ours = || {
        // A tenant of its own for each run: tables of its own, as the reference has them.
        leg += 1;
        let tenant = format!("durable-push-{leg}");
        server.create_tenant(&tenant, SCHEMA_BY_SITE)?;
        let loads = prepare(&server, &tenant, &schema, &flights)?;
        postgres.checkpoint()?;
        drive.run(&Push(loads), &[server.process()])
    };
    let ids = flights::ids(flights.len(), device::now_ms())?;
    let by_hand = |connections| {
        postgres.checkpoint()?;
        driver.insert(connections, &ids, &flights, ROWS_PER_TRANSACTION)
    };
    let [ours, one, many] = in_turns(
        NAME,
        plan.pairs,
        [
            ("16 devices", &mut ours),
            ("one connection by hand", &mut || by_hand(1)),
            ("16 connections by hand", &mut || by_hand(DEVICES)),
        ],
    )?;
    let reference = "UNNEST inserts of 100 rows by sqlx, one connection, fsync=on";
    let by_many = "UNNEST inserts of 100 rows by sqlx, 16 connections, fsync=on";
    Ok(vec![
        Figure::of_rates(NAME, &ours, reference, &one).driven_by(&drive),
        Figure::of_rates("pg_durable_push.concurrent", &ours, by_many, &many),
    ])
}

//! `pg_fanout`: acknowledged rows a second from 16 devices of one tenant in Postgres that are spread over two nodes with
//! a bus, against as many devices at one node without a bus.
//!
//! Everything runs on one machine: what two nodes could do on two is not measured, but what they cost each other.

use farshore_sync_core::schema::Schema;

use crate::drive::Drive;
use crate::durable_push::{flights_by_site, prepare_on};
use crate::flights::SCHEMA_BY_SITE;
use crate::legs::in_turns;
use crate::nats::Nats;
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::postgres::Postgres;
use crate::pushing::Push;
use crate::report::Figure;
use crate::server::Server;

const NAME: &str = "pg_fanout";
const ROWS_PER_DEVICE: usize = 4_000;
const QUICK_ROWS_PER_DEVICE: usize = 1_000;

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let rows_per_device = if plan.quick { QUICK_ROWS_PER_DEVICE } else { ROWS_PER_DEVICE };
    let flights = flights_by_site(rows_per_device)?;
    let cluster = plan.open_dir()?;
    let postgres = Postgres::start(&cluster)?;
    let homes = [plan.fresh_dir()?, plan.fresh_dir()?, plan.fresh_dir()?];
    let alone = Server::start_on_postgres(homes[0].path(), &postgres.fresh_database("alone")?, "")?;
    let nats = Nats::start()?;
    let (url, bus) =
        (postgres.fresh_database("shared")?, format!("[bus]\nurl = {:?}\n", nats.url()));
    let first = Server::start_on_postgres(homes[1].path(), &url, &bus)?;
    let second = first.start_beside(homes[2].path(), &url, &bus)?;
    let schema = Schema::parse(SCHEMA_BY_SITE)?;

    let mut leg = 0;
    let mut push = |servers: &[&Server], drive: &mut Drive| {
        leg += 1;
        let tenant = format!("fanout-{leg}");
        servers[0].create_tenant(&tenant, SCHEMA_BY_SITE)?;
        let loads = prepare_on(servers, &tenant, &schema, &flights)?;
        postgres.checkpoint()?;
        let processes: Vec<u32> = servers.iter().map(|server| server.process()).collect();
        drive.run(&Push(loads), &processes)
    };
    let push = std::cell::RefCell::new(&mut push);
    let (mut drive_two, mut drive_one) = (Drive::default(), Drive::default());
    let [two, one] = in_turns(
        NAME,
        plan.pairs,
        [
            ("two nodes and a bus", &mut || {
                (push.borrow_mut())(&[&first, &second], &mut drive_two)
            }),
            ("one node", &mut || (push.borrow_mut())(&[&alone], &mut drive_one)),
        ],
    )?;
    let figure = Figure::of_rates(NAME, &two, "one node without a bus", &one);
    let note =
        format!("{}; one tenant; in the last run of one node: {}", figure.note, drive_one.last());
    Ok(vec![figure.noted(note).driven_by(&drive_two)])
}

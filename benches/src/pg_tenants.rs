//! `pg_tenants`: acknowledged rows a second from 1,000 devices in as many tenants of one Postgres, each pushing
//! transactions of 100 rows one after the other, against as many devices in one tenant.
//! `.single`: the same with transactions of one row, of which one tenant commits many together.

use crate::drive::Drive;
use crate::hot_tenants::{self, Many};
use crate::legs::in_turns;
use crate::load::{Load, ROWS_PER_TRANSACTION, Shape};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::postgres::Postgres;
use crate::pushing::Push;
use crate::report::Figure;
use crate::server::Server;

const NAME: &str = "pg_tenants";
const TENANTS: usize = 1_000;
const QUICK_TENANTS: usize = 50;
/// Transactions of each device in each run.
const TRANSACTIONS: usize = 2;

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let tenants = if plan.quick { QUICK_TENANTS } else { TENANTS };
    let (home, cluster) = (plan.fresh_dir()?, plan.open_dir()?);
    let postgres = Postgres::start(&cluster)?;
    let server = Server::start_on_postgres(home.path(), &postgres.fresh_database("ours")?, "")?;
    let bulk = Shape { pushes_in_flight: 1, push_bytes: 1, ..Shape::BULK };
    let single = Shape::ONE_BY_ONE;
    Ok(vec![
        measure(plan, &server, &postgres, (NAME, "b", tenants, bulk, ROWS_PER_TRANSACTION))?,
        measure(plan, &server, &postgres, ("pg_tenants.single", "s", tenants, single, 1))?,
    ])
}

fn measure(
    plan: &Plan,
    server: &Server,
    postgres: &Postgres,
    (name, prefix, tenants, shape, rows): (&str, &str, usize, Shape, usize),
) -> Outcome<Figure> {
    let many = Many { prefix, devices: tenants, rows: TRANSACTIONS * rows, shape };
    let (mut of_many, mut of_one) = hot_tenants::prepare(plan, server, &many)?;
    let mut drive = Drive::default();
    let mut leg = |runs: &mut Vec<Vec<Load>>| {
        let loads = runs.pop().ok_or("more runs than were prepared")?;
        postgres.checkpoint()?;
        drive.run(&Push(loads), &[server.process()])
    };
    let leg = std::cell::RefCell::new(&mut leg);
    let [many, one] = in_turns(
        name,
        plan.pairs,
        [
            ("many tenants", &mut || (leg.borrow_mut())(&mut of_many)),
            ("one tenant", &mut || (leg.borrow_mut())(&mut of_one)),
        ],
    )?;
    let figure = Figure::of_rates(name, &many, &format!("{tenants} devices in one tenant"), &one);
    Ok(figure.driven_by(&drive))
}

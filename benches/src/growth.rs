//! `growth`: what one operation costs where there are 1, 10 and 100 times as many rows, tenants, sockets or
//! subscribers, and the slope of that on logarithmic scales: 0 where the cost of one stays the same, 1 where ten times
//! as many make each ten times as dear.

use std::thread;
use std::time::Duration;

use farshore_sync_core::schema::Schema;

use crate::crowd::Crowd;
use crate::device;
use crate::drive::Drive;
use crate::durable_push;
use crate::fanout;
use crate::flights::{self, SCHEMA, SCHEMA_BY_SITE};
use crate::hot_tenants;
use crate::idle_reconnect::{self, Holdings};
use crate::initial_sync;
use crate::legs::{Leg, Readings, in_turns, progress};
use crate::load::{self, Load, Shape};
use crate::machine;
use crate::outcome::{Failure, Outcome};
use crate::plan::Plan;
use crate::pushing::Push;
use crate::report::{Figure, Point, rounded};
use crate::server::Server;

/// How many sizes there are, each ten times the one before.
const SIZES: usize = 3;
/// How often each size is measured, in turns.
const TIMES: usize = 3;
const ROWS: usize = 3_000;
const QUICK_ROWS: usize = 300;
const SOCKETS: usize = 80;
const QUICK_SOCKETS: usize = 20;
const SUBSCRIBERS: usize = 10;
const QUICK_SUBSCRIBERS: usize = 4;
const FANOUT_SECONDS: u32 = 3;
const TENANTS: usize = 4;
const QUICK_TENANTS: usize = 1;
/// Rows of each device in each run over tenants.
const TENANT_ROWS: usize = 20;
/// Rows that each of the devices pushes into what is there.
const PUSHED_ROWS_PER_DEVICE: usize = 500;
/// What the documents are where rows are many.
const DOCUMENTS: usize = 100;
/// Until what connecting left behind is given back.
const HOLD: Duration = Duration::from_secs(10);
const QUICK_HOLD: Duration = Duration::from_secs(3);
const GRANT: &str = "tenant:rw";
const MICROSECONDS: f64 = 1e6;
const KIB_PER_MIB: f64 = 1024.0;

type Sizes = [usize; SIZES];
type Found = Outcome<[Readings; SIZES]>;

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let from = |size: usize, quick: usize| {
        let least = if plan.quick { quick } else { size };
        [least, least * 10, least * 100]
    };
    let rows = from(ROWS, QUICK_ROWS);
    let (sockets, subscribers) =
        (from(SOCKETS, QUICK_SOCKETS), from(SUBSCRIBERS, QUICK_SUBSCRIBERS));
    let tenants = from(TENANTS, QUICK_TENANTS);
    let [bytes, server_time] = reconnects(plan, rows)?;
    let figure = |row: &str, cost, of: &str, sizes: Sizes, found: &[Readings; SIZES]| {
        let points = sizes.iter().zip(found);
        let points = points.map(|(size, found)| Point { size: *size, cost: found.median() });
        let ranges = found.each_ref().map(|found| {
            let (least, most) = found.range();
            format!("{} to {}", rounded(least), rounded(most))
        });
        let note = format!("growth.{row}: {cost} at {sizes:?} {of}: {}", ranges.join(", "));
        Figure::of_growth(&format!("growth.{row}"), cost, of, points.collect()).noted(note)
    };
    Ok(vec![
        figure("initial_sync", "us a row", "rows", rows, &initial_syncs(plan, rows)?),
        figure("durable_push", "us a row", "rows in the tenant", rows, &pushes(plan, rows)?),
        figure("idle_reconnect", "bytes", "rows", rows, &bytes),
        figure("idle_reconnect.server_time", "us of a processor", "rows", rows, &server_time),
        figure("idle_socket", "KiB a socket", "sockets", sockets, &idle(plan, sockets)?),
        figure(
            "fanout",
            "us a subscriber",
            "subscribers",
            subscribers,
            &fan_out(plan, subscribers)?,
        ),
        figure("hot_tenants", "us a transaction", "tenants", tenants, &spread(plan, tenants)?),
    ])
}

/// The same leg at each size.
fn at_sizes(name: &str, mut leg: impl FnMut(usize) -> Outcome<f64>) -> Found {
    let leg = std::cell::RefCell::new(&mut leg);
    let at = |size| (leg.borrow_mut())(size);
    let legs: [(&str, Leg<'_>); SIZES] =
        [("1x", &mut || at(0)), ("10x", &mut || at(1)), ("100x", &mut || at(2))];
    in_turns(&format!("growth.{name}"), TIMES, legs)
}

/// What one row of a first sync takes.
fn initial_syncs(plan: &Plan, sizes: Sizes) -> Found {
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    let flights = flights::read(sizes[SIZES - 1])?;
    let mut tokens = Vec::new();
    for rows in sizes {
        let tenant = format!("growth-{rows}");
        server.create_tenant(&tenant, SCHEMA)?;
        load::seed(&server, &tenant, &flights::ids(rows, device::now_ms())?, &flights)?;
        tokens.push(server.token(&tenant, GRANT)?);
    }
    at_sizes("initial_sync", |size| {
        let dir = plan.fresh_dir()?;
        let seconds = initial_sync::fill(&server, &tokens[size], dir.path(), sizes[size])?;
        Ok(seconds / sizes[size] as f64 * MICROSECONDS)
    })
}

/// What one acknowledged row takes, where there are so many already.
fn pushes(plan: &Plan, sizes: Sizes) -> Found {
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    let schema = Schema::parse(SCHEMA_BY_SITE)?;
    let tenant = |rows: usize| format!("growth-{rows}");
    let present = flights::read(sizes[SIZES - 1])?;
    for rows in sizes {
        let tenant = tenant(rows);
        server.create_tenant(&tenant, SCHEMA_BY_SITE)?;
        let one_device = (tenant.as_str(), "s00", Shape::BULK);
        hot_tenants::load_of(&server, &schema, one_device, &present[..rows])?.push()?;
    }
    let flights = durable_push::flights_by_site(PUSHED_ROWS_PER_DEVICE)?;
    at_sizes("durable_push", |size| {
        let loads = durable_push::prepare(&server, &tenant(sizes[size]), &schema, &flights)?;
        Ok(MICROSECONDS / Drive::default().run(&Push(loads), &[])?)
    })
}

/// What a device that is up to date sends and receives to find that out, and what that takes the server.
fn reconnects(plan: &Plan, sizes: Sizes) -> Outcome<[[Readings; SIZES]; 2]> {
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    let flights = flights::read(sizes[SIZES - 1])?;
    let mut found = Vec::new();
    for rows in sizes {
        let (tenant, holdings) =
            (format!("growth-{rows}"), Holdings { rows, documents: DOCUMENTS });
        found.push(idle_reconnect::at_size(plan, &server, &tenant, &flights, holdings)?);
    }
    Ok([
        std::array::from_fn(|size| found[size].bytes.clone()),
        std::array::from_fn(|size| Readings::new(vec![found[size].server_ms * 1e3])),
    ])
}

/// What a server holds for one connected, quiet device; a server of its own for each size, once: one that was full
/// keeps what it had.
fn idle(plan: &Plan, sizes: Sizes) -> Found {
    let hold = if plan.quick { QUICK_HOLD } else { HOLD };
    let schema = Schema::parse(SCHEMA)?;
    let bar = progress("growth.idle_socket", SIZES);
    let kib_a_socket = |sockets: usize| {
        let home = plan.fresh_dir()?;
        let server = Server::start(home.path())?;
        // No tenant lets in more than half of all by default.
        let mut crowd = Crowd::default();
        for tenant in ["growth-a", "growth-b"] {
            server.create_tenant(tenant, SCHEMA)?;
            crowd.invite(&server, &schema, (tenant, GRANT), sockets / 2)?;
        }
        let memory = || machine::own_memory_mib(server.process()).ok_or("no memory in /proc");
        let before = memory()?;
        let mut connected = crowd.connected(0..sockets)?;
        thread::park_timeout(hold);
        connected.is_there()?;
        bar.inc(1);
        Ok::<_, Failure>((memory()? - before) * KIB_PER_MIB / sockets as f64)
    };
    let [one, ten, hundred] = sizes.map(kib_a_socket);
    bar.finish_and_clear();
    Ok([one?, ten?, hundred?].map(|found| Readings::new(vec![found])))
}

/// How long a write takes to half of those who subscribe, for each of them.
fn fan_out(plan: &Plan, sizes: Sizes) -> Found {
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    let tenants = sizes.map(|subscribers| format!("growth-{subscribers}"));
    let sides = tenants.iter().zip(sizes).map(|(tenant, subscribers)| {
        fanout::Side::prepare(&server, tenant, subscribers, FANOUT_SECONDS)
    });
    let sides = sides.collect::<Outcome<Vec<_>>>()?;
    at_sizes("fanout", |size| {
        let received = sides[size].measure(&mut Drive::default())?;
        Ok(received.late.ms_at(0.5) * 1e3 / sizes[size] as f64)
    })
}

/// What one acknowledged transaction of one row takes, where as many devices are spread over so many tenants.
fn spread(plan: &Plan, sizes: Sizes) -> Found {
    let devices = sizes[SIZES - 1];
    let home = plan.fresh_dir()?;
    let open = format!("max_open_tenants = {}", sizes.iter().sum::<usize>());
    let server = Server::start_with_store(home.path(), &open)?;
    let schema = Schema::parse(SCHEMA_BY_SITE)?;
    let flights = flights::read(TENANT_ROWS * TIMES)?;
    let mut runs: [Vec<Vec<Load>>; SIZES] = [const { Vec::new() }; SIZES];
    for (tenants, runs) in sizes.into_iter().zip(&mut runs) {
        let bar = progress(&format!("preparing {tenants} tenants"), devices);
        runs.resize_with(TIMES, Vec::new);
        for number in 0..devices {
            let tenant = format!("growth-{tenants}-{}", number % tenants);
            if number < tenants {
                server.create_tenant(&tenant, SCHEMA_BY_SITE)?;
            }
            let site = format!("s{number}");
            let one_by_one = (tenant.as_str(), site.as_str(), Shape::ONE_BY_ONE);
            let load = hot_tenants::load_of(&server, &schema, one_by_one, &flights)?;
            // Runs are taken from the end, and numbers rise.
            let parts = load.split(TIMES).into_iter();
            runs.iter_mut().rev().zip(parts).for_each(|(run, load)| run.push(load));
            bar.inc(1);
        }
        bar.finish_and_clear();
    }
    at_sizes("hot_tenants", |size| {
        let loads = runs[size].pop().ok_or("more runs than were prepared")?;
        Ok(MICROSECONDS / Drive::default().run(&Push(loads), &[])?)
    })
}

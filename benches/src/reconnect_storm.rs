//! `reconnect_storm`: 8,000 devices lose their network at once, find it again at once, and learn that nothing
//! changed: how many a second are in step again, and how far the server's memory rises meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use farshore_sync_core::schema::Schema;

use crate::crowd::Crowd;
use crate::device;
use crate::drive::{Both, Drive};
use crate::flights::{self, SCHEMA};
use crate::legs::{Readings, progress};
use crate::load;
use crate::machine;
use crate::outcome::{Outcome, ensure};
use crate::plan::Plan;
use crate::report::Figure;
use crate::server::Server;

const NAME: &str = "reconnect_storm";
const TENANTS: usize = 2;
const DEVICES: usize = 8_000;
const QUICK_DEVICES: usize = 2_000;
/// What each tenant holds, so that there is something that did not change.
const ROWS: usize = 10_000;
/// Until what connecting left behind is given back.
const HOLD: Duration = Duration::from_secs(10);
const QUICK_HOLD: Duration = Duration::from_secs(3);
/// How long the server may take to see that everybody is gone.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// Room for those who are back before the server has seen them go.
const LIMITS: &str = "[sync]\nmax_connections = 17000\nmax_connections_per_tenant = 9000";

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let (devices, hold) = if plan.quick { (QUICK_DEVICES, QUICK_HOLD) } else { (DEVICES, HOLD) };
    let schema = Schema::parse(SCHEMA)?;
    let home = plan.fresh_dir()?;
    let server = Server::start_with(home.path(), LIMITS)?;
    let tenants: Vec<String> = (0..TENANTS).map(|tenant| format!("storm-{tenant}")).collect();
    let flights = flights::read(ROWS)?;
    for tenant in &tenants {
        server.create_tenant(tenant, SCHEMA)?;
        load::seed(&server, tenant, &flights::ids(ROWS, device::now_ms())?, &flights)?;
    }
    let mut crowd = Crowd::default();
    for tenant in &tenants {
        crowd.invite(&server, &schema, (tenant, "tenant:rw"), devices / TENANTS)?;
    }
    let mut connected = crowd.connected(0..devices)?;
    thread::park_timeout(hold);
    connected.is_there()?;
    let steady = machine::own_memory_mib(server.process()).ok_or("no memory in /proc")?;
    let total = machine::peak_memory_mib(server.process()).ok_or("no memory in /proc")?;

    let (mut rates, mut peaks) = (Vec::new(), Vec::new());
    let mut drive = Drive::default();
    let mut slowest_ms = Vec::new();
    let bar = progress(NAME, plan.pairs);
    for _ in 0..plan.pairs {
        let before = machine::own_memory_mib(server.process()).ok_or("no memory in /proc")?;
        machine::forget_peak(server.process())?;
        let files =
            machine::peak_memory_mib(server.process()).ok_or("no memory in /proc")? - before;
        // The next ones are prepared before the first ones are gone, so that nobody waits for them.
        let mut next = crowd.generator(0..devices)?;
        drop(connected);
        wait_until_gone(&server)?;
        let busy = Both::of(&[next.process()], &[server.process()]);
        next.go()?;
        let found = next.found()?;
        drive.note(&busy);
        rates.push(devices as f64 / found.seconds);
        slowest_ms.push(found.in_step.ms_at(0.99));
        let peak = machine::peak_memory_mib(server.process()).ok_or("no memory in /proc")?;
        peaks.push(peak - files);
        thread::park_timeout(hold);
        next.is_there()?;
        connected = next;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (rates, peaks) = (Readings::new(rates), Readings::new(peaks));
    let note = format!(
        "{NAME}: {devices} devices, {}; 99 of 100 in step after {:.0} ms; \
         the server's memory before the first storm: {steady:.0} MiB of its own, most ever {total:.0} with files",
        rates.describe(),
        Readings::new(slowest_ms).median(),
    );
    let reference = "the server's own memory while all are connected and quiet";
    Ok(vec![
        Figure::alone(NAME, rates.median(), "devices/s").noted(note).driven_by(&drive),
        Figure::against("reconnect_storm.peak_memory", peaks.median(), "MiB", reference, steady),
    ])
}

/// Waits until the server holds no socket any more but the one that asks it.
fn wait_until_gone(server: &Server) -> Outcome {
    let started = Instant::now();
    while server.metric("farshore_connections_open")? > 0.0 {
        ensure(started.elapsed() < GONE_WITHIN, || "the server still counts devices".into())?;
        thread::park_timeout(Duration::from_millis(5));
    }
    Ok(())
}

//! `idle_socket`: what the server holds in user space for one device that is connected, signed in, subscribed and
//! quiet: the slope of its own memory between 1,000 and 8,000 of them. The kernel's share is not in it.

use std::thread;
use std::time::Duration;

use farshore_sync_core::schema::Schema;

use crate::crowd::Crowd;
use crate::flights::SCHEMA;
use crate::legs::{Readings, progress};
use crate::machine;
use crate::outcome::{Failure, Outcome};
use crate::plan::Plan;
use crate::report::Figure;
use crate::server::Server;

const NAME: &str = "idle_socket";
/// No tenant lets in more than half of them by default.
const TENANTS: usize = 2;
const FEW: usize = 1_000;
const MANY: usize = 8_000;
const QUICK_FEW: usize = 250;
const QUICK_MANY: usize = 2_000;
/// Until what connecting left behind is given back, and each device was asked whether it is there.
const HOLD: Duration = Duration::from_secs(30);
const QUICK_HOLD: Duration = Duration::from_secs(5);
/// Servers that are filled, one after the other: one that was full once keeps what it had.
const TIMES: usize = 3;
const NO_MEMORY: &str = "this system does not say what a process holds";
const KIB_PER_MIB: f64 = 1024.0;

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let (few, many, hold) =
        if plan.quick { (QUICK_FEW, QUICK_MANY, QUICK_HOLD) } else { (FEW, MANY, HOLD) };
    let schema = Schema::parse(SCHEMA)?;
    let mut slopes = Vec::new();
    let mut levels = Vec::new();
    let bar = progress(NAME, TIMES);
    for _ in 0..TIMES {
        let home = plan.fresh_dir()?;
        let server = Server::start(home.path())?;
        let mut crowd = Crowd::default();
        for tenant in (0..TENANTS).map(|tenant| format!("idle-{tenant}")) {
            server.create_tenant(&tenant, SCHEMA)?;
            crowd.invite(&server, &schema, (&tenant, "tenant:rw"), many / TENANTS)?;
        }
        let memory_with = |devices| {
            let mut connected = crowd.connected(devices)?;
            thread::park_timeout(hold);
            connected.is_there()?;
            let memory = machine::own_memory_mib(server.process());
            Ok::<_, Failure>((memory.ok_or(NO_MEMORY)?, connected))
        };
        // Those of the first look are still there at the second one.
        let (less, _few) = memory_with(0..few)?;
        let (more, _others) = memory_with(few..many)?;
        slopes.push((more - less) * KIB_PER_MIB / (many - few) as f64);
        levels.push(more);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (slopes, levels) = (Readings::new(slopes), Readings::new(levels));
    let (least, most) = slopes.range();
    let note = format!(
        "{NAME}: {least:.1} to {most:.1} KiB in {TIMES} servers, from {few} to {many} sockets; held {hold:?} each"
    );
    Ok(vec![
        Figure::alone(NAME, slopes.median(), "KiB a socket").noted(note),
        Figure::alone("idle_socket.server_memory", levels.median(), "MiB"),
    ])
}

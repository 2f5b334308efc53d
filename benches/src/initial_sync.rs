//! `initial_sync`: rows a second from the server into a new encrypted device, against a bulk insert into SQLCipher
//! by hand. The clock runs from `connect` until a query has counted all rows.
//!
//! The device is a process of its own, so that its memory is nobody else's.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use farshore_client::Goal;
use serde::{Deserialize, Serialize};

use crate::device;
use crate::flights::{self, SCHEMA};
use crate::generator::{Generator, Job, Stage};
use crate::legs::{Readings, in_turns, progress};
use crate::load;
use crate::machine;
use crate::outcome::{Outcome, ensure};
use crate::plan::Plan;
use crate::report::Figure;
use crate::server::Server;
use crate::sqlite::{Encryption, Raw};

const TENANT: &str = "initial-sync";
/// Devices that are filled at once for the server's memory.
const AT_ONCE: usize = 20;
const QUICK_AT_ONCE: usize = 5;

/// What the process that is the device says in the end.
#[derive(Debug, Serialize, Deserialize)]
pub struct Filled {
    rows: i64,
    seconds: f64,
    memory_mib: Option<f64>,
}

impl Filled {
    fn is_whole(&self, rows: usize) -> Outcome {
        ensure(usize::try_from(self.rows) == Ok(rows), || format!("{} rows arrived", self.rows))
    }
}

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let rows = plan.rows();
    let flights = flights::read(rows)?;
    let ids = flights::ids(rows, device::now_ms())?;
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    server.create_tenant(TENANT, SCHEMA)?;
    load::seed(&server, TENANT, &ids, &flights)?;
    let token = server.token(TENANT, "tenant:rw")?;

    let mut memory = Vec::new();
    let mut ours = || {
        let dir = plan.fresh_dir()?;
        let filled = fill_a_device(&server.url(), &token, dir.path())?;
        filled.is_whole(rows)?;
        memory.extend(filled.memory_mib);
        Ok(rows as f64 / filled.seconds)
    };
    let mut by_hand = || {
        let dir = plan.fresh_dir()?;
        let mut raw = Raw::create(&dir.path().join("raw.db"), Encryption::On, &flights[0])?;
        raw.insert(&ids, &flights, rows)
    };
    let [ours, theirs] = in_turns(
        "initial_sync",
        plan.pairs,
        [("server to device", &mut ours), ("SQLCipher by hand", &mut by_hand)],
    )?;
    let reference = "bulk insert into SQLCipher by hand, one transaction";
    let mut figures = vec![Figure::of_rates("initial_sync", &ours, reference, &theirs)];
    if !memory.is_empty() {
        let memory = Readings::new(memory).median();
        figures.push(Figure::alone("initial_sync.device_memory", memory, "MiB"));
    }
    figures.extend(server_memory(plan, &server)?);
    Ok(figures)
}

/// The most that the server holds while it fills many devices at once, against filling one.
fn server_memory(plan: &Plan, server: &Server) -> Outcome<Vec<Figure>> {
    let many = if plan.quick { QUICK_AT_ONCE } else { AT_ONCE };
    let tokens = server.tokens(TENANT, "tenant:rw", many)?;
    let url = server.url();
    let peak_of = |tokens: &[String]| -> Outcome<(f64, f64)> {
        machine::forget_peak(server.process())?;
        let bar = progress(&format!("initial_sync: {} at once", tokens.len()), tokens.len());
        let fill = |token: &String| {
            let dir = plan.fresh_dir()?;
            let filled = fill_a_device(&url, token, dir.path());
            bar.inc(1);
            filled
        };
        let filled: Vec<Outcome<Filled>> = thread::scope(|scope| {
            let fill = &fill;
            let filling: Vec<_> =
                tokens.iter().map(|token| scope.spawn(move || fill(token))).collect();
            let joined = filling.into_iter().map(thread::ScopedJoinHandle::join);
            joined
                .map(|device| device.unwrap_or_else(|_| Err("a thread panicked".into())))
                .collect()
        });
        bar.finish_and_clear();
        let filled = filled.into_iter().collect::<Outcome<Vec<_>>>()?;
        let device = filled.iter().filter_map(|filled| filled.memory_mib).fold(0.0, f64::max);
        let peak = machine::peak_memory_mib(server.process());
        Ok((peak.ok_or("this system does not say what a process holds")?, device))
    };
    let (one, _) = peak_of(&tokens[..1])?;
    let (all, device) = peak_of(&tokens)?;
    let note = format!(
        "initial_sync.server_memory: {many} devices at once, new to the server; the largest of them took {device:.0} MiB"
    );
    let figure =
        Figure::against("initial_sync.server_memory", all, "MiB", "one device at a time", one);
    Ok(vec![figure.noted(note)])
}

/// Fills a new device with so many rows; how many seconds that took.
pub fn fill(server: &Server, token: &str, dir: &Path, rows: usize) -> Outcome<f64> {
    let filled = fill_a_device(&server.url(), token, dir)?;
    filled.is_whole(rows)?;
    Ok(filled.seconds)
}

fn fill_a_device(url: &str, token: &str, dir: &Path) -> Outcome<Filled> {
    let (url, token, dir) = (url.to_owned(), token.to_owned(), dir.to_owned());
    let mut device = Generator::start(&FillDevice { url, token, dir })?;
    device.go()?;
    device.found()
}

/// Fills a new device, which is a process of its own.
#[derive(Debug, Serialize, Deserialize)]
pub struct FillDevice {
    url: String,
    token: String,
    dir: PathBuf,
}

impl Job for FillDevice {
    const NAME: &str = "fill-device";
    type Found = Filled;

    fn run(self, stage: Stage<Filled>) -> Outcome {
        // The token is the same each time: a device that the server has seen, with an empty copy.
        let client = device::of_tenant(&self.dir, &self.url, &self.token)?;
        stage.begin()?;
        let started = Instant::now();
        client.connect()?;
        client.wait_for(Goal::CaughtUp, device::PATIENCE)?;
        let rows = device::integer(&client, "SELECT count(*) FROM flights")?;
        let seconds = started.elapsed().as_secs_f64();
        let memory_mib = machine::peak_memory_mib(std::process::id());
        client.close()?;
        stage.found(&Filled { rows, seconds, memory_mib })
    }
}

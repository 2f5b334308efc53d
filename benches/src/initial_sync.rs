//! `initial_sync`: rows a second from the server into a new encrypted device, against a bulk insert into SQLCipher
//! by hand. The clock runs from `connect` until a query has counted all rows.
//!
//! The device is a process of its own, so that its memory is nobody else's.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use farshore_client::Goal;
use serde::{Deserialize, Serialize};

use crate::device;
use crate::flights::{self, SCHEMA};
use crate::legs::{Readings, in_turns};
use crate::load;
use crate::machine;
use crate::outcome::{Outcome, ensure};
use crate::plan::Plan;
use crate::report::Figure;
use crate::server::Server;
use crate::sqlite::{Encryption, Raw};

const TENANT: &str = "initial-sync";

/// What the process that is the device says in the end.
#[derive(Debug, Serialize, Deserialize)]
struct Filled {
    rows: i64,
    seconds: f64,
    memory_mib: Option<f64>,
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
        ensure(usize::try_from(filled.rows) == Ok(rows), || {
            format!("{} rows arrived", filled.rows)
        })?;
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
    if let Some(memory) = machine::peak_memory_mib(server.process()) {
        let note = "initial_sync.server_memory: the most that the server held, seeding included";
        figures.push(Figure::alone("initial_sync.server_memory", memory, "MiB").noted(note));
    }
    Ok(figures)
}

fn fill_a_device(url: &str, token: &str, dir: &Path) -> Outcome<Filled> {
    let mut device = Command::new(std::env::current_exe()?);
    device.args(["--fill-device", url, token]).arg(dir);
    let output = device.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    ensure(status.success(), || format!("the device failed ({status}): {}", said.trim_end()))?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The other side of [`fill_a_device`].
pub fn be_the_device(arguments: &[String]) -> Outcome {
    let [url, token, dir] = arguments else {
        return Err("a device needs a URL, a token and a directory".into());
    };
    // The token is the same each time: a device that the server has seen, with an empty copy.
    let client = device::of_tenant(Path::new(dir), url, token)?;
    let started = Instant::now();
    client.connect()?;
    client.wait_for(Goal::CaughtUp, device::PATIENCE)?;
    let rows = device::integer(&client, "SELECT count(*) FROM flights")?;
    let seconds = started.elapsed().as_secs_f64();
    let memory_mib = machine::peak_memory_mib(std::process::id());
    client.close()?;
    println!("{}", serde_json::to_string(&Filled { rows, seconds, memory_mib })?);
    Ok(())
}

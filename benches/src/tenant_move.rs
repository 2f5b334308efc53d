//! `tenant_move`: rows a second of a tenant that moves from SQLite to Postgres, copied, read back and verified;
//! `.back`: from Postgres to SQLite; `.backup`: into an archive; `.frozen`: milliseconds without writes in a move, of a
//! tenant that nobody writes to.

use std::fs;
use std::time::Instant;

use serde::Deserialize;

use crate::device;
use crate::flights::{self, SCHEMA};
use crate::legs::{Readings, progress};
use crate::load;
use crate::outcome::{Outcome, ensure};
use crate::plan::Plan;
use crate::postgres::Postgres;
use crate::report::Figure;
use crate::server::Server;

const NAME: &str = "tenant_move";
const TENANT: &str = "tenant-move";
const CLUSTER: &str = "east";

/// What `farshore tenant move --json` says of a move.
#[derive(Deserialize)]
struct Moved {
    rows: u64,
    frozen_ms: u64,
}

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let rows = plan.rows();
    let flights = flights::read(rows)?;
    let ids = flights::ids(rows, device::now_ms())?;
    let folder = plan.open_dir()?;
    let postgres = Postgres::start(&folder)?;
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    let url = home.path().join("east.url");
    fs::write(&url, postgres.fresh_database("east")?)?;
    let url = url.to_str().ok_or("a directory whose name is not UTF-8")?;
    server.operate(&["cluster", "add", CLUSTER, "--url-file", url])?;
    server.create_tenant(TENANT, SCHEMA)?;
    load::seed(&server, TENANT, &ids, &flights)?;

    let rate = |started: Instant| rows as f64 / started.elapsed().as_secs_f64();
    let move_to = |place: &str| -> Outcome<(f64, f64)> {
        let started = Instant::now();
        let said = server.operate(&["tenant", "move", TENANT, "--to", place, "--json"])?;
        let moved: Moved = serde_json::from_str(&said)?;
        ensure(usize::try_from(moved.rows) == Ok(rows), || format!("{} rows moved", moved.rows))?;
        Ok((rate(started), moved.frozen_ms as f64))
    };
    let (mut there, mut back, mut backups) = (Vec::new(), Vec::new(), Vec::new());
    let mut frozen = Vec::new();
    let bar = progress(NAME, plan.pairs);
    for run in 0..plan.pairs {
        let archive = home.path().join(format!("{run}.archive"));
        let file = archive.to_str().ok_or("a directory whose name is not UTF-8")?;
        let started = Instant::now();
        server.operate(&["tenant", "backup", TENANT, file])?;
        backups.push(rate(started));
        fs::remove_file(&archive)?;
        for (place, rates) in [(CLUSTER, &mut there), ("home", &mut back)] {
            let (rate, frozen_ms) = move_to(place)?;
            rates.push(rate);
            frozen.push(frozen_ms);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let figure = |name: &str, unit, readings: Vec<f64>| {
        let name = format!("{NAME}{name}");
        let readings = Readings::new(readings);
        let note = format!("{name}: {} {unit}, of {rows} rows", readings.describe());
        Figure::alone(&name, readings.median(), unit).noted(note)
    };
    Ok(vec![
        figure("", "rows/s", there),
        figure(".back", "rows/s", back),
        figure(".backup", "rows/s", backups),
        figure(".frozen", "ms", frozen),
    ])
}

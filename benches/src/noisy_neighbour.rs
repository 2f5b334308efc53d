//! `noisy_neighbour`: how long the writes of one tenant take while another one pushes as fast as it is answered,
//! against the same writes alone on the same server.
//!
//! The load of the measured tenant is open: its clock starts when a write is due. The neighbour wants more than ten
//! times its share. Once the server holds it to that share (`sync.tenant_bytes_per_second`), and once it takes all that
//! there is (`unlimited`). The writes of all runs count together, so that many are among the slowest hundredth.

use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;

use crate::device;
use crate::drive::{Both, Drive};
use crate::flights::{self, Flight, SCHEMA_BY_SITE};
use crate::generator::Generator;
use crate::latencies::Latencies;
use crate::legs::{Readings, in_turns};
use crate::load::{Load, Shape, Target};
use crate::outcome::{Outcome, ensure};
use crate::plan::Plan;
use crate::pushing::{Acknowledged, PushOnTime, PushUntilEnough};
use crate::report::Figure;
use crate::server::Server;

const NAME: &str = "noisy_neighbour";
const UNLIMITED: &str = "noisy_neighbour.unlimited";
const WRITES_PER_SECOND: u32 = 100;
const SECONDS: u32 = 10;
const QUICK_SECONDS: u32 = 2;
const NEIGHBOURS: usize = 16;
/// The share of a tenant, in bytes of transactions a second.
const SHARE_BYTES_PER_SECOND: usize = 1_000_000;
/// So many times its share the neighbour takes at least, where it may.
const TIMES_ITS_SHARE: f64 = 10.0;
/// What the neighbour has to push for each second: more than it gets rid of.
const NEIGHBOUR_ROWS_PER_SECOND: usize = 250_000;

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let seconds = if plan.quick { QUICK_SECONDS } else { SECONDS };
    let homes = [plan.fresh_dir()?, plan.fresh_dir()?];
    let share = format!("[sync]\ntenant_bytes_per_second = {SHARE_BYTES_PER_SECOND}");
    let [limited, unlimited] =
        [Server::start_with(homes[0].path(), &share)?, Server::start(homes[1].path())?];
    let schema = Schema::parse(SCHEMA_BY_SITE)?;
    let side = |server| Side { server, schema: &schema, seconds };
    let (mut held, mut free) = (Beside::new(side(&limited)), Beside::new(side(&unlimited)));
    let mut alone = Writes::default();
    let mut without = || {
        limited.wait_until_idle()?;
        let victim = side(&limited).victim(&format!("quiet-{}", alone.p99.len()))?;
        alone.note(&Drive::default().run(&victim, &[limited.process()])?)
    };
    in_turns(
        NAME,
        plan.pairs,
        [
            ("beside a neighbour that is held to its share", &mut || held.measure()),
            ("beside a neighbour that is not", &mut || free.measure()),
            ("alone", &mut without),
        ],
    )?;
    let (held_rows, free_rows) = (held.rows_per_second(), free.rows_per_second());
    ensure(free_rows > TIMES_ITS_SHARE * held_rows, || {
        format!("the neighbour wants {free_rows:.0} rows/s, its share is {held_rows:.0}")
    })?;
    let mut figures = held.figures(NAME, &alone);
    figures.extend(free.figures(UNLIMITED, &alone));
    Ok(figures)
}

/// How long the measured writes of all runs took.
struct Writes {
    all: Latencies,
    /// How long 99 of 100 took in each run, in milliseconds.
    p99: Vec<f64>,
}

impl Default for Writes {
    fn default() -> Self {
        Self { all: Latencies::new(), p99: Vec::new() }
    }
}

impl Writes {
    /// Takes in those of one run; how long 99 of 100 of them took, in milliseconds.
    fn note(&mut self, run: &Latencies) -> Outcome<f64> {
        self.all.add(run)?;
        self.p99.push(run.ms_at(0.99));
        Ok(run.ms_at(0.99))
    }

    fn describe(&self) -> String {
        let (least, most) = Readings::new(self.p99.clone()).range();
        format!("{least:.1} to {most:.1} ms in single runs")
    }
}

/// The measured tenant beside a neighbour, time and again.
struct Beside<'a> {
    side: Side<'a>,
    drive: Drive,
    /// What the neighbour got rid of, in rows a second.
    taken: Vec<f64>,
    writes: Writes,
}

impl<'a> Beside<'a> {
    fn new(side: Side<'a>) -> Self {
        let (drive, writes) = (Drive::default(), Writes::default());
        Self { side, drive, taken: Vec::new(), writes }
    }

    /// How long 99 of 100 writes took, in milliseconds.
    fn measure(&mut self) -> Outcome<f64> {
        let Self { side, drive, taken, writes } = self;
        let wanted = NEIGHBOUR_ROWS_PER_SECOND * side.seconds as usize;
        let leg = taken.len();
        side.server.wait_until_idle()?;
        let neighbours = side.neighbours(&format!("noisy-{leg}"), wanted)?;
        let victim = side.victim(&format!("quiet-beside-{leg}"))?;
        let mut neighbours = Generator::start(&PushUntilEnough(neighbours))?;
        let mut victim = Generator::start(&victim)?;
        let busy = Both::of(&[victim.process(), neighbours.process()], &[side.server.process()]);
        neighbours.go()?;
        victim.go()?;
        let measured = victim.found()?;
        drive.note(&busy);
        neighbours.enough()?;
        let Acknowledged { rows, seconds } = neighbours.found()?;
        taken.push(rows as f64 / seconds);
        ensure(rows < wanted, || "the neighbour ran out of rows".into())?;
        writes.note(&measured)
    }

    fn rows_per_second(&self) -> f64 {
        Readings::new(self.taken.clone()).median()
    }

    fn figures(self, name: &str, alone: &Writes) -> Vec<Figure> {
        let reference = "the same writes alone";
        let note = format!(
            "{name}: {WRITES_PER_SECOND} writes/s, {} in all runs; p99 {}, alone {}; the neighbour got rid of {:.0} \
             rows/s; of the generators the first is the measured one",
            self.writes.all.count(),
            self.writes.describe(),
            alone.describe(),
            self.rows_per_second(),
        );
        let against = |name: &str, unit: &str, quantile| {
            let [ours, theirs] = [&self.writes, alone].map(|writes| writes.all.ms_at(quantile));
            Figure::against(name, ours, unit, reference, theirs)
        };
        let main = against(name, "ms, p99", 0.99).noted(note).driven_by(&self.drive);
        vec![main, against(&format!("{name}.p50"), "ms", 0.5)]
    }
}

struct Side<'a> {
    server: &'a Server,
    schema: &'a Schema,
    seconds: u32,
}

impl Side<'_> {
    fn victim(&self, tenant: &str) -> Outcome<PushOnTime> {
        self.server.create_tenant(tenant, SCHEMA_BY_SITE)?;
        let rows = (WRITES_PER_SECOND * self.seconds) as usize;
        let load = self.load(tenant, "quiet", Shape::ONE_BY_ONE, rows, &flights::read(rows)?)?;
        Ok(PushOnTime { load, per_second: WRITES_PER_SECOND })
    }

    fn neighbours(&self, tenant: &str, rows: usize) -> Outcome<Vec<Load>> {
        self.server.create_tenant(tenant, SCHEMA_BY_SITE)?;
        let flights = flights::read(1_000)?;
        let load = |number: usize| {
            self.load(tenant, &format!("n{number}"), Shape::BULK, rows / NEIGHBOURS, &flights)
        };
        (0..NEIGHBOURS).map(load).collect()
    }

    fn load(
        &self,
        tenant: &str,
        site: &str,
        shape: Shape,
        rows: usize,
        flights: &[Flight],
    ) -> Outcome<Load> {
        let mut flights = flights.to_vec();
        flights.iter_mut().for_each(|flight| flight.push(("site_id", Value::from(site))));
        let ids = flights::ids(rows, device::now_ms())?;
        let grant = format!("site/{site}:rw");
        let target = Target { server: self.server, tenant, schema: self.schema, grant: &grant };
        Load::prepare(target, shape, &ids, &flights)
    }
}

//! `noisy_neighbour`: how long the writes of one tenant take while another one pushes as fast as it is answered,
//! against the same writes alone on the same server.
//!
//! The load of the measured tenant is open: its clock starts when a write is due. The neighbour takes all that the
//! server gives, which is more than ten times its share.

use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;

use crate::device;
use crate::drive::{Both, Drive};
use crate::flights::{self, Flight, SCHEMA_BY_SITE};
use crate::generator::Generator;
use crate::legs::{Readings, in_turns};
use crate::load::{Load, Shape, Target};
use crate::outcome::{Outcome, ensure};
use crate::plan::Plan;
use crate::pushing::{PushOnTime, PushUntilEnough};
use crate::report::Figure;
use crate::server::Server;

const NAME: &str = "noisy_neighbour";
const WRITES_PER_SECOND: u32 = 100;
const SECONDS: u32 = 6;
const QUICK_SECONDS: u32 = 2;
const NEIGHBOURS: usize = 16;
/// What the neighbour has to push for each second: more than it gets rid of.
const NEIGHBOUR_ROWS_PER_SECOND: usize = 250_000;

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let seconds = if plan.quick { QUICK_SECONDS } else { SECONDS };
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    let schema = Schema::parse(SCHEMA_BY_SITE)?;
    let side = Side { server: &server, schema: &schema, seconds };
    let mut leg = 0;
    let mut drive = Drive::default();
    let mut taken = Vec::new();
    let (mut with_p50, mut alone_p50) = (Vec::new(), Vec::new());
    let mut beside = || {
        leg += 1;
        server.wait_until_idle()?;
        let neighbours = side.neighbours(&format!("noisy-{leg}"))?;
        let victim = side.victim(&format!("quiet-beside-{leg}"))?;
        let mut neighbours = Generator::start(&PushUntilEnough(neighbours))?;
        let mut victim = Generator::start(&victim)?;
        let busy = Both::of(&[victim.process(), neighbours.process()], &[server.process()]);
        neighbours.go()?;
        victim.go()?;
        let measured = victim.found()?;
        drive.note(&busy);
        neighbours.enough()?;
        let rows = neighbours.found()?;
        taken.push(rows as f64 / f64::from(seconds));
        let most = NEIGHBOUR_ROWS_PER_SECOND * seconds as usize;
        ensure(rows < most, || "the neighbour ran out of rows".into())?;
        with_p50.push(measured.ms_at(0.5));
        Ok(measured.ms_at(0.99))
    };
    let mut turn = 0;
    let mut alone = || {
        turn += 1;
        server.wait_until_idle()?;
        let victim = side.victim(&format!("quiet-{turn}"))?;
        let measured = Drive::default().run(&victim, &[server.process()])?;
        alone_p50.push(measured.ms_at(0.5));
        Ok(measured.ms_at(0.99))
    };
    let [with, without] =
        in_turns(NAME, plan.pairs, [("beside a neighbour", &mut beside), ("alone", &mut alone)])?;
    let reference = "the same writes alone";
    let note = format!(
        "{NAME}: {WRITES_PER_SECOND} writes/s; p99 {:.1} to {:.1} ms, alone {:.1} to {:.1} ms; \
         the neighbour got rid of {:.0} rows/s; of the generators the first is the measured one",
        with.range().0,
        with.range().1,
        without.range().0,
        without.range().1,
        Readings::new(taken).median(),
    );
    let middle = |readings: Vec<f64>| Readings::new(readings).median();
    Ok(vec![
        Figure::against(NAME, with.median(), "ms, p99", reference, without.median())
            .noted(note)
            .driven_by(&drive),
        Figure::against(
            "noisy_neighbour.p50",
            middle(with_p50),
            "ms",
            reference,
            middle(alone_p50),
        ),
    ])
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

    fn neighbours(&self, tenant: &str) -> Outcome<Vec<Load>> {
        self.server.create_tenant(tenant, SCHEMA_BY_SITE)?;
        let rows = NEIGHBOUR_ROWS_PER_SECOND * self.seconds as usize / NEIGHBOURS;
        let flights = flights::read(1_000)?;
        let load =
            |number: usize| self.load(tenant, &format!("n{number}"), Shape::BULK, rows, &flights);
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

//! `durable_streams`: durable appends of 256 bytes a second from 50 writers that each wait for the answer before they
//! send the next, against the crate `durable-streams` in its `wal` mode.
//!
//! An append of ours is a new row with one value of 256 bytes, with clock, digest and place in the order.

use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;

use crate::device;
use crate::drive::Drive;
use crate::flights;
use crate::legs::{Leg, Readings, in_turns, progress};
use crate::load::{self, Load, Shape, Target};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::pushing::Push;
use crate::report::Figure;
use crate::server::Server;
use crate::streams::{self, Streams};

const NAME: &str = "durable_streams";
const UNIT: &str = "appends/s";
const SCHEMA: &str = include_str!("../schemas/records.json");
const COLLECTION: &str = "records";
const WRITERS: usize = 50;
const RECORD_BYTES: usize = 256;
const EACH: usize = 600;
const QUICK_EACH: usize = 60;

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let each = if plan.quick { QUICK_EACH } else { EACH };
    let mut record = vec![0; RECORD_BYTES];
    getrandom::fill(&mut record)?;
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    let schema = Schema::parse(SCHEMA)?;
    let mut leg = 0;
    let mut drive = Drive::default();
    let mut ours = || {
        leg += 1;
        let tenant = format!("streams-{leg}");
        server.create_tenant(&tenant, SCHEMA)?;
        let load = |writer: usize| {
            let site = format!("s{writer:02}");
            let grant = format!("site/{site}:rw");
            let target =
                Target { server: &server, tenant: &tenant, schema: &schema, grant: &grant };
            let ids = flights::ids(each, device::now_ms())?;
            let row =
                vec![("site_id", Value::from(site)), ("record", Value::Bytes(record.clone()))];
            let transactions = load::inserts(&schema, COLLECTION, 1, &ids, &[row])?;
            Load::of_transactions(target, Shape::ONE_BY_ONE, &transactions, each)
        };
        let loads = (0..WRITERS).map(load).collect::<Outcome<_>>()?;
        drive.run(&Push(loads), &[server.process()])
    };
    let peer_home = plan.fresh_dir()?;
    let figure = match Streams::start(peer_home.path()) {
        Ok(streams) => {
            let mut run = 0;
            let mut theirs = || {
                run += 1;
                Drive::default().run(&streams.appends(run, WRITERS, each, &record), &[])
            };
            let legs: [(&str, Leg<'_>); 2] =
                [("Farshore", &mut ours), ("durable-streams", &mut theirs)];
            let [ours, theirs] = in_turns(NAME, plan.pairs, legs)?;
            Figure::of_legs(NAME, UNIT, &ours, streams::REFERENCE, &theirs)
        }
        Err(missing) => {
            let bar = progress(NAME, plan.pairs);
            let readings = (0..plan.pairs).map(|_| ours()).collect::<Outcome<_>>()?;
            bar.finish_and_clear();
            let median = Readings::new(readings).median();
            Figure::alone(NAME, median, UNIT).remarked(missing.to_string())
        }
    };
    Ok(vec![figure.driven_by(&drive)])
}

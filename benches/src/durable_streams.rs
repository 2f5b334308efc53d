//! `durable_streams`: durable appends of 256 bytes a second from 50 writers that each wait for the answer before they
//! send the next, against the crate `durable-streams` in its `wal` mode.
//!
//! An append of ours is a new row with one value of 256 bytes, with clock, digest and place in the order.
//! `.by_hand`: against a server that only puts what comes over the same sockets into an encrypted table;
//! `.by_hand_journalled`: with a journal before it.

use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;

use crate::appending_by_hand::{self, ByHand, DurableIn};
use crate::connection::{Standing, hello};
use crate::device;
use crate::drive::Drive;
use crate::flights;
use crate::legs::{Leg, in_turns};
use crate::load::{self, Load, Shape, Target};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::pushing::Push;
use crate::report::Figure;
use crate::server::Server;
use crate::streams::{self, Streams};

const NAME: &str = "durable_streams";
const BY_HAND: &str = "durable_streams.by_hand";
const JOURNALLED: &str = "durable_streams.by_hand_journalled";
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
    let appends = |writer: usize| -> Outcome<(String, Vec<Vec<u8>>)> {
        let site = format!("s{writer:02}");
        let grant = format!("site/{site}:rw");
        let ids = flights::ids(each, device::now_ms())?;
        let row = vec![("site_id", Value::from(site)), ("record", Value::Bytes(record.clone()))];
        Ok((grant, load::inserts(&schema, COLLECTION, 1, &ids, &[row])?))
    };
    let mut leg = 0;
    let mut drive = Drive::default();
    let [mut by_hand_drive, mut journalled_drive] = [Drive::default(), Drive::default()];
    let mut ours = || {
        leg += 1;
        let tenant = format!("streams-{leg}");
        server.create_tenant(&tenant, SCHEMA)?;
        let load = |writer: usize| {
            let (grant, transactions) = appends(writer)?;
            let target =
                Target { server: &server, tenant: &tenant, schema: &schema, grant: &grant };
            Load::of_transactions(target, Shape::ONE_BY_ONE, &transactions, each)
        };
        let loads = (0..WRITERS).map(load).collect::<Outcome<_>>()?;
        drive.run(&Push(loads), &[server.process()])
    };
    let append_by_hand = |durable_in: DurableIn, drive: &mut Drive| {
        let dir = plan.fresh_dir()?;
        let server = ByHand::start(dir.path(), RECORD_BYTES, durable_in)?;
        let load = |writer: usize| {
            let (grant, transactions) = appends(writer)?;
            let hello = hello(&schema, &grant, Standing::default())?;
            let (url, shape) = (server.url(), Shape::ONE_BY_ONE);
            Ok(Load::to_anybody(url, String::new(), hello, shape, &transactions, each))
        };
        let loads = (0..WRITERS).map(load).collect::<Outcome<_>>()?;
        drive.run(&Push(loads), &[server.process()])
    };
    let mut by_hand = || append_by_hand(DurableIn::Table, &mut by_hand_drive);
    let mut journalled = || append_by_hand(DurableIn::Journal, &mut journalled_drive);
    let peer_home = plan.fresh_dir()?;
    let by_hand: (&str, Leg<'_>) = ("by hand", &mut by_hand);
    let journalled: (&str, Leg<'_>) = ("by hand, journalled", &mut journalled);
    let (figure, ours, by_hand, journalled) = match Streams::start(peer_home.path()) {
        Ok(streams) => {
            let mut run = 0;
            let mut theirs = || {
                run += 1;
                Drive::default().run(&streams.appends(run, WRITERS, each, &record), &[])
            };
            let legs: [(&str, Leg<'_>); 4] =
                [("Farshore", &mut ours), ("durable-streams", &mut theirs), by_hand, journalled];
            let [ours, theirs, by_hand, journalled] = in_turns(NAME, plan.pairs, legs)?;
            let figure = Figure::of_legs(NAME, UNIT, &ours, streams::REFERENCE, &theirs);
            (figure, ours, by_hand, journalled)
        }
        Err(missing) => {
            let legs: [(&str, Leg<'_>); 3] = [("Farshore", &mut ours), by_hand, journalled];
            let [ours, by_hand, journalled] = in_turns(NAME, plan.pairs, legs)?;
            let figure = Figure::alone(NAME, ours.median(), UNIT).remarked(missing.to_string());
            (figure, ours, by_hand, journalled)
        }
    };
    let by_hand = Figure::of_legs(BY_HAND, UNIT, &ours, appending_by_hand::REFERENCE, &by_hand);
    let reference = appending_by_hand::JOURNALLED_REFERENCE;
    let journalled = Figure::of_legs(JOURNALLED, UNIT, &ours, reference, &journalled);
    Ok(vec![
        figure.driven_by(&drive),
        by_hand.driven_by(&by_hand_drive),
        journalled.driven_by(&journalled_drive),
    ])
}

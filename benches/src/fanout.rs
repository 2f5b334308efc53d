//! `fanout`: one write reaches 1,000 subscribed devices: from when the write was due until each has the message,
//! against nats-server passing the same bytes on to as many.
//!
//! Ours is written durably before anyone hears of it; nats-server keeps nothing. The load is open: a write that is
//! held up counts from when it was due. The receivers of both sides are sockets on one thread of a generator.

use std::cell::RefCell;

use farshore_api::envelope;
use farshore_sync_core::ids::RowId;
use farshore_sync_core::schema::Schema;
use farshore_sync_core::wire::{ClientFrame, Frame as _, Push};

use crate::connection::{self, Connection, Standing};
use crate::crowd::Member;
use crate::device;
use crate::drive::Drive;
use crate::flights::{self, Flight, SCHEMA};
use crate::legs::{Leg, Readings, in_turns, progress};
use crate::load;
use crate::nats::{self, Nats};
use crate::outcome::{Outcome, ensure};
use crate::plan::Plan;
use crate::receiving::{FromNats, FromServer, Message64, Received, Schedule};
use crate::report::Figure;
use crate::server::Server;

const NAME: &str = "fanout";
const TENANT: &str = "fanout";
const GRANT: &str = "tenant:rw";
const SUBSCRIBERS: usize = 1_000;
const QUICK_SUBSCRIBERS: usize = 250;
const WRITES_PER_SECOND: u32 = 20;
/// Fewer seconds than a server waits before it asks a quiet device whether it is there.
const SECONDS: u32 = 8;
const QUICK_SECONDS: u32 = 3;
/// Writes before the clock starts.
const WARM_UP_WRITES: u32 = 20;

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let (subscribers, seconds) =
        if plan.quick { (QUICK_SUBSCRIBERS, QUICK_SECONDS) } else { (SUBSCRIBERS, SECONDS) };
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    let side = Side::prepare(&server, TENANT, subscribers, seconds)?;

    let drive = RefCell::new(Drive::default());
    let mut medians = Vec::new();
    let payload = RefCell::new(Vec::new());
    let mut ours = || {
        let Received { late, message } = side.measure(&mut drive.borrow_mut())?;
        medians.push(late.ms_at(0.5));
        payload.replace(message.0);
        Ok(late.ms_at(0.99))
    };
    let (ours, theirs) = match Nats::start() {
        Ok(nats) => {
            // The first of our legs tells how long a message is.
            let warm = ours()?;
            ensure(warm > 0.0, || "nothing was received".into())?;
            let bytes = payload.take();
            let mut medians = Vec::new();
            let mut theirs = || {
                let (address, message) = (nats.address(), Message64(bytes.clone()));
                let job = FromNats { address, message, subscribers, schedule: side.schedule };
                let late = Drive::default().run(&job, &[])?;
                medians.push(late.ms_at(0.5));
                Ok(late.ms_at(0.99))
            };
            let legs: [(&str, Leg<'_>); 2] =
                [("Farshore", &mut ours), ("nats-server", &mut theirs)];
            let [ours, theirs] = in_turns(NAME, plan.pairs, legs)?;
            (ours, Ok((theirs, Readings::new(medians), bytes.len())))
        }
        Err(missing) => {
            let bar = progress(NAME, plan.pairs);
            let found = (0..plan.pairs).map(|_| ours()).collect::<Outcome<_>>()?;
            bar.finish_and_clear();
            (Readings::new(found), Err(missing))
        }
    };
    let figures = figures(subscribers, &Readings::new(medians), &ours, theirs);
    let drive = drive.into_inner();
    Ok(figures.into_iter().map(|figure| figure.driven_by(&drive)).collect())
}

fn figures(
    subscribers: usize,
    medians: &Readings,
    ours: &Readings,
    theirs: Outcome<(Readings, Readings, usize)>,
) -> [Figure; 2] {
    let p99 = "fanout.p99";
    match theirs {
        Ok((nats_p99, nats_p50, bytes)) => {
            let note = format!(
                "{NAME}: {subscribers} subscribers, {WRITES_PER_SECOND} writes/s, {bytes} bytes a message, all received; \
                 p99 {:.1} to {:.1} ms, of nats-server {:.1} to {:.1} ms",
                ours.range().0,
                ours.range().1,
                nats_p99.range().0,
                nats_p99.range().1,
            );
            [
                Figure::against(NAME, medians.median(), "ms", nats::REFERENCE, nats_p50.median())
                    .noted(note),
                Figure::against(p99, ours.median(), "ms", nats::REFERENCE, nats_p99.median()),
            ]
        }
        Err(missing) => [
            Figure::alone(NAME, medians.median(), "ms").remarked(missing.to_string()),
            Figure::alone(p99, ours.median(), "ms").remarked(missing.to_string()),
        ],
    }
}

/// A tenant in which one device writes and many receive.
pub struct Side<'a> {
    server: &'a Server,
    tenant: &'a str,
    schema: Schema,
    tokens: Vec<String>,
    flights: Vec<Flight>,
    schedule: Schedule,
}

impl<'a> Side<'a> {
    /// Creates the tenant and makes the devices known.
    pub fn prepare(
        server: &'a Server,
        tenant: &'a str,
        subscribers: usize,
        seconds: u32,
    ) -> Outcome<Self> {
        server.create_tenant(tenant, SCHEMA)?;
        let schedule = Schedule {
            per_second: WRITES_PER_SECOND,
            warm_up: WARM_UP_WRITES,
            messages: WARM_UP_WRITES + seconds * WRITES_PER_SECOND,
        };
        let tokens = server.tokens(tenant, GRANT, subscribers)?;
        let flights = flights::read(schedule.messages as usize)?;
        Ok(Self { server, tenant, schema: Schema::parse(SCHEMA)?, tokens, flights, schedule })
    }

    /// Connects everybody and writes on time.
    pub fn measure(&self, drive: &mut Drive) -> Outcome<Received> {
        let url = connection::socket_url(self.server);
        let token = self.server.token(self.tenant, GRANT)?;
        let fresh = connection::hello(&self.schema, GRANT, Standing::default())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (_, welcome) = runtime.block_on(Connection::open(&url, &token, &fresh))?;
        let standing = Standing { epoch: welcome.epoch, cursor: welcome.head };
        let hello = connection::hello(&self.schema, GRANT, standing)?;
        let member = |token| Member { url: url.clone(), token, hello: hello.clone() };
        let ids = flights::ids(self.flights.len(), device::now_ms())?;
        let job = FromServer {
            address: self.server.address(),
            writer: member(token),
            pushes: pushes(&self.schema, &ids, &self.flights)?,
            receivers: self.tokens.iter().cloned().map(member).collect(),
            schedule: self.schedule,
        };
        drive.run(&job, &[self.server.process()])
    }
}

/// One write a message. What was answered by then is not said: nothing is resent.
fn pushes(schema: &Schema, ids: &[RowId], flights: &[Flight]) -> Outcome<Vec<Message64>> {
    let transactions = load::transactions(schema, 1, ids, flights)?;
    let push = |transaction: Vec<u8>| {
        let push = Push { settled: 0, transactions: vec![transaction.into()] };
        Message64(envelope::seal(&ClientFrame::Push(push).to_bytes()))
    };
    Ok(transactions.into_iter().map(push).collect())
}

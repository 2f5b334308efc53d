//! `fanout`: one write reaches 1,000 subscribed devices: from when the write was due until each has the message,
//! against nats-server passing the same bytes on to as many.
//!
//! Ours is written durably before anyone hears of it; nats-server keeps nothing. The load is open: a write that is
//! held up counts from when it was due. The receivers of both sides are sockets on one thread of this process.

use std::cell::RefCell;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use farshore_api::envelope;
use farshore_sync_core::ids::RowId;
use farshore_sync_core::schema::Schema;
use farshore_sync_core::wire::{ClientFrame, Frame as _, Push, ServerFrame};
use hdrhistogram::Histogram;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use crate::device::{self, PATIENCE};
use crate::flights::{self, Flight, SCHEMA};
use crate::legs::{Readings, in_turns, progress};
use crate::load::{self, Connection, Standing};
use crate::machine::Busy;
use crate::nats::{self, Nats, Publisher};
use crate::outcome::{Failure, Outcome, ensure};
use crate::plan::Plan;
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
const HANDSHAKES: usize = 256;
/// Most that a histogram knows, in microseconds.
const MOST_US: u64 = 60_000_000;

/// When writes are due, and how many count.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    subscribers: usize,
    writes: u32,
}

impl Schedule {
    fn due(started: Instant, number: u32) -> Instant {
        started + Duration::from_secs(1) / WRITES_PER_SECOND * number
    }
}

pub fn run(plan: &Plan) -> Outcome<Vec<Figure>> {
    let (subscribers, seconds) =
        if plan.quick { (QUICK_SUBSCRIBERS, QUICK_SECONDS) } else { (SUBSCRIBERS, SECONDS) };
    let schedule = Schedule { subscribers, writes: WARM_UP_WRITES + seconds * WRITES_PER_SECOND };
    let home = plan.fresh_dir()?;
    let server = Server::start(home.path())?;
    server.create_tenant(TENANT, SCHEMA)?;
    let schema = Schema::parse(SCHEMA)?;
    let tokens = server.tokens(TENANT, GRANT, subscribers)?;
    let flights = flights::read(schedule.writes as usize)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;

    let mut measured = Measured::default();
    let payload = RefCell::new(Vec::new());
    let mut ours = || {
        let side = Ours { server: &server, schema: &schema, tokens: &tokens, flights: &flights };
        let (generator, serving) = (Busy::of(std::process::id()), Busy::of(server.process()));
        let (histogram, message) = side.measure(&runtime, schedule)?;
        payload.replace(message);
        measured.note(&histogram, &generator, &serving);
        Ok(milliseconds(&histogram, 0.99))
    };
    let readings = match Nats::start() {
        Ok(nats) => {
            // The first of our legs tells how long a message is.
            let warm = ours()?;
            ensure(warm > 0.0, || "nothing was received".into())?;
            let bytes = payload.take();
            let mut medians = Vec::new();
            let mut theirs = || {
                let histogram = of_nats(&runtime, &nats, schedule, &bytes)?;
                medians.push(milliseconds(&histogram, 0.5));
                Ok(milliseconds(&histogram, 0.99))
            };
            let legs: [(&str, crate::legs::Leg<'_>); 2] =
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
    Ok(figures(&readings.0, readings.1, &measured, schedule))
}

fn figures(
    ours: &Readings,
    theirs: Outcome<(Readings, Readings, usize)>,
    measured: &Measured,
    schedule: Schedule,
) -> Vec<Figure> {
    let medians = Readings::new(measured.medians_ms.clone());
    let p99 = "fanout.p99";
    let (p50, p99) = match theirs {
        Ok((nats_p99, nats_p50, bytes)) => {
            let note = format!(
                "{NAME}: {} subscribers, {WRITES_PER_SECOND} writes/s, {bytes} bytes a message, all received; \
                 p99 {:.1} to {:.1} ms, of nats-server {:.1} to {:.1} ms; in the last run: {}",
                schedule.subscribers,
                ours.range().0,
                ours.range().1,
                nats_p99.range().0,
                nats_p99.range().1,
                measured.last
            );
            (
                Figure::against(NAME, medians.median(), "ms", nats::REFERENCE, nats_p50.median())
                    .noted(note),
                Figure::against(p99, ours.median(), "ms", nats::REFERENCE, nats_p99.median()),
            )
        }
        Err(missing) => (
            Figure::alone(NAME, medians.median(), "ms").remarked(missing.to_string()),
            Figure::alone(p99, ours.median(), "ms").remarked(missing.to_string()),
        ),
    };
    vec![p50.loaded_by(Some(measured.busiest)), p99.loaded_by(Some(measured.busiest))]
}

/// What our legs gave besides their figure.
#[derive(Debug, Default)]
struct Measured {
    medians_ms: Vec<f64>,
    busiest: f64,
    last: String,
}

impl Measured {
    fn note(&mut self, histogram: &Histogram<u64>, generator: &Busy, serving: &Busy) {
        self.medians_ms.push(milliseconds(histogram, 0.5));
        self.busiest = self.busiest.max(generator.share().unwrap_or_default());
        self.last = format!("generator {}, server {}", generator.describe(), serving.describe());
    }
}

fn milliseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}

struct Ours<'a> {
    server: &'a Server,
    schema: &'a Schema,
    tokens: &'a [String],
    flights: &'a [Flight],
}

impl Ours<'_> {
    /// Connects everybody, writes on time, and gives how long each delivery took and what one looked like.
    fn measure(&self, runtime: &Runtime, schedule: Schedule) -> Outcome<(Histogram<u64>, Vec<u8>)> {
        let url = load::socket_url(self.server);
        let writer_token = self.server.token(TENANT, GRANT)?;
        let fresh = load::hello(self.schema, GRANT, Standing::default())?;
        let (_, welcome) = runtime.block_on(Connection::open(&url, &writer_token, &fresh))?;
        let standing = Standing { epoch: welcome.epoch, cursor: welcome.head };
        let hello = load::hello(self.schema, GRANT, standing)?;
        let mut writer = Writer::open(self.server, &url, &writer_token, &hello)?;
        let ids = flights::ids(schedule.writes as usize, device::now_ms())?;
        let pushes = pushes(self.schema, &ids, self.flights)?;

        runtime.block_on(async {
            let room = Arc::new(Semaphore::new(HANDSHAKES));
            let mut joining = JoinSet::new();
            for token in self.tokens {
                let (url, token, hello) = (url.clone(), token.clone(), hello.clone());
                let room = Arc::clone(&room);
                joining.spawn(async move {
                    let _turn = room.acquire_owned().await?;
                    let (mut connection, _) = Connection::open(&url, &token, &hello).await?;
                    connection.until_in_step().await?;
                    Ok::<_, Failure>(connection)
                });
            }
            let mut connections = Vec::new();
            while let Some(joined) = joining.join_next().await {
                connections.push(joined??);
            }
            let started = Instant::now() + Duration::from_secs(1) / WRITES_PER_SECOND;
            let mut receiving = JoinSet::new();
            for connection in connections {
                receiving.spawn(receive(connection, started, schedule.writes));
            }
            let writing = thread::spawn(move || {
                on_time(started, schedule.writes, |number| writer.send(&pushes[number as usize]))?;
                Ok::<_, Failure>(writer)
            });
            let (mut all, mut payload) = (Histogram::new_with_max(MOST_US, 3)?, Vec::new());
            while let Some(received) = receiving.join_next().await {
                let (histogram, message) = received??;
                all.add(histogram)?;
                payload = message;
            }
            // Everybody has received everything, so the writer has nothing left to do.
            writing.join().unwrap_or_else(|_| Err("the writing thread panicked".into()))?;
            Ok((all, payload))
        })
    }
}

/// Takes in so many rows and notes when each came.
async fn receive(
    mut connection: Connection,
    started: Instant,
    writes: u32,
) -> Outcome<(Histogram<u64>, Vec<u8>)> {
    let mut histogram = Histogram::new_with_max(MOST_US, 3)?;
    let mut received = 0;
    let mut last = Vec::new();
    while received < writes {
        let message = connection.next_message().await?;
        let at = Instant::now();
        let ServerFrame::Page(page) = ServerFrame::from_bytes(&envelope::open(&message)?)? else {
            continue;
        };
        for _ in &page.rows {
            note(&mut histogram, started, received, at);
            received += 1;
        }
        last = message.to_vec();
    }
    ensure(received == writes, || format!("{received} rows came for {writes} writes"))?;
    Ok((histogram, last))
}

fn note(histogram: &mut Histogram<u64>, started: Instant, number: u32, at: Instant) {
    if number >= WARM_UP_WRITES {
        let late = at.saturating_duration_since(Schedule::due(started, number));
        histogram.saturating_record(u64::try_from(late.as_micros()).unwrap_or(MOST_US));
    }
}

fn on_time(started: Instant, writes: u32, mut write: impl FnMut(u32) -> Outcome) -> Outcome {
    for number in 0..writes {
        loop {
            let left = Schedule::due(started, number).saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left);
        }
        write(number)?;
    }
    Ok(())
}

/// The device that writes, on a thread of its own: a runtime's timers are too coarse.
struct Writer {
    socket: WebSocket<TcpStream>,
}

impl Writer {
    fn open(server: &Server, url: &str, token: &str, hello: &[u8]) -> Outcome<Self> {
        let stream = TcpStream::connect(server.address())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let opened = tungstenite::client(load::upgrade(url, token)?, stream);
        let (mut socket, _) = opened.map_err(|error| Failure::from(error.to_string()))?;
        socket.send(Message::binary(hello.to_vec()))?;
        let mut writer = Self { socket };
        while !matches!(writer.next_frame()?, ServerFrame::Page(page) if page.checkpoint.is_some())
        {
        }
        Ok(writer)
    }

    /// Sends one write; answers are left in the socket, which has room for all of a run.
    fn send(&mut self, push: &[u8]) -> Outcome {
        Ok(self.socket.send(Message::binary(push.to_vec()))?)
    }

    fn next_frame(&mut self) -> Outcome<ServerFrame> {
        loop {
            if let Message::Binary(message) = self.socket.read()? {
                return Ok(ServerFrame::from_bytes(&envelope::open(&message)?)?);
            }
        }
    }
}

/// One write a message. What was answered by then is not said: nothing is resent.
fn pushes(schema: &Schema, ids: &[RowId], flights: &[Flight]) -> Outcome<Vec<Vec<u8>>> {
    let transactions = load::transactions(schema, 1, ids, flights)?;
    let push = |transaction: Vec<u8>| {
        let push = Push { settled: 0, transactions: vec![transaction.into()] };
        envelope::seal(&ClientFrame::Push(push).to_bytes())
    };
    Ok(transactions.into_iter().map(push).collect())
}

fn of_nats(
    runtime: &Runtime,
    nats: &Nats,
    schedule: Schedule,
    payload: &[u8],
) -> Outcome<Histogram<u64>> {
    let mut publisher: Publisher = nats.publisher()?;
    runtime.block_on(async {
        let mut subscribers = Vec::with_capacity(schedule.subscribers);
        for _ in 0..schedule.subscribers {
            subscribers.push(nats.subscribe().await?);
        }
        let started = Instant::now() + Duration::from_secs(1) / WRITES_PER_SECOND;
        let mut receiving = JoinSet::new();
        for mut subscriber in subscribers {
            receiving.spawn(async move {
                let mut histogram = Histogram::new_with_max(MOST_US, 3)?;
                for number in 0..schedule.writes {
                    subscriber.next().await?;
                    note(&mut histogram, started, number, Instant::now());
                }
                Ok::<_, Failure>(histogram)
            });
        }
        let payload = payload.to_vec();
        let writing = thread::spawn(move || {
            on_time(started, schedule.writes, |_| publisher.publish(&payload))
        });
        let mut all = Histogram::new_with_max(MOST_US, 3)?;
        while let Some(received) = receiving.join_next().await {
            all.add(received??)?;
        }
        writing.join().unwrap_or_else(|_| Err("the publishing thread panicked".into()))?;
        Ok(all)
    })
}

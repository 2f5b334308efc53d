//! Devices that only push: transactions are encoded and compressed beforehand, and nothing is stored here, so that
//! it is the server that is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use farshore_api::envelope;
use farshore_api::grant::parse_grant;
use farshore_sync_core::hlc::Hlc;
use farshore_sync_core::ids::RowId;
use farshore_sync_core::mutation::{Cells, Mutation, Op, Transaction};
use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;
use farshore_sync_core::wire::limits::PUSH_TARGET_BYTES;
use farshore_sync_core::wire::{
    ClientFrame, Frame as _, Hello, PROTOCOL_VERSION, Page, Push, SUBPROTOCOL, ServerFrame,
    Welcome, scopes_hash,
};
use futures_util::{SinkExt as _, StreamExt as _};
use hdrhistogram::Histogram;
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::device::{PATIENCE, now_ms};
use crate::flights::{COLLECTION, Flight, SCHEMA};
use crate::legs::progress;
use crate::outcome::{Failure, Outcome, ensure};
use crate::server::Server;

/// Rows of one transaction.
pub const ROWS_PER_TRANSACTION: usize = 100;
/// Most that a histogram knows, in microseconds.
const MOST_US: u64 = 60_000_000;
/// What a socket reads at a time.
const READ_BUFFER_BYTES: usize = 4 << 10;

/// How a device cuts what it has into transactions and pushes.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub rows_per_transaction: usize,
    /// After so many bytes of transactions a push is full.
    pub push_bytes: usize,
    /// Pushes that a device has under way.
    pub pushes_in_flight: usize,
}

impl Shape {
    /// What the SDK does with a full outbox.
    pub const BULK: Self = Self {
        rows_per_transaction: ROWS_PER_TRANSACTION,
        push_bytes: PUSH_TARGET_BYTES,
        pushes_in_flight: 4,
    };
    /// One row, and the next one when that is acknowledged.
    pub const ONE_BY_ONE: Self =
        Self { rows_per_transaction: 1, push_bytes: 1, pushes_in_flight: 1 };
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Everything that one device will push.
#[derive(Debug)]
pub struct Load {
    url: String,
    token: String,
    hello: Vec<u8>,
    pushes: Vec<Sealed>,
    in_flight: usize,
    rows: usize,
}

/// One push, ready to be sent.
#[derive(Debug)]
struct Sealed {
    message: Vec<u8>,
    last_number: u64,
}

/// What a device pushes where.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub server: &'a Server,
    pub tenant: &'a str,
    pub schema: &'a Schema,
    /// The scope of everything that is pushed, with its right.
    pub grant: &'a str,
}

impl Load {
    /// Makes a device known to the server and prepares what it will push: for each id a flight, from the first one
    /// again where there are fewer flights.
    pub fn prepare(
        target: Target<'_>,
        shape: Shape,
        ids: &[RowId],
        flights: &[Flight],
    ) -> Outcome<Self> {
        let encoded = transactions(target.schema, shape.rows_per_transaction, ids, flights)?;
        Self::of_transactions(target, shape, &encoded, ids.len())
    }

    /// Makes a device known to the server that will push these transactions, which touch so many rows.
    pub fn of_transactions(
        target: Target<'_>,
        shape: Shape,
        transactions: &[Vec<u8>],
        rows: usize,
    ) -> Outcome<Self> {
        Ok(Self {
            url: socket_url(target.server),
            token: target.server.token(target.tenant, target.grant)?,
            hello: hello(target.schema, target.grant, Standing::default())?,
            pushes: pushes(transactions, shape),
            in_flight: shape.pushes_in_flight,
            rows,
        })
    }

    /// Cuts it into so many that one device pushes one after the other; what does not divide evenly is left out.
    pub fn split(self, parts: usize) -> Vec<Self> {
        let (pushes, rows) = (self.pushes.len() / parts, self.rows / parts);
        let mut rest = self.pushes.into_iter();
        let part = |_| Self {
            url: self.url.clone(),
            token: self.token.clone(),
            hello: self.hello.clone(),
            pushes: rest.by_ref().take(pushes).collect(),
            in_flight: self.in_flight,
            rows,
        };
        (0..parts).map(part).collect()
    }

    /// The messages that it will send.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        self.pushes.iter().map(|push| push.message.as_slice())
    }

    /// Connects, waits for the others, pushes everything and waits until all of it is acknowledged.
    async fn push(
        self: Arc<Self>,
        start: Arc<Barrier>,
        acknowledged: impl Fn(u64),
    ) -> Outcome<Pushed> {
        let (mut connection, _) = Connection::open(&self.url, &self.token, &self.hello).await?;
        start.wait().await;
        let started = Instant::now();
        let mut sent = 0;
        let mut answered = 0;
        for (at, push) in self.pushes.iter().enumerate() {
            let oldest = at.checked_sub(self.in_flight).map_or(0, |at| self.pushes[at].last_number);
            while answered < oldest {
                answered = connection.next_answer(answered).await?;
                acknowledged(answered);
            }
            connection.socket.send(Message::binary(push.message.clone())).await?;
            sent = push.last_number;
        }
        while answered < sent {
            answered = connection.next_answer(answered).await?;
            acknowledged(answered);
        }
        Ok(Pushed { started, ended: Instant::now() })
    }
}

/// When a device began to push and when everything was acknowledged.
struct Pushed {
    started: Instant,
    ended: Instant,
}

/// Where a device says that it stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing {
    pub epoch: u64,
    pub cursor: u64,
}

/// Where the sync socket of a server is.
pub fn socket_url(server: &Server) -> String {
    format!("ws://{}{}", server.address(), farshore_api::SYNC_PATH)
}

/// The first message of a device.
pub fn hello(schema: &Schema, grant: &str, standing: Standing) -> Outcome<Vec<u8>> {
    let hello = ClientFrame::Hello(Hello {
        protocol: PROTOCOL_VERSION,
        schema_version: schema.version,
        epoch: standing.epoch,
        scopes_hash: scopes_hash(&[parse_grant(grant)?]),
        cursor: standing.cursor,
        positions: Vec::new(),
        settled: 0,
        next_number: 1,
        transactions: Vec::new(),
    });
    Ok(envelope::seal(&hello.to_bytes()))
}

/// What opens a socket.
pub fn upgrade(url: &str, token: &str) -> Outcome<ClientRequestBuilder> {
    Ok(ClientRequestBuilder::new(url.parse()?)
        .with_sub_protocol(SUBPROTOCOL)
        .with_header("Authorization", format!("Bearer {token}")))
}

/// One device's socket.
pub struct Connection {
    socket: Socket,
    said: usize,
}

impl Connection {
    /// Opens one and says Hello; gives what the server welcomed the device with.
    pub async fn open(url: &str, token: &str, hello: &[u8]) -> Outcome<(Self, Welcome)> {
        // Thousands of sockets share this process; the library's own buffers of 128 KiB are allocated at once.
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let request = upgrade(url, token)?;
        let (mut socket, _) = connect_async_with_config(request, Some(config), true).await?;
        socket.send(Message::binary(hello.to_vec())).await?;
        let mut connection = Self { socket, said: 1 };
        match connection.next_frame().await? {
            ServerFrame::Welcome(welcome) if welcome.grants.is_none() => Ok((connection, welcome)),
            other => Err(format!("the server answered {} to Hello", other.kind()).into()),
        }
    }

    /// How many messages it has sent, Hello included, pushes not.
    pub const fn said(&self) -> usize {
        self.said
    }

    /// Reads pages until one has a checkpoint; gives the messages as they came.
    pub async fn until_in_step(&mut self) -> Outcome<Vec<Bytes>> {
        let mut messages = Vec::new();
        loop {
            let message = self.next_message().await?;
            let frame = ServerFrame::from_bytes(&envelope::open(&message)?)?;
            messages.push(message);
            if let ServerFrame::Page(page) = frame
                && page.checkpoint.is_some()
            {
                return Ok(messages);
            }
        }
    }

    /// The next page; answers to whether the device is there are given on the way.
    pub async fn next_page(&mut self) -> Outcome<Page> {
        loop {
            match self.next_frame().await? {
                ServerFrame::Page(page) => return Ok(page),
                ServerFrame::Ping(number) => self.pong(number).await?,
                ServerFrame::Fault(fault) => return Err(fault.into()),
                _ => {}
            }
        }
    }

    /// Says that it is there whenever it is asked, and takes in what comes; ends with the connection only.
    pub async fn stay(mut self) -> Outcome {
        loop {
            self.next_page().await?;
        }
    }

    async fn pong(&mut self, number: u64) -> Outcome {
        self.said += 1;
        let pong = envelope::seal(&ClientFrame::Pong(number).to_bytes());
        Ok(self.socket.send(Message::binary(pong)).await?)
    }

    /// The number up to which everything is acknowledged, after the next answers.
    async fn next_answer(&mut self, mut answered: u64) -> Outcome<u64> {
        loop {
            match self.next_frame().await? {
                ServerFrame::Outcomes(outcomes) => {
                    for outcome in outcomes {
                        ensure(outcome.refused.is_none(), || {
                            format!("refused: {:?}", outcome.refused)
                        })?;
                        answered = answered.max(outcome.number);
                    }
                    return Ok(answered);
                }
                ServerFrame::Ping(number) => self.pong(number).await?,
                ServerFrame::Fault(fault) => return Err(fault.into()),
                _ => {}
            }
        }
    }

    async fn next_frame(&mut self) -> Outcome<ServerFrame> {
        let message = self.next_message().await?;
        Ok(ServerFrame::from_bytes(&envelope::open(&message)?)?)
    }

    /// The next message as it came.
    pub async fn next_message(&mut self) -> Outcome<Bytes> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await? {
                Some(Ok(Message::Binary(message))) => return Ok(message),
                Some(Ok(Message::Close(reason))) => {
                    return Err(format!("the server closed: {reason:?}").into());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err("the server is gone".into()),
            }
        }
    }
}

/// Pushes everything at once and gives the acknowledged rows a second, from the first push to the last answer.
pub fn push_all(loads: Vec<Load>) -> Outcome<f64> {
    let rows: usize = loads.iter().map(|load| load.rows).sum();
    let took = push_concurrently(loads, |_| {})?;
    Ok(rows as f64 / took.as_secs_f64())
}

/// Pushes at once until it is enough, or until everything is pushed; gives the rows that were acknowledged.
pub fn push_until(loads: Vec<Load>, enough: Arc<AtomicBool>) -> Outcome<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut pushing = JoinSet::new();
        for load in loads {
            let enough = Arc::clone(&enough);
            pushing.spawn(async move {
                let (mut connection, _) =
                    Connection::open(&load.url, &load.token, &load.hello).await?;
                let mut answered = 0;
                for (at, push) in load.pushes.iter().enumerate() {
                    let oldest = at.checked_sub(load.in_flight);
                    let oldest = oldest.map_or(0, |at| load.pushes[at].last_number);
                    while answered < oldest {
                        answered = connection.next_answer(answered).await?;
                    }
                    if enough.load(Ordering::Relaxed) {
                        break;
                    }
                    connection.socket.send(Message::binary(push.message.clone())).await?;
                }
                Ok::<_, Failure>(answered as usize * ROWS_PER_TRANSACTION)
            });
        }
        let mut rows = 0;
        while let Some(pushed) = pushing.join_next().await {
            rows += pushed??;
        }
        Ok(rows)
    })
}

/// Pushes so many times a second, whether the earlier ones are answered or not, and gives from when each was due until
/// it was acknowledged, in microseconds.
pub fn push_on_time(load: Load, per_second: u32) -> Outcome<Histogram<u64>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut connection, _) = Connection::open(&load.url, &load.token, &load.hello).await?;
        let interval = Duration::from_secs(1) / per_second;
        let started = Instant::now() + interval;
        let due = |number: u64| started + interval * u32::try_from(number).unwrap_or(u32::MAX);
        let mut histogram = Histogram::new_with_max(MOST_US, 3)?;
        let (mut sent, mut answered) = (0, 0);
        let all = load.pushes.len() as u64;
        while answered < all {
            tokio::select! {
                () = tokio::time::sleep_until(due(sent).into()), if sent < all => {
                    let push = &load.pushes[sent as usize];
                    connection.socket.send(Message::binary(push.message.clone())).await?;
                    sent += 1;
                }
                answer = connection.next_answer(answered) => {
                    let before = std::mem::replace(&mut answered, answer?);
                    // Numbers begin with 1.
                    for number in before..answered {
                        let late = due(number).elapsed().as_micros();
                        histogram.saturating_record(u64::try_from(late).unwrap_or(MOST_US));
                    }
                }
            }
        }
        Ok(histogram)
    })
}

/// Puts rows on the server before a bench begins.
pub fn seed(server: &Server, tenant: &str, ids: &[RowId], flights: &[Flight]) -> Outcome {
    let schema = Schema::parse(SCHEMA)?;
    let target = Target { server, tenant, schema: &schema, grant: "tenant:rw" };
    let load = Load::prepare(target, Shape::BULK, ids, flights)?;
    let bar = progress(&format!("seeding {} rows", ids.len()), ids.len());
    let shown = bar.clone();
    push_concurrently(vec![load], move |answered| {
        shown.set_position(answered * ROWS_PER_TRANSACTION as u64);
    })?;
    bar.finish_and_clear();
    Ok(())
}

fn push_concurrently(
    loads: Vec<Load>,
    acknowledged: impl Fn(u64) + Clone + Send + Sync + 'static,
) -> Outcome<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let start = Arc::new(Barrier::new(loads.len()));
        let pushing: Vec<_> = loads
            .into_iter()
            .map(|load| tokio::spawn(Arc::new(load).push(Arc::clone(&start), acknowledged.clone())))
            .collect();
        let mut all: Option<(Instant, Instant)> = None;
        for device in pushing {
            let Pushed { started, ended } = device.await??;
            all =
                Some(all.map_or((started, ended), |(first, last)| {
                    (first.min(started), last.max(ended))
                }));
        }
        let (first, last) = all.ok_or_else(|| Failure::from("nobody pushed"))?;
        Ok(last - first)
    })
}

/// Transactions of inserts, encoded, with numbers from 1.
pub fn transactions(
    schema: &Schema,
    rows_per_transaction: usize,
    ids: &[RowId],
    flights: &[Flight],
) -> Outcome<Vec<Vec<u8>>> {
    inserts(schema, COLLECTION, rows_per_transaction, ids, flights)
}

/// Transactions of inserts into any collection: for each id a row, from the first one again where there are fewer.
pub fn inserts(
    schema: &Schema,
    collection: &str,
    rows_per_transaction: usize,
    ids: &[RowId],
    rows: &[Flight],
) -> Outcome<Vec<Vec<u8>>> {
    let collection = schema.collection_named(collection).ok_or("no such collection")?;
    let mut rows = rows.iter().cycle();
    let inserts = ids.chunks(rows_per_transaction).map(|ids| {
        let insert = |(id, row): (&RowId, &Flight)| {
            let cell = |(name, value): &(&'static str, Value)| {
                let column = collection.column_named(name).ok_or("no such column")?;
                Ok((column.column_id(), value.clone()))
            };
            let cells = Cells::new(row.iter().map(cell).collect::<Outcome<_>>()?);
            let (collection, row) = (collection.collection_id(), *id);
            Ok(Mutation { collection, row, op: Op::Insert { cells } })
        };
        ids.iter().zip(rows.by_ref()).map(insert).collect()
    });
    encode(inserts)
}

/// Transactions that write one column of these rows.
pub fn updates(
    schema: &Schema,
    rows_per_transaction: usize,
    ids: &[RowId],
    column: &str,
    value: &Value,
) -> Outcome<Vec<Vec<u8>>> {
    let collection = schema.collection_named(COLLECTION).ok_or("no flights")?;
    let column = collection.column_named(column).ok_or("no such column")?.column_id();
    let cells = Cells::new(vec![(column, value.clone())]);
    let update = |row: &RowId| {
        let (collection, op) = (collection.collection_id(), Op::Update { cells: cells.clone() });
        Mutation { collection, row: *row, op }
    };
    encode(ids.chunks(rows_per_transaction).map(|ids| Ok(ids.iter().map(update).collect())))
}

fn encode(transactions: impl Iterator<Item = Outcome<Vec<Mutation>>>) -> Outcome<Vec<Vec<u8>>> {
    let mut stamp = Hlc::from_wall_ms(now_ms());
    let mut encode = |(number, mutations): (u64, Outcome<_>)| {
        stamp = stamp.next();
        Ok(Transaction { number, stamp, mutations: mutations? }.encode())
    };
    (1..).zip(transactions).map(&mut encode).collect()
}

/// Transactions in pushes. Each says what was answered when it may be sent.
fn pushes(transactions: &[Vec<u8>], shape: Shape) -> Vec<Sealed> {
    let mut pushes: Vec<Sealed> = Vec::new();
    let mut rest = transactions;
    let mut number = 0;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |transaction: &&Vec<u8>| {
            bytes += transaction.len();
            bytes <= shape.push_bytes
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (batch, after) = rest.split_at(count);
        rest = after;
        number += count as u64;
        let settled =
            pushes.len().checked_sub(shape.pushes_in_flight).map_or(0, |at| pushes[at].last_number);
        let transactions = batch.iter().map(|transaction| transaction.clone().into()).collect();
        let frame = ClientFrame::Push(Push { settled, transactions });
        pushes.push(Sealed { message: envelope::seal(&frame.to_bytes()), last_number: number });
    }
    pushes
}

//! What a generator does with many who receive what one sends on time: from when each message was due until each of
//! them has it. Devices at a server of ours, and subscribers of nats-server, each on one thread.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use farshore_api::envelope;
use farshore_sync_core::wire::{Frame as _, ServerFrame};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use crate::base64;
use crate::connection::{self, Connection};
use crate::crowd::{self, Member};
use crate::device::PATIENCE;
use crate::generator::{Job, Stage};
use crate::latencies::Latencies;
use crate::nats::{Publisher, Subscriber};
use crate::outcome::{Failure, Outcome, ensure};

/// When messages are due, and how many count.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Schedule {
    pub per_second: u32,
    /// How many before the clock starts.
    pub warm_up: u32,
    /// How many there are, those before the clock starts included.
    pub messages: u32,
}

impl Schedule {
    fn due(self, started: Instant, number: u32) -> Instant {
        started + Duration::from_secs(1) / self.per_second * number
    }

    /// When the first one is due.
    fn start(self) -> Instant {
        Instant::now() + Duration::from_secs(1) / self.per_second
    }

    fn note(self, latencies: &mut Latencies, started: Instant, number: u32, at: Instant) {
        if number >= self.warm_up {
            latencies.note(at.saturating_duration_since(self.due(started, number)));
        }
    }

    /// Sends each message when it is due.
    fn keep(self, started: Instant, mut send: impl FnMut(u32) -> Outcome) -> Outcome {
        for number in 0..self.messages {
            loop {
                let left = self.due(started, number).saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                thread::park_timeout(left);
            }
            send(number)?;
        }
        Ok(())
    }
}

/// Devices that receive the rows that another one writes, one in each push.
#[derive(Debug, Serialize, Deserialize)]
pub struct FromServer {
    pub address: SocketAddr,
    pub writer: Member,
    pub pushes: Vec<Message64>,
    pub receivers: Vec<Member>,
    pub schedule: Schedule,
}

/// A message as it is sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Message64(#[serde(with = "base64")] pub Vec<u8>);

/// What came.
#[derive(Debug, Serialize, Deserialize)]
pub struct Received {
    /// From when a message was due until one of those who receive it had it.
    pub late: Latencies,
    /// What a message looked like.
    pub message: Message64,
}

impl Job for FromServer {
    const NAME: &str = "receive-from-server";
    type Found = Received;

    fn run(self, stage: Stage<Received>) -> Outcome {
        let Self { address, writer, pushes, receivers, schedule } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut writer = Writer::open(address, &writer)?;
        let received = runtime.block_on(async {
            let mut connections = Vec::with_capacity(receivers.len());
            let mut joining = crowd::join(receivers, Instant::now());
            while let Some(joined) = joining.join_next().await {
                connections.push(joined??.0);
            }
            stage.begin()?;
            let started = schedule.start();
            let mut receiving = JoinSet::new();
            for connection in connections {
                receiving.spawn(receive(connection, started, schedule));
            }
            let writing = thread::spawn(move || {
                schedule.keep(started, |number| writer.send(&pushes[number as usize].0))?;
                Ok::<_, Failure>(writer)
            });
            let (mut late, mut message) = (Latencies::new(), Vec::new());
            while let Some(received) = receiving.join_next().await {
                let (one, last) = received??;
                late.add(&one)?;
                message = last;
            }
            // Everybody has received everything, so the writer has nothing left to do.
            writing.join().unwrap_or_else(|_| Err("the writing thread panicked".into()))?;
            Ok::<_, Failure>(Received { late, message: Message64(message) })
        })?;
        stage.found(&received)
    }
}

/// Takes in all rows and notes when each came; gives the last message as well.
async fn receive(
    mut connection: Connection,
    started: Instant,
    schedule: Schedule,
) -> Outcome<(Latencies, Vec<u8>)> {
    let mut late = Latencies::new();
    let mut received = 0;
    let mut last = Vec::new();
    while received < schedule.messages {
        let message = connection.next_message().await?;
        let at = Instant::now();
        let ServerFrame::Page(page) = ServerFrame::from_bytes(&envelope::open(&message)?)? else {
            continue;
        };
        for _ in &page.rows {
            schedule.note(&mut late, started, received, at);
            received += 1;
        }
        last = message.to_vec();
    }
    let all = schedule.messages;
    ensure(received == all, || format!("{received} rows came for {all} writes"))?;
    Ok((late, last))
}

/// The device that writes, on a thread of its own: a runtime's timers are too coarse.
struct Writer {
    socket: WebSocket<TcpStream>,
}

impl Writer {
    fn open(address: SocketAddr, member: &Member) -> Outcome<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let upgrade = connection::upgrade(&member.url, &member.token)?;
        let opened = tungstenite::client(upgrade, stream);
        let (mut socket, _) = opened.map_err(|error| Failure::from(error.to_string()))?;
        socket.send(Message::binary(member.hello.clone()))?;
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

/// Subscribers of nats-server that receive what one publishes.
#[derive(Debug, Serialize, Deserialize)]
pub struct FromNats {
    pub address: SocketAddr,
    pub message: Message64,
    pub subscribers: usize,
    pub schedule: Schedule,
}

impl Job for FromNats {
    const NAME: &str = "receive-from-nats";
    type Found = Latencies;

    fn run(self, stage: Stage<Latencies>) -> Outcome {
        let Self { address, message, subscribers: count, schedule } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut publisher = Publisher::at(address)?;
        let late = runtime.block_on(async {
            let mut subscribers = Vec::with_capacity(count);
            for _ in 0..count {
                subscribers.push(Subscriber::at(address).await?);
            }
            stage.begin()?;
            let started = schedule.start();
            let mut receiving = JoinSet::new();
            for mut subscriber in subscribers {
                receiving.spawn(async move {
                    let mut late = Latencies::new();
                    for number in 0..schedule.messages {
                        subscriber.next().await?;
                        schedule.note(&mut late, started, number, Instant::now());
                    }
                    Ok::<_, Failure>(late)
                });
            }
            let writing =
                thread::spawn(move || schedule.keep(started, |_| publisher.publish(&message.0)));
            let mut all = Latencies::new();
            while let Some(received) = receiving.join_next().await {
                all.add(&received??)?;
            }
            writing.join().unwrap_or_else(|_| Err("the publishing thread panicked".into()))?;
            Ok::<_, Failure>(all)
        })?;
        stage.found(&late)
    }
}

//! A device that speaks the sync protocol frame by frame: to look at frames, to count them, and to break the rules.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use farshore_api::envelope;
use farshore_sync_core::digest::Sum;
use farshore_sync_core::ids::{CollectionId, RowId};
use farshore_sync_core::mutation::{Mutation, Transaction};
use farshore_sync_core::wire::{
    ClientFrame, Fault, Frame as _, Grant, Hello, PROTOCOL_VERSION, Page, Push, PushOutcome,
    RowPayload, SUBPROTOCOL, ScopePosition, ServerFrame, Welcome, scopes_hash, sorted_grants,
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::deadline::{Deadline, SOON};
use crate::fleet::{SCHEMA_VERSION, transaction};

/// An open socket, and what went over it.
#[derive(Debug)]
pub struct WireClient {
    runtime: Runtime,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// What was counted.
    pub counts: Counts,
    /// The bytes of every message that came, as they came.
    pub heard: Vec<Vec<u8>>,
}

/// What went over a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages to the server.
    pub sent_messages: usize,
    /// Their bytes.
    pub sent_bytes: usize,
    /// Messages from the server.
    pub received_messages: usize,
    /// Their bytes.
    pub received_bytes: usize,
}

/// Why there is no socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The status of the HTTP response; 0 where there was none.
    pub status: u16,
    /// Its body, or what else went wrong.
    pub body: String,
}

/// What came, or did not.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    /// A frame.
    Frame(ServerFrame),
    /// The connection is over.
    Closed,
    /// Nothing before the deadline.
    Nothing,
}

/// Everything up to a checkpoint.
#[derive(Debug)]
pub struct CaughtUp {
    /// The welcome.
    pub welcome: Welcome,
    /// The pages, the last one with the checkpoint.
    pub pages: Vec<Page>,
    /// What became of the transactions in Hello.
    pub outcomes: Vec<PushOutcome>,
    /// The seq of the checkpoint.
    pub seq: u64,
    /// Its root.
    pub root: Sum,
}

impl CaughtUp {
    /// The last state of each row that came, by collection and id.
    #[must_use]
    pub fn rows(&self) -> BTreeMap<(CollectionId, RowId), RowPayload> {
        let entries = self.pages.iter().flat_map(|page| &page.rows);
        entries.map(|entry| ((entry.collection, entry.row), entry.payload.clone())).collect()
    }

    /// How many rows came, those that came twice counted twice.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.pages.iter().map(|page| page.rows.len()).sum()
    }

    /// The bytes of a live row.
    #[must_use]
    pub fn state(&self, collection: CollectionId, row: RowId) -> Option<Vec<u8>> {
        match self.rows().remove(&(collection, row)) {
            Some(RowPayload::State(bytes)) => Some(bytes.to_vec()),
            _ => None,
        }
    }
}

/// Hello of a device that was never there.
#[must_use]
pub fn first_hello() -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        schema_version: SCHEMA_VERSION,
        epoch: 0,
        scopes_hash: Sum::default(),
        cursor: 0,
        positions: Vec::new(),
        settled: 0,
        next_number: 1,
        transactions: Vec::new(),
    }
}

/// Hello of a device that has caught up before, with these rights.
#[must_use]
pub fn returning_hello(caught_up: &CaughtUp, grants: &[Grant]) -> Hello {
    Hello {
        epoch: caught_up.welcome.epoch,
        scopes_hash: scopes_hash(&sorted_grants(grants.iter().cloned())),
        cursor: caught_up.seq,
        ..first_hello()
    }
}

/// Transactions as Hello and Push carry them.
#[must_use]
pub fn encoded(transactions: &[Transaction]) -> Vec<minicbor::bytes::ByteVec> {
    transactions.iter().map(|transaction| transaction.encode().into()).collect()
}

impl WireClient {
    /// Opens a socket at the usual path.
    ///
    /// # Errors
    /// Where the server does not let the device in.
    pub fn connect(address: SocketAddr, token: &str) -> Result<Self, Refused> {
        Self::connect_at(address, farshore_api::SYNC_PATH, token)
    }

    /// Opens a socket.
    ///
    /// # Errors
    /// Where the server does not let the device in.
    ///
    /// # Panics
    /// Where the handshake has no end.
    pub fn connect_at(address: SocketAddr, path: &str, token: &str) -> Result<Self, Refused> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let uri = format!("ws://{address}{path}").parse().unwrap();
        let request = ClientRequestBuilder::new(uri)
            .with_sub_protocol(SUBPROTOCOL)
            .with_header("Authorization", format!("Bearer {token}"));
        let opened =
            runtime.block_on(async { timeout(SOON, connect_async(request)).await.unwrap() });
        match opened {
            Ok((socket, _)) => {
                Ok(Self { runtime, socket, counts: Counts::default(), heard: Vec::new() })
            }
            Err(tungstenite::Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                let body = String::from_utf8_lossy(body).into_owned();
                Err(Refused { status: response.status().as_u16(), body })
            }
            Err(error) => Err(Refused { status: 0, body: error.to_string() }),
        }
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &ClientFrame) {
        self.send_bytes(envelope::seal(&frame.to_bytes()));
    }

    /// Sends whatever bytes as a binary message.
    pub fn send_bytes(&mut self, bytes: Vec<u8>) {
        self.send_message(Message::Binary(bytes.into()));
    }

    /// Sends whatever message. A server that has hung up meanwhile is no failure here: what it said can be received.
    pub fn send_message(&mut self, message: Message) {
        self.counts.sent_messages += 1;
        self.counts.sent_bytes += message.len();
        let _ = self.runtime.block_on(async { timeout(SOON, self.socket.send(message)).await });
    }

    /// Waits for a frame.
    ///
    /// # Panics
    /// Where what comes is no frame.
    pub fn receive_within(&mut self, within: Duration) -> Received {
        let deadline = Deadline::after(within);
        loop {
            let next =
                self.runtime.block_on(async { timeout(deadline.left(), self.socket.next()).await });
            match next {
                Err(_) => return Received::Nothing,
                Ok(Some(Ok(Message::Binary(bytes)))) => {
                    self.counts.received_messages += 1;
                    self.counts.received_bytes += bytes.len();
                    self.heard.push(bytes.to_vec());
                    let frame = envelope::open(&bytes).unwrap();
                    return Received::Frame(ServerFrame::from_bytes(&frame).unwrap());
                }
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                Ok(Some(Ok(Message::Text(text)))) => panic!("the server sent text: {text}"),
                Ok(Some(Ok(Message::Close(_) | Message::Frame(_)) | Err(_)) | None) => {
                    return Received::Closed;
                }
            }
        }
    }

    /// Waits for a frame that has to come.
    ///
    /// # Panics
    /// Where none comes.
    pub fn receive(&mut self) -> ServerFrame {
        match self.receive_within(SOON) {
            Received::Frame(frame) => frame,
            other => panic!("a frame was expected, not {other:?}"),
        }
    }

    /// Waits for the first frame that `pick` takes; others are passed by.
    ///
    /// # Panics
    /// Where none comes.
    pub fn receive_until<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(ServerFrame) -> Option<T>,
    ) -> T {
        let deadline = Deadline::after(SOON);
        let mut seen = Vec::new();
        loop {
            match self.receive_within(deadline.left()) {
                Received::Frame(frame) => {
                    seen.push(frame.kind());
                    if let Some(picked) = pick(frame) {
                        return picked;
                    }
                }
                other => panic!("{what} was expected, not {other:?} after {seen:?}"),
            }
        }
    }

    /// Waits for the server to say why it closes.
    ///
    /// # Panics
    /// Where it closes without a word, or does not close.
    pub fn expect_fault(&mut self) -> Fault {
        let fault = self.receive_until("a fault", |frame| match frame {
            ServerFrame::Fault(fault) => Some(fault),
            _ => None,
        });
        assert_eq!(self.receive_within(SOON), Received::Closed, "a fault is the last word");
        fault
    }

    /// Says Hello and reads up to the checkpoint.
    ///
    /// # Panics
    /// Where the server answers otherwise.
    pub fn catch_up(&mut self, hello: Hello) -> CaughtUp {
        self.send(&ClientFrame::Hello(hello));
        self.read_to_checkpoint()
    }

    /// Reads a welcome and what follows up to the checkpoint; answers Resume with nothing held where that is due.
    ///
    /// # Panics
    /// Where the server says something else.
    pub fn read_to_checkpoint(&mut self) -> CaughtUp {
        let ServerFrame::Welcome(welcome) = self.receive() else { panic!("a welcome comes first") };
        let mut caught_up = CaughtUp {
            welcome,
            pages: Vec::new(),
            outcomes: Vec::new(),
            seq: 0,
            root: Sum::default(),
        };
        let checkpoint = self.receive_until("a checkpoint", |frame| match frame {
            ServerFrame::Page(page) => {
                let checkpoint = page.checkpoint;
                caught_up.pages.push(page);
                checkpoint
            }
            ServerFrame::Outcomes(outcomes) => {
                caught_up.outcomes.extend(outcomes);
                None
            }
            other => panic!("not in a catch-up: {other:?}"),
        });
        (caught_up.seq, caught_up.root) = (checkpoint.seq, checkpoint.root);
        caught_up
    }

    /// Where each scope stands, in answer to scopes that changed.
    pub fn resume(&mut self, positions: Vec<ScopePosition>) {
        self.send(&ClientFrame::Resume(positions));
    }

    /// Pushes one transaction.
    pub fn push(&mut self, number: u64, mutations: Vec<Mutation>) {
        self.push_all(&[transaction(number, mutations)]);
    }

    /// Pushes transactions in one frame.
    pub fn push_all(&mut self, transactions: &[Transaction]) {
        self.send(&ClientFrame::Push(Push { settled: 0, transactions: encoded(transactions) }));
    }

    /// Waits for what became of a transaction.
    ///
    /// # Panics
    /// Where nobody says.
    pub fn outcome_of(&mut self, number: u64) -> PushOutcome {
        self.receive_until("an outcome", |frame| match frame {
            ServerFrame::Outcomes(outcomes) => {
                outcomes.into_iter().find(|outcome| outcome.number == number)
            }
            _ => None,
        })
    }

    /// Pushes one transaction and waits until it is durable.
    ///
    /// # Panics
    /// Where it is refused.
    pub fn commit(&mut self, number: u64, mutations: Vec<Mutation>) -> PushOutcome {
        self.push(number, mutations);
        let outcome = self.outcome_of(number);
        assert_eq!(outcome.refused, None, "transaction {number}");
        outcome
    }

    /// Breaks the connection without a word.
    pub fn vanish(self) {
        drop(self.socket);
    }
}

//! A server and a store that do what a test tells them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use farshore_api::envelope;
use farshore_sync_core::digest::Sum;
use farshore_sync_core::replica::{Checked, Standing, StoreReply, StoreRequest};
use farshore_sync_core::wire::{ClientFrame, Frame as _, SUBPROTOCOL, ServerFrame};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use super::in_time;
use crate::sync::ReplicaStore;

/// A store of a replica: transactions by number, and every request that came.
#[derive(Default)]
pub(super) struct ScriptedStore {
    transactions: Mutex<BTreeMap<u64, Vec<u8>>>,
    requests: Mutex<Vec<StoreRequest>>,
    came: Notify,
    shut: Mutex<bool>,
    opened: Condvar,
    under_way: AtomicUsize,
}

impl ScriptedStore {
    pub(super) fn commit(&self, number: u64, bytes: &[u8]) {
        self.transactions.lock().unwrap().insert(number, bytes.to_vec());
    }

    /// Lets no call finish from now on, or all.
    pub(super) fn shut(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// How far the outbox was read.
    pub(super) fn outbox_position(&self) -> u64 {
        let requests = self.requests.lock().unwrap();
        let read = requests.iter().filter_map(|request| match request {
            StoreRequest::Outbox { after, .. } => Some(*after),
            _ => None,
        });
        read.max().unwrap_or_default()
    }

    /// Waits until such a request has come.
    pub(super) async fn saw(&self, wanted: impl Fn(&StoreRequest) -> bool) {
        while !self.requests.lock().unwrap().iter().any(&wanted) {
            self.came.notified().await;
        }
    }

    fn outbox(&self, after: u64, max_bytes: usize, max_transactions: usize) -> Vec<(u64, Vec<u8>)> {
        let mut bytes = 0;
        let transactions = self.transactions.lock().unwrap();
        let fitting = transactions.range(after + 1..).take(max_transactions).take_while(
            |(_, transaction)| {
                bytes += transaction.len();
                bytes <= max_bytes || bytes == transaction.len()
            },
        );
        fitting.map(|(number, transaction)| (*number, transaction.clone())).collect()
    }
}

impl ReplicaStore for ScriptedStore {
    fn handle(&self, request: StoreRequest) -> Result<StoreReply, String> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let reply = match &request {
            StoreRequest::Load => StoreReply::Loaded(Standing {
                schema_version: 1,
                epoch: 0,
                scopes_hash: Sum(0),
                cursor: 0,
                positions: Vec::new(),
                settled: 0,
                next_number: 1,
            }),
            StoreRequest::Outbox { after, max_bytes, max_transactions } => {
                StoreReply::Outbox(self.outbox(*after, *max_bytes, *max_transactions))
            }
            StoreRequest::Adopt(_) | StoreRequest::AdoptGrants(_) => {
                StoreReply::Adopted { positions: Vec::new() }
            }
            StoreRequest::Page(page) => StoreReply::PageStored {
                checkpoint: page
                    .checkpoint
                    .map(|checkpoint| Checked { seq: checkpoint.seq, in_step: true }),
                outbox_grew: false,
            },
            StoreRequest::Outcomes(outcomes) => {
                StoreReply::Settled { settled: outcomes.last().map_or(0, |outcome| outcome.number) }
            }
            StoreRequest::Totals => StoreReply::Totals(Vec::new()),
            StoreRequest::Sums(_) => StoreReply::Listings(Vec::new()),
            StoreRequest::Repair(_) => StoreReply::Repaired(0),
        };
        self.requests.lock().unwrap().push(request);
        self.came.notify_one();
        drop(self.opened.wait_while(self.shut.lock().unwrap(), |shut| *shut).unwrap());
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        Ok(reply)
    }
}

/// A server on a socket of its own.
pub(super) struct ScriptedServer {
    listener: TcpListener,
    connections: Arc<AtomicUsize>,
}

impl ScriptedServer {
    pub(super) async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, connections: Arc::default() }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }

    /// How many clients were answered.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    async fn connection(&mut self) -> TcpStream {
        let (stream, _) = in_time("a client", self.listener.accept()).await.unwrap();
        self.connections.fetch_add(1, Ordering::SeqCst);
        stream
    }

    /// Takes the next client's upgrade.
    pub(super) async fn accept(&mut self) -> Peer {
        let stream = self.connection().await;
        let mut authorization = String::new();
        #[expect(
            clippy::result_large_err,
            reason = "tungstenite decides what a handshake callback returns"
        )]
        let upgrade = |request: &Request,
                       mut response: Response|
         -> Result<Response, ErrorResponse> {
            let header = |name| request.headers().get(name).unwrap().to_str().unwrap();
            assert_eq!(request.uri().path(), "/v1/sync");
            assert_eq!(header("sec-websocket-protocol"), SUBPROTOCOL);
            authorization = header("authorization").to_owned();
            response.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
            Ok(response)
        };
        let socket = in_time("an upgrade", accept_hdr_async(stream, upgrade)).await.unwrap();
        Peer { socket, authorization }
    }

    /// Answers the next client's upgrade with something else.
    pub(super) async fn answer(&mut self, status: &str, body: &str) {
        let mut stream = self.connection().await;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// A client, as the server sees it.
pub(super) struct Peer {
    socket: WebSocketStream<TcpStream>,
    pub(super) authorization: String,
}

impl Peer {
    pub(super) async fn receive(&mut self) -> ClientFrame {
        let message = in_time("a frame", self.socket.next()).await.unwrap().unwrap();
        ClientFrame::from_bytes(&envelope::open(&message.into_data()).unwrap()).unwrap()
    }

    pub(super) async fn send(&mut self, frame: &ServerFrame) {
        self.send_raw(binary(&envelope::seal(&frame.to_bytes()))).await;
    }

    pub(super) async fn send_raw(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Waits until the client is gone.
    pub(super) async fn ended(&mut self) {
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

pub(super) fn text(text: &str) -> Message {
    Message::text(text)
}

pub(super) fn binary(bytes: &[u8]) -> Message {
    Message::binary(bytes.to_vec())
}

/// Bytes without a pattern, the same in every run.
pub(super) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

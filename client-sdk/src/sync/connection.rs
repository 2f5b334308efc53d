//! One connection to a server: opened with a deadline, then a task that reads and a task that writes.
//!
//! Reading and writing do not wait for each other. The reader stops only while its own queue is full, which is
//! how a slow store slows the server down; the driver always empties that queue, whatever the writer does.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use farshore_api::envelope;
use farshore_sync_core::replica::Cause;
use farshore_sync_core::wire::limits::MAX_MESSAGE_BYTES;
use farshore_sync_core::wire::{ClientFrame, Frame as _, SUBPROTOCOL, ServerFrame};
use futures_util::{Sink, Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{Connector, connect_async_tls_with_config};

use super::address::ServerAddress;
use super::outgoing::{Outgoing, SendError};
use super::refusal;
use super::token::Token;

/// How long opening a connection may take, name look-up, TLS and upgrade included, in milliseconds.
pub const CONNECT_TIMEOUT_MS: u64 = 10_000;
/// Frames that wait for the store. Each is as large as [`farshore_sync_core::wire::limits::MAX_FRAME_BYTES`] at most.
pub const MAX_INCOMING_FRAMES: usize = 8;
/// The socket's read buffer, in bytes. Messages grow beyond it as they come.
pub const READ_BUFFER_BYTES: usize = 16 << 10;
/// The socket's write buffer, in bytes, on top of the one message that is being written.
const WRITE_BUFFER_BYTES: usize = 16 << 10;

/// An open way for messages in both directions. Dropping it closes it.
pub trait Socket:
    Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Send + Unpin
{
}

impl<S> Socket for S where
    S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Send + Unpin
{
}

/// What a [`Transport`] answers with.
pub type SocketFuture = Pin<Box<dyn Future<Output = Result<Pin<Box<dyn Socket>>, Error>> + Send>>;

/// Another way to the server than a TCP connection of the SDK's own, such as a network stack that the app brings, or
/// a simulated one. The server's answer to a refused handshake is [`Error::Http`].
pub trait Transport: Send + Sync {
    /// Opens a connection for a device with this access token.
    fn open(&self, token: &str) -> SocketFuture;
}

/// How to reach a server.
#[derive(Clone)]
pub(crate) enum Route {
    /// A WebSocket.
    WebSocket {
        /// Where the server is.
        address: ServerAddress,
        /// Whom to trust; `None` for the roots of the web.
        trust: Option<Connector>,
    },
    /// What the app brought.
    Given(Arc<dyn Transport>),
}

/// What comes from a connection.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A frame.
    Frame(Box<ServerFrame>),
    /// The connection is over; nothing comes after this.
    Ended(Cause),
}

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    arrivals: mpsc::Receiver<Arrival>,
    outgoing: Outgoing,
    reader: AbortHandle,
    /// Whether room for the outbox comes first the next time: after each arrival.
    room_first: bool,
}

impl Route {
    /// Opens a connection.
    ///
    /// # Errors
    /// Why there is none, as the replica wants to know it.
    pub(super) async fn open(&self, token: &Token) -> Result<Connection, Cause> {
        let opening = async {
            match self {
                Self::WebSocket { address, trust } => {
                    let request = ClientRequestBuilder::new(address.socket().clone())
                        .with_sub_protocol(SUBPROTOCOL)
                        .with_header("Authorization", format!("Bearer {}", token.secret()));
                    let trust = trust.clone();
                    connect_async_tls_with_config(request, Some(limits()), true, trust)
                        .await
                        .map(|(socket, _)| Connection::start(socket))
                }
                Self::Given(transport) => {
                    transport.open(token.secret()).await.map(Connection::start)
                }
            }
        };
        match timeout(Duration::from_millis(CONNECT_TIMEOUT_MS), opening).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(refusal::cause_of(&error)),
            Err(_) => Err(Cause::Network(format!("no connection within {CONNECT_TIMEOUT_MS} ms"))),
        }
    }
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        // The writer flushes after each message, so this is never met; it holds if that ever changes.
        .max_write_buffer_size(2 * (MAX_MESSAGE_BYTES + WRITE_BUFFER_BYTES))
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

impl Connection {
    fn start(socket: impl Socket + 'static) -> Self {
        let (sink, stream) = socket.split();
        let (sender, arrivals) = mpsc::channel(MAX_INCOMING_FRAMES);
        let reader = tokio::spawn(read(stream, sender)).abort_handle();
        // A reader that is cut off ends the channel, which the driver sees as the end of the connection.
        let outgoing = Outgoing::start(sink, {
            let reader = reader.clone();
            move |_| reader.abort()
        });
        Self { arrivals, outgoing, reader, room_first: false }
    }

    /// What comes next; `None` where `room_wanted` and more of the outbox may be queued. Where both are there they
    /// take turns.
    pub(super) async fn next(&mut self, room_wanted: bool) -> Option<Arrival> {
        let next = if room_wanted && self.room_first && self.outgoing.has_room() {
            None
        } else {
            tokio::select! {
                biased;
                arrival = self.arrivals.recv() => Some(arrival.unwrap_or_else(broken)),
                () = self.outgoing.room(), if room_wanted => None,
            }
        };
        self.room_first = next.is_some();
        next
    }

    /// What is there already.
    pub(super) fn waiting_arrival(&mut self) -> Option<Arrival> {
        self.arrivals.try_recv().ok()
    }

    /// Queues a frame.
    pub(super) fn send(&self, frame: &ClientFrame) -> Result<(), SendError> {
        self.outgoing.send(frame)
    }
}

/// The reader is cut off where writing failed.
fn broken() -> Arrival {
    Arrival::Ended(Cause::Network("the connection broke while sending".into()))
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(
    mut stream: impl Stream<Item = Result<Message, Error>> + Unpin,
    arrivals: mpsc::Sender<Arrival>,
) {
    let ended = loop {
        match stream.next().await {
            Some(Ok(Message::Binary(message))) => match frame_in(&message) {
                Ok(frame) => {
                    if arrivals.send(Arrival::Frame(Box::new(frame))).await.is_err() {
                        return;
                    }
                }
                Err(cause) => break cause,
            },
            Some(Ok(Message::Text(_))) => break Cause::Protocol("a text message came".into()),
            Some(Ok(Message::Close(reason))) => {
                let reason = reason.map(|frame| format!(" ({} {})", frame.code, frame.reason));
                break Cause::Network(format!("the server closed{}", reason.unwrap_or_default()));
            }
            // The socket answers pings by itself.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Err(error)) => break cause_of_end(&error),
            None => break Cause::Network("the server is gone".into()),
        }
    };
    // Nobody listens where the connection was dropped first.
    let _ = arrivals.send(Arrival::Ended(ended)).await;
}

fn frame_in(message: &[u8]) -> Result<ServerFrame, Cause> {
    let bytes = envelope::open(message).map_err(|error| Cause::Protocol(error.to_string()))?;
    ServerFrame::from_bytes(&bytes).map_err(|error| Cause::Protocol(error.to_string()))
}

fn cause_of_end(error: &Error) -> Cause {
    use tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
    match error {
        Error::Protocol(ResetWithoutClosingHandshake) => {
            Cause::Network("the server is gone".into())
        }
        Error::Protocol(_) | Error::Capacity(_) | Error::Utf8(_) => {
            Cause::Protocol(error.to_string())
        }
        _ => Cause::Network(error.to_string()),
    }
}

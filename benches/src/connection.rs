//! One device's socket: opened, greeted with Hello, and read message by message. Nothing is stored here.

use farshore_api::envelope;
use farshore_api::grant::parse_grant;
use farshore_sync_core::schema::Schema;
use farshore_sync_core::wire::{
    ClientFrame, Frame as _, Hello, PROTOCOL_VERSION, Page, SUBPROTOCOL, ServerFrame, Welcome,
    scopes_hash,
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::device::PATIENCE;
use crate::outcome::{Outcome, ensure};
use crate::server::Server;

/// What a socket reads at a time.
pub const READ_BUFFER_BYTES: usize = 4 << 10;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

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
        self.send(&pong).await
    }

    /// Sends a message as it is.
    pub async fn send(&mut self, message: &[u8]) -> Outcome {
        Ok(self.socket.send(Message::binary(message.to_vec())).await?)
    }

    /// The number up to which everything is acknowledged, after the next answers.
    pub async fn next_answer(&mut self, mut answered: u64) -> Outcome<u64> {
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

//! The peer: nats-server, spoken to in its own text protocol, which is lines.
//!
//! It keeps nothing: a message is passed on from memory.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};

use crate::outcome::{Failure, Outcome};

/// What the table says of it.
pub const REFERENCE: &str =
    "nats-server 2.9 core, which keeps nothing: the same bytes from one to as many";
const SUBJECT: &str = "rows";
const HELLO: &str = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
/// Longest line that it sends: what it says of itself.
const READ_BYTES: usize = 4 << 10;

/// A running server; it is killed when this is dropped.
#[derive(Debug)]
pub struct Nats {
    address: SocketAddr,
    server: test_services::nats::Nats,
}

impl Nats {
    /// Starts one. An error says what is missing.
    pub fn start() -> Outcome<Self> {
        let server = test_services::nats::Nats::start().map_err(|error| error.to_string())?;
        Ok(Self { address: SocketAddr::from(([127, 0, 0, 1], server.port())), server })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Someone who receives.
pub struct Subscriber(tokio::io::BufReader<tokio::net::TcpStream>);

impl Subscriber {
    /// Someone who receives everything from now on.
    pub async fn at(address: SocketAddr) -> Outcome<Self> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut subscriber = Self(tokio::io::BufReader::with_capacity(READ_BYTES, stream));
        let hello = format!("{HELLO}SUB {SUBJECT} 1\r\nPING\r\n");
        subscriber.0.write_all(hello.as_bytes()).await?;
        // It says who it is first, and that it has read everything then.
        while subscriber.line().await?.trim_end() != "PONG" {}
        Ok(subscriber)
    }

    /// Waits for the next message and gives its length.
    pub async fn next(&mut self) -> Outcome<usize> {
        loop {
            let line = self.line().await?;
            if let Some(message) = line.strip_prefix("MSG ") {
                let length: usize =
                    message.split_whitespace().last().ok_or("a message has a length")?.parse()?;
                let mut payload = vec![0; length + b"\r\n".len()];
                self.0.read_exact(&mut payload).await?;
                return Ok(length);
            }
            if line.trim_end() == "PING" {
                self.0.write_all(b"PONG\r\n").await?;
            }
        }
    }

    async fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).await?;
        if read == 0 { Err(Failure::from("nats-server is gone")) } else { Ok(line) }
    }
}

/// Someone who sends.
pub struct Publisher(TcpStream);

impl Publisher {
    /// Someone who sends.
    pub fn at(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        reader.read_line(&mut String::new())?;
        let mut publisher = Self(stream);
        publisher.0.write_all(HELLO.as_bytes())?;
        Ok(publisher)
    }

    /// Sends one message to all who receive.
    pub fn publish(&mut self, payload: &[u8]) -> Outcome {
        let mut message = format!("PUB {SUBJECT} {}\r\n", payload.len()).into_bytes();
        message.extend_from_slice(payload);
        message.extend_from_slice(b"\r\n");
        Ok(self.0.write_all(&message)?)
    }
}

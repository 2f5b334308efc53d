//! The peer: the server of the crate `durable-streams`, which appends bytes to streams durably, over plain HTTP.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::task::JoinSet;

use crate::base64;
use crate::generator::{Job, Stage};
use crate::outcome::{Failure, Outcome, ensure};

/// What the table says of it.
pub const REFERENCE: &str =
    "durable-streams 0.1.5, --durability wal: HTTP, nothing merged, not encrypted";
const PROGRAM: &str = "durable-streams-server";
const MISSING: &str = "peer not measured: no durable-streams-server on the PATH; `cargo install durable-streams --version 0.1.5 --locked` installs it";
const START_WITHIN: Duration = Duration::from_secs(10);
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
const HEADER: &str = "content-length:";

/// A running server; it is killed when this is dropped.
#[derive(Debug)]
pub struct Streams {
    address: SocketAddr,
    process: Child,
}

impl Streams {
    /// Starts one on a new directory. An error says what is missing.
    pub fn start(home: &Path) -> Outcome<Self> {
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let mut command = Command::new(PROGRAM);
        command.args(["--host", "127.0.0.1", "--port", &address.port().to_string()]);
        command.args(["--durability", "wal", "--data-dir"]).arg(home);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut streams = Self { address, process: command.spawn().map_err(|_| MISSING)? };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = streams.process.try_wait()?;
            ensure(ended.is_none() && started.elapsed() < START_WITHIN, || {
                format!("{PROGRAM} did not start")
            })?;
            std::thread::park_timeout(BETWEEN_LOOKS);
        }
        Ok(streams)
    }

    /// Appends to so many new streams.
    pub fn appends(&self, run: usize, writers: usize, each: usize, record: &[u8]) -> Append {
        Append { address: self.address, run, writers, each, record: record.to_vec() }
    }
}

/// Appends to so many streams at once, each waiting for the answer before it sends the next; finds appends a second.
#[derive(Debug, Serialize, Deserialize)]
pub struct Append {
    address: SocketAddr,
    /// Which tells the names of the streams from those of other runs.
    run: usize,
    writers: usize,
    each: usize,
    #[serde(with = "base64")]
    record: Vec<u8>,
}

impl Job for Append {
    const NAME: &str = "append";
    type Found = f64;

    fn run(self, stage: Stage<f64>) -> Outcome {
        let Self { address, run, writers, each, record } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let took = runtime.block_on(async {
            let mut streams = Vec::with_capacity(writers);
            for writer in 0..writers {
                let path = format!("/run-{run}-{writer}");
                let stream = tokio::net::TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let mut stream = BufReader::new(stream);
                ask(&mut stream, &request("PUT", &path, &[])).await?;
                streams.push((stream, request("POST", &path, &record)));
            }
            stage.begin()?;
            let started = Instant::now();
            let mut writing = JoinSet::new();
            for (mut stream, append) in streams {
                writing.spawn(async move {
                    for _ in 0..each {
                        ask(&mut stream, &append).await?;
                    }
                    Ok::<_, Failure>(())
                });
            }
            while let Some(written) = writing.join_next().await {
                written??;
            }
            Ok::<_, Failure>(started.elapsed())
        })?;
        stage.found(&((writers * each) as f64 / took.as_secs_f64()))
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// Sends a request and reads the answer, which must be a success.
async fn ask(stream: &mut BufReader<tokio::net::TcpStream>, request: &[u8]) -> Outcome {
    stream.write_all(request).await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let status = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let mut body = 0;
    loop {
        line.clear();
        ensure(stream.read_line(&mut line).await? > 0, || "the peer closed".into())?;
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(length) = header.strip_prefix(HEADER) {
            body = length.trim().parse()?;
        }
    }
    let mut said = vec![0; body];
    stream.read_exact(&mut said).await?;
    ensure(status.starts_with('2'), || {
        format!("the peer answered {status}: {}", String::from_utf8_lossy(&said))
    })
}

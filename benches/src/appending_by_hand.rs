//! The limit: what a server can do that only puts what comes over sockets into an encrypted table, durably.
//!
//! It speaks to the same generator in the same form, on the same libraries. Nothing is decoded, looked up, merged, summed
//! or authorised, every append goes behind the last one, and all that have come share a transaction.
//!
//! It has two forms: each transaction is durable in the table's file, or in a journal first, as with us, and in the file
//! many share one that is not synced.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use farshore_api::envelope;
use farshore_sync_core::ids::RowId;
use farshore_sync_core::value::Value;
use farshore_sync_core::wire::{
    Frame as _, PushOutcome, Refill, SUBPROTOCOL, ServerFrame, Welcome,
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::connection::READ_BUFFER_BYTES;
use crate::generator::{Generator, Job, Stage};
use crate::outcome::{Failure, Outcome};
use crate::sqlite::{Encryption, Raw};

/// What the table says of it.
pub const REFERENCE: &str =
    "by hand: the same sockets, SQLCipher, one table, nothing looked up or merged";
/// What the table says of the form with a journal.
pub const JOURNALLED_REFERENCE: &str = "by hand: the same, and a journal in SQLCipher";
/// Transactions of the journal that share one in the table's file.
const HELD_TRANSACTIONS: u32 = 200;
/// Most appends that wait for the thread that writes; no more than there are writers ever do.
const MOST_WAITING: usize = 1_024;

/// Serves until the bench lets go.
#[derive(Debug, Serialize, Deserialize)]
pub struct AppendByHand {
    address: SocketAddr,
    home: PathBuf,
    /// How many bytes at the end of a message are the record.
    record_bytes: usize,
    durable_in: DurableIn,
}

/// Where appends become durable.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum DurableIn {
    /// In the file of the table.
    Table,
    /// In a journal, with all that came with them as one record.
    Journal,
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct ByHand {
    address: SocketAddr,
    process: Generator<AppendByHand>,
}

/// What a socket hands to the thread that writes.
struct Append {
    message: Vec<u8>,
    done: oneshot::Sender<()>,
}

impl ByHand {
    /// Starts one on a new directory.
    pub fn start(home: &Path, record_bytes: usize, durable_in: DurableIn) -> Outcome<Self> {
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let job = AppendByHand { address, home: home.to_owned(), record_bytes, durable_in };
        Ok(Self { address, process: Generator::start(&job)? })
    }

    /// Where it takes appends.
    pub fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.process.process()
    }
}

impl Job for AppendByHand {
    const NAME: &str = "append-by-hand";
    type Found = ();

    fn run(self, stage: Stage<()>) -> Outcome {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind(self.address))?;
        let create = |name: &str| {
            let like = vec![("record", Value::Bytes(Vec::new()))];
            Raw::create(&self.home.join(name), Encryption::On, &like)
        };
        let table = create("raw.db")?;
        let files = match self.durable_in {
            DurableIn::Table => Files::Table(table),
            DurableIn::Journal => {
                let journal = create("journal.db")?;
                Files::Journalled { journal, table, transactions: 0 }
            }
        };
        let (appends, waiting) = mpsc::sync_channel(MOST_WAITING);
        let record_bytes = self.record_bytes;
        let writing = thread::spawn(move || write(files, &waiting, record_bytes));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, appends.clone()));
            }
        });
        stage.begin()?;
        writing.join().map_err(|_| "the thread that writes panicked")?
    }
}

async fn serve(stream: TcpStream, appends: mpsc::SyncSender<Append>) -> Outcome {
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    #[expect(clippy::result_large_err, reason = "the library asks for this")]
    let accept = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let protocol = HeaderValue::from_static(SUBPROTOCOL);
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        Ok(response)
    };
    let mut socket = accept_hdr_async_with_config(stream, accept, Some(config)).await?;
    socket.next().await.ok_or("no Hello")??;
    let welcome = Welcome {
        server_time_ms: 0,
        epoch: 1,
        head: 0,
        high_water: 0,
        schema_version: 1,
        grants: None,
        digest_key: None,
        refill: Refill::No,
    };
    let say = |frame: ServerFrame| Message::binary(envelope::seal(&frame.to_bytes()));
    socket.send(say(ServerFrame::Welcome(welcome))).await?;
    for number in 1.. {
        let Some(message) = socket.next().await else { break };
        let (done, written) = oneshot::channel();
        let message = message?.into_data().to_vec();
        appends.send(Append { message, done }).map_err(|_| "nobody writes")?;
        written.await?;
        let outcome = PushOutcome { number, seq: number, refused: None, corrected: None };
        socket.send(say(ServerFrame::Outcomes(vec![outcome]))).await?;
    }
    Ok(())
}

/// What it writes to.
enum Files {
    Table(Raw),
    Journalled { journal: Raw, table: Raw, transactions: u32 },
}

impl Files {
    /// Writes rows in one durable transaction.
    fn insert(&mut self, ids: &[RowId], rows: &[Vec<(&'static str, Value)>]) -> Outcome {
        match self {
            Self::Table(table) => table.insert(ids, rows, rows.len()).map(drop),
            Self::Journalled { journal, table, transactions } => {
                table.insert_held(ids, rows)?;
                let values = rows.iter().flatten().filter_map(|(_, value)| match value {
                    Value::Bytes(bytes) => Some(bytes.as_slice()),
                    _ => None,
                });
                let record = vec![("record", Value::Bytes(values.collect::<Vec<_>>().concat()))];
                journal.insert(&ids[..1], &[record], 1)?;
                *transactions += 1;
                if transactions.is_multiple_of(HELD_TRANSACTIONS) {
                    table.end_held()?;
                }
                Ok(())
            }
        }
    }
}

/// Writes what comes, all that has come in one durable transaction.
fn write(mut files: Files, waiting: &mpsc::Receiver<Append>, record_bytes: usize) -> Outcome {
    let mut last = 0_u128;
    while let Ok(first) = waiting.recv() {
        let mut told = Vec::new();
        let (mut ids, mut rows) = (Vec::new(), Vec::new());
        for Append { message, done } in std::iter::once(first).chain(waiting.try_iter()) {
            last += 1;
            let record = message.len().checked_sub(record_bytes).ok_or("a short message")?;
            ids.push(RowId::from_bytes(last.to_be_bytes()));
            rows.push(vec![("record", Value::Bytes(message[record..].to_vec()))]);
            told.push(done);
        }
        files.insert(&ids, &rows)?;
        for done in told {
            // Whoever has gone needs no answer.
            let _ = done.send(());
        }
    }
    Err(Failure::from("nobody can come any more"))
}

//! Many devices that are connected and take in what comes: sockets without a store, kept by a generator.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farshore_sync_core::schema::Schema;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::base64;
use crate::connection::{self, Connection, Standing};
use crate::device::PATIENCE;
use crate::generator::{Generator, Job, Stage};
use crate::latencies::Latencies;
use crate::machine;
use crate::outcome::{Failure, Outcome, ensure};
use crate::server::Server;

/// Handshakes under way at a time: fewer than the queue of a listening socket is long.
const HANDSHAKES: usize = 256;
/// Files that a generator and a server have open besides the sockets.
const OTHER_FILES: u64 = 200;

/// How one device connects.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Member {
    pub url: String,
    pub token: String,
    #[serde(with = "base64")]
    pub hello: Vec<u8>,
}

/// Devices that can connect.
#[derive(Debug, Default)]
pub struct Crowd(Vec<Member>);

impl Crowd {
    /// Makes so many devices known that each have this grant in a tenant; all of them are where the tenant is now.
    pub fn invite(
        &mut self,
        server: &Server,
        schema: &Schema,
        (tenant, grant): (&str, &str),
        count: usize,
    ) -> Outcome {
        can_open((self.0.len() + count) as u64)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let url = connection::socket_url(server);
        let tokens = server.tokens(tenant, grant, count)?;
        let first = tokens.first().ok_or("no token")?;
        let standing = runtime.block_on(standing(&url, schema, grant, first))?;
        let hello = connection::hello(schema, grant, standing)?;
        let member = |token| Member { url: url.clone(), token, hello: hello.clone() };
        self.0.extend(tokens.into_iter().map(member));
        Ok(())
    }

    /// Prepares a generator that connects these of them and keeps them connected until it is dropped, without a word to
    /// the server, as when a network is gone.
    pub fn generator(&self, members: Range<usize>) -> Outcome<Generator<Connect>> {
        let members = self.0.get(members).ok_or("there are not as many devices")?;
        Generator::start(&Connect(members.to_vec()))
    }

    /// The same, connected at once.
    pub fn connected(&self, members: Range<usize>) -> Outcome<Generator<Connect>> {
        let mut generator = self.generator(members)?;
        generator.go()?;
        generator.found()?;
        Ok(generator)
    }
}

/// Connects all devices at once, then keeps them connected: they take in what comes, answer the server when it asks
/// whether they are there, and say nothing else.
#[derive(Debug, Serialize, Deserialize)]
pub struct Connect(pub Vec<Member>);

/// How connecting went.
#[derive(Debug, Serialize, Deserialize)]
pub struct Connected {
    /// From when all wanted to connect until all were in step.
    pub seconds: f64,
    /// The same for each of them.
    pub in_step: Latencies,
}

impl Job for Connect {
    const NAME: &str = "connect";
    type Found = Connected;

    fn run(self, stage: Stage<Connected>) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        stage.begin()?;
        runtime.block_on(async {
            let started = Instant::now();
            let mut in_step = Latencies::new();
            let mut connected = JoinSet::new();
            let mut joining = join(self.0, started);
            while let Some(joined) = joining.join_next().await {
                let (connection, after) = joined??;
                in_step.note(after);
                connected.spawn(connection.stay());
            }
            stage.found(&Connected { seconds: started.elapsed().as_secs_f64(), in_step })?;
            match connected.join_next().await {
                Some(Ok(Err(failure))) => Err(failure),
                _ => Err("a device that was to stay has gone".into()),
            }
        })
    }
}

/// Connects all at once, as far as handshakes have room; each tells how long after `started` it was in step.
pub fn join(members: Vec<Member>, started: Instant) -> JoinSet<Outcome<(Connection, Duration)>> {
    let room = Arc::new(Semaphore::new(HANDSHAKES));
    let mut joining = JoinSet::new();
    for Member { url, token, hello } in members {
        let room = Arc::clone(&room);
        joining.spawn(async move {
            let _turn = room.acquire_owned().await?;
            let connecting = async {
                let (mut connection, _) = Connection::open(&url, &token, &hello).await?;
                connection.until_in_step().await?;
                Ok::<_, Failure>(connection)
            };
            let connection = tokio::time::timeout(PATIENCE, connecting).await??;
            Ok((connection, started.elapsed()))
        });
    }
    joining
}

/// Says what is missing where a process may not open so many sockets.
fn can_open(sockets: u64) -> Outcome {
    let needed = sockets + OTHER_FILES;
    ensure(machine::most_open_files().is_none_or(|most| most >= needed), || {
        format!("needs {needed} open files: raise the limit with `ulimit -n`")
    })
}

/// Where a tenant stands: what a device that is up to date says of itself.
async fn standing(url: &str, schema: &Schema, grant: &str, token: &str) -> Outcome<Standing> {
    let hello = connection::hello(schema, grant, Standing::default())?;
    let (_, welcome) = Connection::open(url, token, &hello).await?;
    Ok(Standing { epoch: welcome.epoch, cursor: welcome.head })
}

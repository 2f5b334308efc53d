//! Many devices that are connected and do nothing: sockets without a store, kept by one thread of this process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use farshore_sync_core::schema::Schema;
use hdrhistogram::Histogram;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::device::PATIENCE;
use crate::load::{self, Connection, Standing};
use crate::machine;
use crate::outcome::{Failure, Outcome, ensure};
use crate::server::Server;

/// Handshakes under way at a time: fewer than the queue of a listening socket is long.
const HANDSHAKES: usize = 256;
/// Files that this process and a server have open besides the sockets.
const OTHER_FILES: u64 = 200;
/// Most that a histogram knows, in microseconds.
const MOST_US: u64 = 300_000_000;

/// How one of them connects.
#[derive(Debug, Clone)]
struct Member {
    url: Arc<str>,
    token: String,
    hello: Arc<[u8]>,
}

/// Devices that are connected, or will be.
#[derive(Debug)]
pub struct Crowd {
    runtime: Runtime,
    members: Vec<Member>,
    connected: JoinSet<Outcome>,
}

/// How connecting went.
#[derive(Debug)]
pub struct Connected {
    pub took: Duration,
    /// From when all wanted to connect until each was in step, in microseconds.
    pub in_step: Histogram<u64>,
}

impl Crowd {
    /// Makes so many devices known in each of these tenants; all of them are where the tenant is now.
    pub fn of_tenants(
        server: &Server,
        schema: &Schema,
        tenants: &[String],
        each: usize,
        grant: &str,
    ) -> Outcome<Self> {
        can_open((tenants.len() * each) as u64)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let url: Arc<str> = load::socket_url(server).into();
        let mut members = Vec::with_capacity(tenants.len() * each);
        for tenant in tenants {
            let tokens = server.tokens(tenant, grant, each)?;
            let first = tokens.first().ok_or("no token")?;
            let standing = runtime.block_on(standing(&url, schema, grant, first))?;
            let hello: Arc<[u8]> = load::hello(schema, grant, standing)?.into();
            members.extend(tokens.into_iter().map(|token| Member {
                url: Arc::clone(&url),
                token,
                hello: Arc::clone(&hello),
            }));
        }
        Ok(Self { runtime, members, connected: JoinSet::new() })
    }

    /// Connects further devices until so many are in step with the server, all at once.
    pub fn grow_to(&mut self, count: usize) -> Outcome<Connected> {
        let have = self.connected.len();
        let more = self.members.get(have..count).ok_or("there are not as many devices")?.to_vec();
        let room = Arc::new(Semaphore::new(HANDSHAKES));
        let started = Instant::now();
        let (runtime, connected) = (&self.runtime, &mut self.connected);
        let in_step = runtime.block_on(async {
            let mut joining: JoinSet<Outcome<(Connection, Duration)>> = JoinSet::new();
            for member in more {
                joining.spawn(join(member, Arc::clone(&room), started));
            }
            let mut in_step = Histogram::new_with_max(MOST_US, 3)?;
            while let Some(joined) = joining.join_next().await {
                let (connection, after) = joined??;
                in_step.saturating_record(u64::try_from(after.as_micros())?);
                connected.spawn(connection.stay());
            }
            Ok::<_, Failure>(in_step)
        })?;
        Ok(Connected { took: started.elapsed(), in_step })
    }

    /// Keeps all of them connected for a while: they answer the server and say nothing else.
    pub fn hold(&mut self, time: Duration) -> Outcome {
        let (runtime, connected) = (&self.runtime, &mut self.connected);
        let left = runtime.block_on(async {
            tokio::time::timeout(time, connected.join_next()).await.ok().flatten()
        });
        match left {
            None => Ok(()),
            Some(Ok(Err(failure))) => Err(failure),
            Some(_) => Err("a device that was to stay has gone".into()),
        }
    }

    /// Disconnects all of them without a word, as a network that is gone does.
    pub fn scatter(&mut self) {
        let (runtime, connected) = (&self.runtime, &mut self.connected);
        runtime.block_on(connected.shutdown());
    }
}

/// Says what is missing where this process may not open so many sockets.
fn can_open(sockets: u64) -> Outcome {
    let needed = sockets + OTHER_FILES;
    ensure(machine::most_open_files().is_none_or(|most| most >= needed), || {
        format!("needs {needed} open files: raise the limit with `ulimit -n`")
    })
}

/// Where a tenant stands: what a device that is up to date says of itself.
async fn standing(url: &str, schema: &Schema, grant: &str, token: &str) -> Outcome<Standing> {
    let hello = load::hello(schema, grant, Standing::default())?;
    let (_, welcome) = Connection::open(url, token, &hello).await?;
    Ok(Standing { epoch: welcome.epoch, cursor: welcome.head })
}

async fn join(
    member: Member,
    room: Arc<Semaphore>,
    started: Instant,
) -> Outcome<(Connection, Duration)> {
    let _turn = room.acquire_owned().await?;
    let connecting = async {
        let (mut connection, _) =
            Connection::open(&member.url, &member.token, &member.hello).await?;
        connection.until_in_step().await?;
        Ok::<_, Failure>(connection)
    };
    let connection = tokio::time::timeout(PATIENCE, connecting).await??;
    Ok((connection, started.elapsed()))
}

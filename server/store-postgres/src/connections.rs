//! The connections of this process, and which of them a transaction gets.
//!
//! A session of Postgres remembers the tables of the tenants that it has served, and learning those of one more costs it
//! a good part of a commit, and memory. So each tenant has a place among the connections: its transactions go there where
//! they can, and elsewhere rather than wait.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::config::PostgresConfig;
use crate::failure::Failure;

/// How long we wait before we ask again a server whose queue of new connections is full.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(20);
/// How long a connection may be idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a connection may live: what the server remembers for it grows with every tenant that it has seen, by some
/// dozen KiB each.
const MAX_LIFETIME: Duration = Duration::from_secs(600);
/// How often we look for connections that were idle for too long.
const BETWEEN_LOOKS: Duration = Duration::from_secs(30);
/// How long we wait for a server to take back what it was asked by somebody who has gone.
const ROLLBACK_WITHIN: Duration = Duration::from_secs(1);

/// All connections to one database.
#[derive(Debug)]
pub(crate) struct Connections {
    config: PostgresConfig,
    places: Mutex<Places>,
    closer: Once,
}

/// A transaction's turn on one connection. When it is dropped, the next one has it.
#[derive(Debug)]
pub(crate) struct Turn {
    connections: Arc<Connections>,
    place: usize,
    /// None where the place has no open connection, or it is not to be used any more.
    session: Option<Session>,
}

/// An open connection.
#[derive(Debug)]
struct Session {
    connection: PgConnection,
    opened: Instant,
    idle_since: Instant,
}

#[derive(Debug)]
struct Places {
    places: Vec<Place>,
    /// In the order of their coming.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
enum Place {
    Taken { open: bool },
    Free(Option<Session>),
}

#[derive(Debug)]
struct Waiting {
    home: usize,
    since: Instant,
    turn: oneshot::Sender<Turn>,
}

/// How a pool of connections is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolFigures {
    /// Connections that are open.
    pub open: u32,
    /// Those of them that nobody uses now.
    pub idle: u32,
    /// Most that may be open.
    pub limit: u32,
}

impl Connections {
    /// None is open yet.
    pub fn new(config: PostgresConfig) -> Arc<Self> {
        let places = (0..config.limits.max_connections.get()).map(|_| Place::Free(None));
        let places = Places { places: places.collect(), waiting: VecDeque::new() };
        Arc::new(Self { config, places: Mutex::new(places), closer: Once::new() })
    }

    pub fn config(&self) -> &PostgresConfig {
        &self.config
    }

    /// How they are used now.
    pub fn figures(&self) -> PoolFigures {
        let places = &self.lock().places;
        let count = |is: fn(&Place) -> bool| {
            u32::try_from(places.iter().filter(|place| is(place)).count()).unwrap_or(u32::MAX)
        };
        PoolFigures {
            open: count(|place| {
                matches!(place, Place::Free(Some(_)) | Place::Taken { open: true })
            }),
            idle: count(|place| matches!(place, Place::Free(Some(_)))),
            limit: self.config.limits.max_connections.get(),
        }
    }

    /// A turn on an open connection, for one whose home is the place of this number, counted around.
    pub async fn turn(self: &Arc<Self>, home: u64) -> Result<Turn, Failure> {
        let timeout_ms = self.config.limits.acquire_timeout_ms;
        let deadline = Instant::now() + Duration::from_millis(timeout_ms.into());
        let turn = async {
            let mut turn = self.place(home).await;
            if turn.session.is_none() {
                turn.session = Some(self.connect(deadline).await?);
                turn.connections.lock().places[turn.place] = Place::Taken { open: true };
            }
            Ok(turn)
        };
        let turn = timeout_at(deadline, turn).await;
        turn.unwrap_or(Err(Failure::NoConnection { timeout_ms }))
    }

    async fn place(self: &Arc<Self>, home: u64) -> Turn {
        let turn = {
            let mut places = self.lock();
            let count = places.places.len();
            let home = usize::try_from(home % count as u64).expect("a place has a number");
            let from_home = (home..count).chain(0..home);
            let free = from_home.into_iter().find(|&place| places.places[place].is_free());
            if let Some(place) = free {
                return self.take(&mut places, place);
            }
            let (turn, waited_for) = oneshot::channel();
            places.waiting.push_back(Waiting { home, since: Instant::now(), turn });
            waited_for
        };
        turn.await.expect("whoever waits is served as long as there are connections")
    }

    fn take(self: &Arc<Self>, places: &mut Places, place: usize) -> Turn {
        let session = match &mut places.places[place] {
            Place::Free(session) => session.take(),
            Place::Taken { .. } => unreachable!("the place is free"),
        };
        places.places[place] = Place::Taken { open: session.is_some() };
        Turn { connections: Arc::clone(self), place, session }
    }

    /// Gives a place back, and on to who waits.
    fn give_back(self: &Arc<Self>, place: usize, session: Option<Session>) {
        let mut places = self.lock();
        places.places[place] = Place::Free(session);
        // Half of what it may wait: until then, those are let by whose home it is.
        let patience = Duration::from_millis(self.config.limits.acquire_timeout_ms.into()) / 2;
        if let Some(next) = places.next(place, patience) {
            let turn = self.take(&mut places, place);
            drop(places);
            // Whoever gives up waiting meanwhile gives it back with that.
            drop(next.send(turn));
        }
    }

    /// Opens a connection. A server whose queue of new connections is full is asked again: on a Unix socket it says so
    /// at once instead of letting us wait.
    async fn connect(self: &Arc<Self>, deadline: Instant) -> Result<Session, Failure> {
        self.close_idle_ones();
        loop {
            match PgConnection::connect_with(&self.config.url.options()).await {
                Ok(connection) => {
                    let now = Instant::now();
                    return Ok(Session { connection, opened: now, idle_since: now });
                }
                Err(sqlx::Error::Io(error))
                    if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline =>
                {
                    sleep(FULL_QUEUE_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// From the first connection on, as long as somebody has these.
    fn close_idle_ones(self: &Arc<Self>) {
        self.closer.call_once(|| {
            let connections = Arc::downgrade(self);
            tokio::spawn(async move {
                loop {
                    sleep(BETWEEN_LOOKS).await;
                    let Some(connections) = Weak::upgrade(&connections) else { return };
                    connections.lock().close_idle_ones();
                }
            });
        });
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// Who has the turn on a place: who has run out of patience, else the first one that is at home there, else the
    /// first one.
    fn next(&mut self, place: usize, patience: Duration) -> Option<oneshot::Sender<Turn>> {
        self.waiting.retain(|waiting| !waiting.turn.is_closed());
        let first = self.waiting.front()?;
        let at_home = self.waiting.iter().position(|waiting| waiting.home == place);
        let next = if first.since.elapsed() > patience { 0 } else { at_home.unwrap_or(0) };
        self.waiting.remove(next).map(|waiting| waiting.turn)
    }

    fn close_idle_ones(&mut self) {
        for place in &mut self.places {
            if let Place::Free(session) = place
                && session
                    .as_ref()
                    .is_some_and(|session| session.idle_since.elapsed() > IDLE_TIMEOUT)
            {
                *session = None;
            }
        }
    }
}

impl Turn {
    /// The open connection.
    pub fn connection(&mut self) -> &mut PgConnection {
        let session = self.session.as_mut().expect("a turn has a connection until it is closed");
        &mut session.connection
    }

    /// Gives the place back without the connection, which is closed.
    pub fn close(mut self) {
        self.session = None;
    }

    /// Gives the connection back once it has taken back what is running on it, and the place without it where that does
    /// not work soon.
    ///
    /// Whoever asked has gone, as the sessions of devices do that hang up, by the thousand. Closing their connections
    /// would throw away all that these have learnt.
    pub fn roll_back(mut self) {
        // Out of the turn until then: where this does not run to its end, what is given back is the place alone.
        let (Ok(runtime), Some(mut session)) = (Handle::try_current(), self.session.take()) else {
            return;
        };
        runtime.spawn(async move {
            let rolled_back = sqlx::raw_sql("ROLLBACK").execute(&mut session.connection);
            if let Ok(Ok(_)) = timeout(ROLLBACK_WITHIN, rolled_back).await {
                self.session = Some(session);
            }
            drop(self);
        });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let session = self.session.take().filter(|session| session.opened.elapsed() < MAX_LIFETIME);
        let session = session.map(|session| Session { idle_since: Instant::now(), ..session });
        self.connections.give_back(self.place, session);
    }
}

impl Place {
    const fn is_free(&self) -> bool {
        matches!(self, Self::Free(_))
    }
}

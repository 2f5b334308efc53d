//! The task that drives one replica: it brings events to the machine of sync-core and carries out its effects.
//!
//! Invariants:
//! - Effects are carried out in the order in which they came, and a store request is answered before the next
//!   event. The one exception is reading the outbox: it waits until the outgoing queue has room, and everything
//!   else goes on meanwhile, so uploads never hold downloads up. The machine knows that a read is under way.
//! - The store is never called on the runtime's own threads unless the app wants it so ([`StoreCalls`]), and never by
//!   two tasks at once.
//! - Nothing of an earlier connection reaches the machine: a connection is dropped before its end is told.
//! - The driver stops between two store requests only, so a write in flight is always finished.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use farshore_sync_core::replica::{
    Cause, Effect, Event, Phase, Replica, RetryPolicy, StoreReply, StoreRequest,
};
use farshore_sync_core::wire::{ClientFrame, FaultCode, ServerFrame};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};

use super::board::{Board, Shown};
use super::connection::{Arrival, Connection, Route};
use super::owner::{Owner, OwnerError};
use super::token::{Token, TokenError, TokenSource};
use super::tokens::{FetchError, Fetched, Tokens};
use super::wish::{Wanted, Wishes};
use crate::environment::Environment;

/// The store, as the driver needs it. Calls block.
pub(crate) trait ReplicaStore: Send + Sync {
    /// Does what the machine asks, in one database transaction.
    ///
    /// # Errors
    /// What went wrong, for people.
    fn handle(&self, request: StoreRequest) -> Result<StoreReply, String>;
}

/// Where the driver's calls of the store run. They block for as long as the disk takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreCalls {
    /// On threads of the runtime that may block.
    #[default]
    BlockingThreads,
    /// On the thread of the driver's own task: for a runtime of one thread that serves nothing else, and where a run
    /// has to repeat to the letter.
    InPlace,
}

/// What a driver works with.
pub(crate) struct DriverParts {
    pub(crate) store: Arc<dyn ReplicaStore>,
    pub(crate) store_calls: StoreCalls,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) route: Route,
    pub(crate) tokens: TokenSource,
    pub(crate) owner: Owner,
    pub(crate) board: Arc<Board>,
    /// Notified when there may be more in the outbox.
    pub(crate) commits: Arc<Notify>,
    pub(crate) retry: RetryPolicy,
}

/// The way to a driver. Dropping it ends the driver.
#[derive(Debug)]
pub(crate) struct DriverHandle {
    wishes: Arc<Wishes>,
}

impl DriverHandle {
    /// Starts a driver, which is stopped at first.
    pub(crate) fn start(runtime: &Handle, parts: DriverParts) -> Self {
        let wishes = Arc::new(Wishes::default());
        runtime.spawn(Driver::new(parts, Arc::clone(&wishes)).run());
        Self { wishes }
    }

    /// Wants a connection, at once even while the driver waits for its next attempt. The answer names the wish.
    pub(crate) fn connect(&self) -> u64 {
        self.wishes.make(|wish| wish.wanted = Wanted::Connected)
    }

    /// Blocks until the driver has heeded a wish.
    pub(crate) fn wait_until_heeded(&self, wish: u64) {
        self.wishes.wait_until_granted(wish);
    }

    /// Wants no connection, and blocks until there is none.
    pub(crate) fn disconnect(&self) {
        let serial = self.wishes.make(|wish| wish.wanted = Wanted::Stopped);
        self.wishes.wait_until_granted(serial);
    }

    /// Ends the driver, and blocks until it has let go of the store.
    pub(crate) fn end(&self) {
        let serial = self.wishes.make(|wish| wish.wanted = Wanted::Ended);
        self.wishes.wait_until_granted(serial);
    }

    /// Brings a fresh token.
    pub(crate) fn bring(&self, token: Token) {
        self.wishes.make(|wish| wish.token = Some(token));
    }
}

impl Drop for DriverHandle {
    fn drop(&mut self) {
        self.wishes.make(|wish| wish.wanted = Wanted::Ended);
    }
}

/// The connection, as the driver knows it.
enum Link {
    Down,
    Opening(JoinHandle<Attempt>),
    Up(Connection),
}

/// What became of an attempt to connect.
enum Attempt {
    NoToken(FetchError),
    Refused(Token, Cause),
    Opened(Token, Connection),
}

/// What woke the driver.
enum Woken {
    Wish,
    Attempted(Attempt),
    Arrived(Arrival),
    Committed,
    RoomForOutbox,
    Timer,
    TokenDue,
    Token(Result<Token, TokenError>),
}

struct Driver {
    machine: Replica,
    parts: DriverParts,
    wishes: Arc<Wishes>,
    tokens: Tokens,
    link: Link,
    effects: VecDeque<Effect>,
    /// The outbox request that waits for room.
    outbox: Option<StoreRequest>,
    timer_at_ms: Option<u64>,
    wanted: Wanted,
    awaiting_token: bool,
    shown_mismatch: Option<OwnerError>,
}

impl Drop for Driver {
    /// Whatever ends the task, nobody waits for it for ever.
    fn drop(&mut self) {
        self.wishes.grant(u64::MAX);
    }
}

impl Driver {
    fn new(parts: DriverParts, wishes: Arc<Wishes>) -> Self {
        Self {
            machine: Replica::new(parts.retry),
            tokens: Tokens::new(parts.tokens.clone(), parts.owner.clone()),
            parts,
            wishes,
            link: Link::Down,
            effects: VecDeque::new(),
            outbox: None,
            timer_at_ms: None,
            wanted: Wanted::Stopped,
            awaiting_token: false,
            shown_mismatch: None,
        }
    }

    async fn run(mut self) {
        while self.wanted != Wanted::Ended {
            let woken = self.wait().await;
            self.handle(woken).await;
        }
    }

    async fn wait(&mut self) -> Woken {
        let now_ms = self.now_ms();
        let outbox = self.outbox.is_some();
        let (attempt, connection) = match &mut self.link {
            Link::Down => (None, None),
            Link::Opening(attempt) => (Some(attempt), None),
            Link::Up(connection) => (None, Some(connection)),
        };
        // In a fixed order, so that a run can be repeated. The connection comes last: it alone may always have
        // something, and what comes before it is rare or, as with commits, taken up in one go.
        tokio::select! {
            biased;
            () = self.wishes.next() => Woken::Wish,
            attempt = attempted(attempt) => Woken::Attempted(attempt),
            () = until(self.timer_at_ms, now_ms) => Woken::Timer,
            () = until(self.tokens.due_at_ms(), now_ms) => Woken::TokenDue,
            answer = self.tokens.answer() => Woken::Token(answer),
            () = self.parts.commits.notified() => Woken::Committed,
            woken = from_connection(connection, outbox) => woken,
        }
    }

    async fn handle(&mut self, woken: Woken) {
        match woken {
            Woken::Wish => self.heed_wish().await,
            Woken::Attempted(attempt) => self.attempted(attempt),
            Woken::Arrived(arrival) => self.arrived(arrival),
            Woken::Committed => self.feed(Event::LocalCommit),
            Woken::RoomForOutbox => self.read_outbox().await,
            Woken::Timer => self.timer(),
            Woken::TokenDue => self.tokens.ask(),
            Woken::Token(answer) => self.token_answered(answer),
        }
        self.carry_out().await;
        self.watch_tokens();
    }

    async fn heed_wish(&mut self) {
        let (wanted, token, serial) = self.wishes.take();
        if let Some(token) = token {
            match self.tokens.brought(token.clone()) {
                Ok(()) => self.use_token(token),
                // Whoever brings tokens has checked them; this is the second wall.
                Err(error) => tracing::warn!(%error, "a token for somebody else was brought"),
            }
        }
        self.wanted = wanted;
        match wanted {
            Wanted::Connected => self.feed(Event::Start),
            Wanted::Stopped | Wanted::Ended => self.feed(Event::Stop),
        }
        self.carry_out().await;
        if wanted != Wanted::Ended {
            self.wishes.grant(serial);
        }
    }

    fn attempted(&mut self, attempt: Attempt) {
        self.link = Link::Down;
        match attempt {
            Attempt::NoToken(error) => {
                let cause = self.tokens.not_fetched(error);
                self.feed(Event::Closed(cause));
            }
            Attempt::Refused(token, cause) => {
                self.tokens.presented(token);
                self.feed(Event::Closed(cause));
            }
            Attempt::Opened(token, connection) => {
                self.tokens.presented(token);
                self.link = Link::Up(connection);
                self.feed(Event::Opened);
            }
        }
    }

    fn arrived(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Frame(frame) => {
                if let ServerFrame::Welcome(welcome) = &*frame {
                    self.tokens.welcomed(welcome.server_time_ms, self.now_ms());
                }
                self.feed(Event::Frame(frame));
            }
            Arrival::Ended(cause) => self.lose(cause),
        }
    }

    /// The connection ended by itself.
    fn lose(&mut self, cause: Cause) {
        self.link = Link::Down;
        self.outbox = None;
        self.feed(Event::Closed(cause));
    }

    fn timer(&mut self) {
        self.timer_at_ms = None;
        // Silence is judged by what came, not by how long the store took for it.
        let waiting = match &mut self.link {
            Link::Up(connection) => connection.waiting_arrival(),
            Link::Down | Link::Opening(_) => None,
        };
        if let Some(arrival) = waiting {
            self.timer_at_ms = Some(self.now_ms());
            self.arrived(arrival);
        } else {
            self.feed(Event::Timer);
        }
    }

    fn token_answered(&mut self, answer: Result<Token, TokenError>) {
        let (now_ms, entropy) = (self.now_ms(), self.entropy());
        if let Some(token) = self.tokens.answered(answer, now_ms, entropy) {
            self.use_token(token);
        }
    }

    fn use_token(&mut self, token: Token) {
        self.feed(Event::Token(token.secret().to_owned()));
        if self.effects.iter().any(|effect| matches!(effect, Effect::Send(ClientFrame::Token(_)))) {
            self.tokens.sent(token, self.now_ms());
        }
        self.awaiting_token = false;
    }

    /// Tells the tokens where the machine stands: whether it waits for one, or has no connection at all.
    fn watch_tokens(&mut self) {
        let status = self.machine.status();
        let refused =
            status.phase == Phase::Waiting && status.cause.as_ref().is_some_and(is_refusal);
        match (status.phase, refused) {
            (_, true) if !self.awaiting_token => {
                self.awaiting_token = true;
                let (now_ms, entropy) = (self.now_ms(), self.entropy());
                self.tokens.refused(now_ms, entropy);
            }
            (Phase::Stopped, _) | (Phase::Waiting, false) => self.tokens.disconnected(),
            (Phase::Connecting | Phase::CatchingUp | Phase::Live, _) => self.awaiting_token = false,
            (Phase::Waiting, true) => {}
        }
        if self.tokens.mismatch() != self.shown_mismatch.as_ref() {
            self.show();
        }
    }

    fn feed(&mut self, event: Event) {
        let (now_ms, entropy) = (self.now_ms(), self.entropy());
        self.effects.extend(self.machine.handle(event, now_ms, entropy));
    }

    async fn carry_out(&mut self) {
        while let Some(effect) = self.effects.pop_front() {
            match effect {
                Effect::Open => self.open(),
                Effect::Close => {
                    self.link = Link::Down;
                    self.outbox = None;
                }
                Effect::Send(frame) => {
                    if let Link::Up(connection) = &self.link
                        && let Err(error) = connection.send(&frame)
                    {
                        self.lose(Cause::Network(error.to_string()));
                    }
                }
                Effect::Store(request @ StoreRequest::Outbox { .. }) => self.outbox = Some(request),
                Effect::Store(request) => self.ask_store(request).await,
                Effect::SetTimer(at_ms) => self.timer_at_ms = Some(at_ms),
                Effect::Status(_) => self.show(),
            }
        }
    }

    fn open(&mut self) {
        let fetching = self.tokens.for_connection(self.parts.environment.wall_ms());
        self.link = Link::Opening(tokio::spawn(attempt(fetching, self.parts.route.clone())));
    }

    async fn read_outbox(&mut self) {
        if let Some(request) = self.outbox.take() {
            self.ask_store(request).await;
        }
    }

    async fn ask_store(&mut self, request: StoreRequest) {
        let store = Arc::clone(&self.parts.store);
        let handled = match self.parts.store_calls {
            StoreCalls::BlockingThreads => spawn_blocking(move || store.handle(request))
                .await
                .unwrap_or_else(|panicked| Err(panicked.to_string())),
            StoreCalls::InPlace => store.handle(request),
        };
        let event = match handled {
            Ok(reply) => Event::Stored(reply),
            Err(what) => Event::StoreFailed(what),
        };
        self.feed(event);
        self.parts.board.touch();
    }

    fn show(&mut self) {
        let replica = self.machine.status().clone();
        let (wall_ms, now_ms) = (self.parts.environment.wall_ms(), self.now_ms());
        let retry_at_ms = replica.retry_at_ms.map(|at| wall_ms + at.saturating_sub(now_ms));
        let mismatch = self.tokens.mismatch().cloned();
        self.shown_mismatch.clone_from(&mismatch);
        tracing::debug!(phase = ?replica.phase, cause = ?replica.cause, "sync");
        self.parts.board.set(Shown { replica, retry_at_ms, mismatch });
    }

    /// Without randomness the jitter is gone, which costs the server a peak and nobody any data.
    fn entropy(&self) -> u64 {
        self.parts.environment.entropy().unwrap_or_default()
    }

    fn now_ms(&self) -> u64 {
        self.parts.environment.steady_ms()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Self::Opening(attempt) = self {
            attempt.abort();
        }
    }
}

async fn attempt(fetching: impl Future<Output = Fetched>, route: Route) -> Attempt {
    let token = match fetching.await {
        Ok(token) => token,
        Err(error) => return Attempt::NoToken(error),
    };
    match route.open(&token).await {
        Ok(connection) => Attempt::Opened(token, connection),
        Err(cause) => Attempt::Refused(token, cause),
    }
}

async fn attempted(attempt: Option<&mut JoinHandle<Attempt>>) -> Attempt {
    match attempt {
        Some(attempt) => attempt.await.unwrap_or_else(|error| {
            Attempt::NoToken(FetchError::Source(TokenError::Source(error.to_string())))
        }),
        None => std::future::pending().await,
    }
}

/// A frame, or room for more of the outbox: whichever comes first, and either in turn while both are there.
async fn from_connection(connection: Option<&mut Connection>, wants_room: bool) -> Woken {
    match connection {
        Some(connection) => {
            connection.next(wants_room).await.map_or(Woken::RoomForOutbox, Woken::Arrived)
        }
        None => std::future::pending().await,
    }
}

async fn until(at_ms: Option<u64>, now_ms: u64) {
    match at_ms {
        Some(at_ms) => {
            tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(now_ms))).await;
        }
        None => std::future::pending().await,
    }
}

fn is_refusal(cause: &Cause) -> bool {
    match cause {
        Cause::Unauthenticated(_) => true,
        Cause::Fault(fault) => fault.code == FaultCode::Unauthenticated,
        Cause::Network(_)
        | Cause::Silent
        | Cause::Protocol(_)
        | Cause::Forked
        | Cause::Store(_) => false,
    }
}

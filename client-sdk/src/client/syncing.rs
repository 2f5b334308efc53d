//! Connecting, waiting for the sync to get somewhere, and syncing once within a time.

use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use farshore_sync_core::replica::{StoreReply, StoreRequest};

use super::{Client, Inner, owner_file};
use crate::client::OwnerFileError;
use crate::environment::{Deadline, Environment};
use crate::status::{Status, StatusCause};
use crate::store::{Store, StoreError, Subscription};
use crate::sync::{
    ClaimsError, DriverHandle, DriverParts, Owner, OwnerError, ReplicaStore, Token, TokenSource,
};

/// [`Client::sync_once`] begins to stop this long before its deadline, in milliseconds, or after nine tenths of it.
pub const STOP_MARGIN_MS: u64 = 250;

/// Why there will be no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The client was built without a server.
    #[error("the client was built without a server to connect to")]
    NoServer,
    /// The client has no access token and no way to get one.
    #[error("the client has no access token: give a token source, or bring a token")]
    NoToken,
    /// The client is suspended or closed.
    #[error("the client is suspended")]
    Suspended,
    /// The token that was brought is none.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
    /// The token that was brought is for somebody else.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The tenant could not be written down.
    #[error(transparent)]
    OwnerFile(#[from] OwnerFileError),
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The server has accepted the connection.
    Connected,
    /// A checkpoint was reached in this connection: what the server had is here.
    CaughtUp,
    /// Everything written here is on the server and has come back.
    Synced,
}

impl Goal {
    /// Whether a status fulfils it.
    #[must_use]
    pub const fn is_met_by(self, status: &Status) -> bool {
        match self {
            Self::Connected => status.is_connected(),
            Self::CaughtUp => status.caught_up,
            Self::Synced => status.synced,
        }
    }
}

/// The time was over before the goal was reached.
#[derive(Debug, thiserror::Error)]
#[error("not within {timeout_ms} ms{}", because(.status))]
pub struct WaitError {
    /// How long was waited.
    pub timeout_ms: u128,
    /// Where the replica stood in the end.
    pub status: Box<Status>,
}

fn because(status: &Status) -> String {
    status.cause.as_ref().map(|cause| format!(": {}", cause.message)).unwrap_or_default()
}

/// What [`Client::sync_once`] achieved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncReport {
    /// Everything written here is on the server and came back, and everything the server had is here.
    pub complete: bool,
    /// Why not, where there is a reason besides the time.
    pub cause: Option<StatusCause>,
    /// The seq up to which everything is stored now.
    pub cursor: u64,
    /// How far that is beyond where it was.
    pub advanced: u64,
    /// Transactions that the server has not answered yet.
    pub unanswered: u64,
    /// Transactions that have not come back yet, the unanswered ones included.
    pub unconfirmed: u64,
    /// Transactions in the quarantine.
    pub quarantined: u64,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

/// The connection as the app wants it.
pub(super) struct Link {
    pub(super) owner: Owner,
    pub(super) wanted: bool,
    tokens: Option<TokenSource>,
    driver: Option<DriverHandle>,
    /// Keeps the ear on the store open.
    listening: Option<Subscription>,
}

impl Link {
    pub(super) const fn new(owner: Owner, tokens: Option<TokenSource>) -> Self {
        Self { owner, wanted: false, tokens, driver: None, listening: None }
    }

    /// Ends the driver, after the store call that is under way, and stops listening to the store.
    pub(super) fn cut(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.end();
        }
        self.listening = None;
    }
}

impl Client {
    /// Wants a connection from now on. It comes, breaks and comes back by itself; the status tells. While the client
    /// waits for its next attempt, this makes it at once.
    ///
    /// # Errors
    /// Where there is nothing to connect with; see [`ConnectError`].
    pub fn connect(&self) -> Result<(), ConnectError> {
        self.start().map(|_| ())
    }

    /// Wants no connection, and returns when there is none.
    pub fn disconnect(&self) {
        let mut link = self.link();
        link.wanted = false;
        if let Some(driver) = &link.driver {
            driver.disconnect();
        }
    }

    /// Brings an access token: it is used from now on, also by a connection that is open.
    ///
    /// # Errors
    /// [`ConnectError::Claims`], [`ConnectError::Owner`], [`ConnectError::OwnerFile`].
    pub fn set_token(&self, token: &str) -> Result<(), ConnectError> {
        let token = Token::read(token)?;
        let mut link = self.link();
        link.owner.check(token.claims())?;
        if link.owner.tenant.is_none() {
            let owner = Owner { tenant: Some(token.claims().tenant.clone()), ..link.owner.clone() };
            let options = &self.inner.settings.options;
            owner_file::write(&options.dir, &options.name, &owner)?;
            link.owner = owner;
        }
        if !link.tokens.as_ref().is_some_and(TokenSource::may_change) {
            link.tokens = Some(TokenSource::of(token.clone()));
        }
        if let Some(driver) = &link.driver {
            driver.bring(token);
        }
        Ok(())
    }

    /// Blocks until the goal is reached. It does not connect.
    ///
    /// # Errors
    /// [`WaitError`] when the time is over, with the status and so with the reason.
    pub fn wait_for(&self, goal: Goal, timeout: Duration) -> Result<Status, WaitError> {
        let status = self.wait_until(timeout, |status| goal.is_met_by(status));
        if goal.is_met_by(&status) {
            return Ok(status);
        }
        Err(WaitError { timeout_ms: timeout.as_millis(), status: Box::new(status) })
    }

    /// Connects, sends everything, takes everything in, and stops within the time; for background tasks, whose time
    /// is short. What was stored by then stays, and the next call goes on there. A client that wanted a connection
    /// before keeps it.
    ///
    /// # Errors
    /// Where there is nothing to connect with; see [`ConnectError`].
    pub fn sync_once(&self, timeout: Duration) -> Result<SyncReport, ConnectError> {
        let environment = &*self.inner.environment;
        let started_ms = environment.steady_ms();
        let before = self.status();
        let was_wanted = self.link().wanted;
        let wish = self.start()?;
        if let Some(driver) = &self.link().driver {
            driver.wait_until_heeded(wish);
        }
        let may_help_itself = self.link().tokens.as_ref().is_some_and(TokenSource::may_change);
        let is_over = |status: &Status| {
            let refusal =
                status.cause.as_ref().is_some_and(|cause| cause.code == "unauthenticated");
            let hopeless = status.cause.as_ref().is_some_and(|cause| cause.is_final);
            (status.synced && status.caught_up) || (hopeless && !(refusal && may_help_itself))
        };
        let margin = Duration::from_millis(STOP_MARGIN_MS).min(timeout / 10);
        let after = self.wait_until(timeout.saturating_sub(margin), is_over);
        if !was_wanted {
            self.disconnect();
        }
        Ok(SyncReport {
            complete: after.synced && after.caught_up,
            cause: after.cause,
            cursor: after.cursor,
            advanced: after.cursor.saturating_sub(before.cursor),
            unanswered: after.unanswered,
            unconfirmed: after.unconfirmed,
            quarantined: after.quarantined,
            elapsed_ms: environment.steady_ms().saturating_sub(started_ms),
        })
    }

    /// The status that fulfils a condition, or the last one when the time is over.
    fn wait_until(&self, timeout: Duration, is_met: impl Fn(&Status) -> bool) -> Status {
        let environment = &*self.inner.environment;
        let deadline = Deadline::after(timeout, environment);
        let source = self.status_source();
        loop {
            let left = deadline.left(environment);
            let (version, status) = source.now();
            if is_met(&status) || left.is_zero() {
                return status;
            }
            self.inner.board.wait_beyond(version, left);
        }
    }

    /// Starts the driver where there is none, and wants a connection; the answer names the wish.
    pub(super) fn start(&self) -> Result<u64, ConnectError> {
        let mut link = self.link();
        let store = self.inner.store.get().map_err(|_| ConnectError::Suspended)?;
        let tokens = link.tokens.clone();
        let owner = link.owner.clone();
        let driver = match &mut link.driver {
            Some(driver) => driver,
            none => none.insert(self.inner.start_driver(store, tokens, owner)?),
        };
        let wish = driver.connect();
        link.wanted = true;
        Ok(wish)
    }

    /// Hears of every commit, from the driver too: live queries run again, the driver looks into the outbox, and
    /// whoever watches the status looks anew.
    pub(super) fn listen(&self) {
        let Ok(store) = self.inner.store.get() else { return };
        let (live, board) = (Arc::downgrade(&self.inner.live), Arc::downgrade(&self.inner.board));
        let commits = Arc::clone(&self.inner.commits);
        let subscription = store.changes().subscribe(move |changes| {
            if changes.outbox {
                commits.notify_one();
            }
            if let Some(live) = Weak::upgrade(&live) {
                live.touched(&changes.collections);
            }
            if let Some(board) = Weak::upgrade(&board) {
                board.touch();
            }
        });
        self.link().listening = Some(subscription);
    }

    pub(super) fn link(&self) -> MutexGuard<'_, Link> {
        self.inner.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn start_driver(
        &self,
        store: Store,
        tokens: Option<TokenSource>,
        owner: Owner,
    ) -> Result<DriverHandle, ConnectError> {
        let route = self.settings.route.clone().ok_or(ConnectError::NoServer)?;
        let environment = Arc::clone(&self.environment);
        let parts = DriverParts {
            store: Arc::new(DrivenStore { store, environment: Arc::clone(&environment) }),
            store_calls: self.settings.store_calls,
            environment,
            route,
            tokens: tokens.ok_or(ConnectError::NoToken)?,
            owner,
            board: Arc::clone(&self.board),
            commits: Arc::clone(&self.commits),
            retry: self.settings.retry,
        };
        Ok(DriverHandle::start(self.runtime.handle(), parts))
    }
}

/// The store in the hands of the driver.
struct DrivenStore {
    store: Store,
    environment: Arc<dyn Environment>,
}

impl ReplicaStore for DrivenStore {
    fn handle(&self, request: StoreRequest) -> Result<StoreReply, String> {
        let handled = self.store.handle(request, self.environment.wall_ms());
        handled.map_err(|error: StoreError| error.to_string())
    }
}

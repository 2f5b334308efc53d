//! The device's half of the protocol as a state machine: events in, effects out.
//!
//! It holds no data, does no I/O and knows no clock: the driver brings the time with each event, carries out the
//! effects in order, and answers each [`StoreRequest`] with [`Event::Stored`] before it brings the next event.
//! The SDK and the simulator drive the same machine.
//!
//! Invariants:
//! - Sending never waits for receiving and receiving never waits for sending.
//! - A connection that is silent for [`limits::SILENCE_LIMIT_MS`] is given up, whatever the socket says.
//! - Every closed connection has a cause and, unless only the app can help, a timer for the next attempt.

use crate::digest::Sum;
use crate::ids::{CollectionId, Scope};
use crate::wire::limits::{self, MAX_TRANSACTIONS_IN_FLIGHT, PUSH_TARGET_BYTES};
use crate::wire::{
    BucketListing, ClientFrame, Fault, Grant, Hello, PROTOCOL_VERSION, Page, Push, PushOutcome,
    Repair, ScopePosition, ServerFrame, SumsEntry, Welcome,
};

mod machine;
mod retry;
#[cfg(test)]
mod tests;

pub use machine::Replica;
pub use retry::{RetryPolicy, is_final};

/// What happens to a replica.
#[derive(Debug)]
pub enum Event {
    /// The app wants to be connected.
    Start,
    /// The app wants to be disconnected.
    Stop,
    /// The connection that [`Effect::Open`] asked for is there and authenticated.
    Opened,
    /// The connection could not be made, or ended.
    Closed(Cause),
    /// A frame came.
    Frame(Box<ServerFrame>),
    /// A local transaction was committed.
    LocalCommit,
    /// The app brought a fresh access token.
    Token(String),
    /// The time of the last [`Effect::SetTimer`] has come.
    Timer,
    /// The store did what the last [`Effect::Store`] asked.
    Stored(StoreReply),
    /// The store failed.
    StoreFailed(String),
}

/// What a replica wants done.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Connect and authenticate; answer with [`Event::Opened`] or [`Event::Closed`].
    Open,
    /// Close the connection; no [`Event::Closed`] is expected.
    Close,
    /// Send a frame.
    Send(ClientFrame),
    /// Ask the store.
    Store(StoreRequest),
    /// Bring [`Event::Timer`] at this time, in milliseconds; replaces the timer set before.
    SetTimer(u64),
    /// Show the app where the replica stands.
    Status(Status),
}

/// What a replica asks of the device's store. Each is one transaction of the database.
#[derive(Debug, PartialEq)]
pub enum StoreRequest {
    /// Where the device stands: [`StoreReply::Loaded`].
    Load,
    /// Unanswered transactions after a number, up to a size but at least one: [`StoreReply::Outbox`].
    Outbox {
        /// After which number.
        after: u64,
        /// Up to how many bytes.
        max_bytes: usize,
        /// Up to how many transactions.
        max_transactions: usize,
    },
    /// Adopt epoch, scopes, digest key and refill: [`StoreReply::Adopted`].
    Adopt(Welcome),
    /// Adopt changed scopes, and purge what is no longer granted: [`StoreReply::Adopted`].
    AdoptGrants(Vec<Grant>),
    /// Apply or stage a page: [`StoreReply::PageStored`].
    Page(Page),
    /// Record answers: [`StoreReply::Settled`].
    Outcomes(Vec<PushOutcome>),
    /// The totals of everything held: [`StoreReply::Totals`].
    Totals,
    /// The rows of the buckets that differ from these: [`StoreReply::Listings`].
    Sums(Vec<SumsEntry>),
    /// Take over the server's rows: [`StoreReply::Repaired`].
    Repair(Repair),
}

/// What the store answers.
#[derive(Debug, PartialEq)]
pub enum StoreReply {
    /// Where the device stands.
    Loaded(Standing),
    /// Transactions, oldest first, each with its number.
    Outbox(Vec<(u64, Vec<u8>)>),
    /// The welcome or the scopes were adopted.
    Adopted {
        /// Where each granted scope stands now.
        positions: Vec<ScopePosition>,
    },
    /// The server has seen numbers that this replica never gave out: another replica uses its identity.
    Forked,
    /// The page was stored.
    PageStored {
        /// Present where the page completed a checkpoint.
        checkpoint: Option<Checked>,
        /// Whether applying it brought new transactions into the outbox (offers after a new epoch).
        outbox_grew: bool,
    },
    /// Answers were recorded.
    Settled {
        /// The transaction up to which all answers are recorded.
        settled: u64,
    },
    /// The totals of everything held.
    Totals(Vec<(Scope, CollectionId, Sum)>),
    /// The rows of the buckets that differ.
    Listings(Vec<BucketListing>),
    /// How many rows were repaired.
    Repaired(usize),
}

/// A checkpoint that the store reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Its seq.
    pub seq: u64,
    /// Whether the device's own root is the server's.
    pub in_step: bool,
}

/// Where a device stands, as its store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The version of the app's schema.
    pub schema_version: u32,
    /// The server's epoch; 0 before the first contact.
    pub epoch: u64,
    /// [`crate::wire::scopes_hash`] of the scopes held.
    pub scopes_hash: Sum,
    /// The seq up to which all scopes are in step.
    pub cursor: u64,
    /// Where each scope stands while a fill or a staged catch-up is under way; empty otherwise.
    pub positions: Vec<ScopePosition>,
    /// The transaction up to which all answers are recorded.
    pub settled: u64,
    /// The number of the next transaction.
    pub next_number: u64,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The server could not be reached, or the connection broke.
    #[error("network: {0}")]
    Network(String),
    /// The server refused the access token.
    #[error("the server refused the access token: {0}")]
    Unauthenticated(String),
    /// The server said why it closed.
    #[error("{0}")]
    Fault(Fault),
    /// Nothing came for too long.
    #[error("the server was silent for too long")]
    Silent,
    /// The server sent what the protocol does not allow.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// Another replica uses this replica's identity.
    #[error("another replica uses this device id; set this one up anew with an id of its own")]
    Forked,
    /// The device's own store failed.
    #[error("local store: {0}")]
    Store(String),
}

/// Where a replica stands, for the app.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// What it is doing.
    pub phase: Phase,
    /// Why the last connection ended, until the next checkpoint.
    pub cause: Option<Cause>,
    /// When the next attempt starts, in milliseconds; `None` while connected, stopped, or when only the app can help.
    pub retry_at_ms: Option<u64>,
    /// The seq of the last checkpoint in this connection; `None` before one was reached.
    pub checkpoint: Option<u64>,
    /// Whether the last checkpoint's root was the server's.
    pub in_step: bool,
    /// How many comparisons found a difference in this connection.
    pub repairs: u32,
}

/// What a replica is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// The app does not want a connection.
    #[default]
    Stopped,
    /// It waits for the time of the next attempt, or for the app to help.
    Waiting,
    /// It connects.
    Connecting,
    /// It is connected and has not reached a checkpoint yet.
    CatchingUp,
    /// It is connected and has reached a checkpoint.
    Live,
}

//! Where a replica stands, for the app: what it is doing, why it is not connected, and what has not synced yet.
//!
//! `synced` and `caught_up` come from acknowledged positions, never from an open socket.

use std::sync::Arc;
use std::time::Duration;

pub use farshore_sync_core::replica::Phase;
use farshore_sync_core::replica::{Cause, is_final};
use tokio::runtime::Handle;

use crate::client::StoreSlot;
use crate::environment::{Deadline, Environment};
use crate::store::Counts;
use crate::sync::{Board, OwnerError, Shown};

/// Where a replica stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// What it is doing.
    pub phase: Phase,
    /// Why the last connection ended, until the next checkpoint.
    pub cause: Option<StatusCause>,
    /// When the next attempt starts, in milliseconds since 1970; `None` while connected, stopped, or when only the
    /// app can help.
    pub retry_at_ms: Option<u64>,
    /// The seq of the last checkpoint in this connection.
    pub checkpoint: Option<u64>,
    /// The seq up to which everything is stored; 0 before the first checkpoint ever.
    pub cursor: u64,
    /// Whether the first fill is over. Before it, data shows up page by page.
    pub filled: bool,
    /// Whether the device held the same rows as the server at the last checkpoint.
    pub in_step: bool,
    /// How many comparisons found a difference in this connection.
    pub repairs: u32,
    /// Transactions that the server has not answered.
    pub unanswered: u64,
    /// Transactions that have not come back in a checkpoint, the unanswered ones included.
    pub unconfirmed: u64,
    /// Transactions that the server refused and that wait for the app.
    pub quarantined: u64,
    /// How many stamps the server corrected because the device's clock ran ahead.
    pub corrections: u64,
    /// By how many milliseconds the last correction moved a stamp; negative means back.
    pub last_correction_ms: i64,
    /// Everything written here is on the server and came back: nothing is unanswered and nothing unconfirmed.
    pub synced: bool,
    /// Everything that the server had at the last checkpoint of this connection is here.
    pub caught_up: bool,
    /// The store is closed by [`crate::Client::suspend`]; the numbers are those of before.
    pub suspended: bool,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusCause {
    /// For programs: `network`, `silent`, `unauthenticated`, `wrong_device`, `wrong_tenant`, `local_store`, or a
    /// code of [`farshore_sync_core::wire::FaultCode`].
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// Whether only the app or an operator can help.
    pub is_final: bool,
}

impl StatusCause {
    fn new(cause: &Cause, mismatch: Option<&OwnerError>) -> Self {
        let code = match (cause, mismatch) {
            (Cause::Unauthenticated(_), Some(mismatch)) => mismatch.code(),
            (Cause::Unauthenticated(_), None) => "unauthenticated",
            (Cause::Network(_), _) => "network",
            (Cause::Fault(fault), _) => fault.code.as_str(),
            (Cause::Silent, _) => "silent",
            (Cause::Protocol(_), _) => "protocol_violation",
            (Cause::Forked, _) => "replica_forked",
            (Cause::Store(_), _) => "local_store",
        };
        Self { code, message: cause.to_string(), is_final: is_final(cause) }
    }
}

impl Status {
    /// Puts what the driver shows and what the store counts together.
    pub(crate) fn new(shown: &Shown, counts: Counts) -> Self {
        let replica = &shown.replica;
        Self {
            phase: replica.phase,
            cause: replica
                .cause
                .as_ref()
                .map(|cause| StatusCause::new(cause, shown.mismatch.as_ref())),
            retry_at_ms: shown.retry_at_ms,
            checkpoint: replica.checkpoint,
            cursor: counts.cursor,
            filled: counts.filled,
            in_step: replica.in_step,
            repairs: replica.repairs,
            unanswered: counts.unanswered,
            unconfirmed: counts.unconfirmed,
            quarantined: counts.quarantined,
            corrections: counts.corrections,
            last_correction_ms: counts.last_correction_ms,
            synced: counts.unconfirmed == 0,
            caught_up: replica.phase == Phase::Live && replica.checkpoint.is_some(),
            suspended: false,
        }
    }

    /// The word for a phase, as reports write it.
    #[must_use]
    pub const fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::Stopped => "stopped",
            Phase::Waiting => "waiting",
            Phase::Connecting => "connecting",
            Phase::CatchingUp => "catching_up",
            Phase::Live => "live",
        }
    }

    /// Whether there is a connection that the server has accepted.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::CatchingUp | Phase::Live)
    }
}

/// Tells of each change of the status. Whoever looks late sees the newest one only.
pub struct StatusWatch {
    source: StatusSource,
    seen: Option<u64>,
    last: Option<Status>,
}

/// Where statuses come from.
#[derive(Clone)]
pub(crate) struct StatusSource {
    pub(crate) board: Arc<Board>,
    pub(crate) store: Arc<StoreSlot>,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) runtime: Handle,
}

impl StatusSource {
    /// The status now, and the board's version that it is not older than. Reads the store, so it may block.
    pub(crate) fn now(&self) -> (u64, Status) {
        let (version, shown) = self.board.look();
        let (counts, suspended) = self.store.counts();
        (version, Status { suspended, ..Status::new(&shown, counts) })
    }
}

impl StatusWatch {
    pub(crate) const fn new(source: StatusSource) -> Self {
        Self { source, seen: None, last: None }
    }

    /// The next status: at first the present one, then each that differs from the one before. `None` when the
    /// client is gone.
    pub async fn next(&mut self) -> Option<Status> {
        loop {
            if let Some(seen) = self.seen {
                self.source.board.changed_beyond(seen).await;
            }
            if self.source.board.is_closed() {
                return None;
            }
            let source = self.source.clone();
            let read = self.source.runtime.spawn_blocking(move || source.now()).await;
            // The runtime ends with the client.
            let (version, status) = read.ok()?;
            if let Some(status) = self.take_if_new(version, status) {
                return Some(status);
            }
        }
    }

    /// As [`StatusWatch::next`], blocking; `None` when nothing changed for so long.
    pub fn next_within(&mut self, timeout: Duration) -> Option<Status> {
        let deadline = Deadline::after(timeout, &*self.source.environment);
        loop {
            let left = deadline.left(&*self.source.environment);
            if let Some(seen) = self.seen {
                self.source.board.wait_beyond(seen, left);
            }
            let (version, status) = self.source.now();
            let found = self.take_if_new(version, status);
            if found.is_some() || left.is_zero() || self.source.board.is_closed() {
                return found;
            }
        }
    }

    fn take_if_new(&mut self, version: u64, status: Status) -> Option<Status> {
        self.seen = Some(version);
        let is_new = self.last.as_ref() != Some(&status);
        is_new.then(|| {
            self.last = Some(status.clone());
            status
        })
    }
}

#[cfg(test)]
mod tests {
    use farshore_sync_core::replica;
    use farshore_sync_core::wire::{Fault, FaultCode};

    use super::*;

    fn shown(phase: Phase, checkpoint: Option<u64>, cause: Option<Cause>) -> Shown {
        Shown {
            replica: replica::Status { phase, checkpoint, cause, ..replica::Status::default() },
            ..Shown::default()
        }
    }

    #[test]
    fn synced_means_that_everything_written_has_come_back() {
        let live = shown(Phase::Live, Some(9), None);
        let counts =
            |unanswered, unconfirmed| Counts { unanswered, unconfirmed, ..Counts::default() };
        assert!(Status::new(&live, counts(0, 0)).synced);
        assert!(
            !Status::new(&live, counts(0, 1)).synced,
            "answered, but not yet seen in a checkpoint"
        );
        assert!(!Status::new(&live, counts(1, 1)).synced);
        let offline = shown(Phase::Waiting, None, Some(Cause::Silent));
        assert!(Status::new(&offline, counts(0, 0)).synced, "a broken socket takes nothing back");
    }

    #[test]
    fn an_open_socket_is_not_yet_caught_up() {
        assert!(!Status::new(&shown(Phase::CatchingUp, None, None), Counts::default()).caught_up);
        assert!(Status::new(&shown(Phase::Live, Some(9), None), Counts::default()).caught_up);
    }

    #[test]
    fn every_cause_has_a_code_and_says_whether_waiting_helps() {
        let fault = |code| Cause::Fault(Fault { code, message: "m".into(), retry_after_ms: None });
        for (cause, code, is_final) in [
            (Cause::Network("n".into()), "network", false),
            (Cause::Silent, "silent", false),
            (Cause::Unauthenticated("u".into()), "unauthenticated", true),
            (fault(FaultCode::Overloaded), "overloaded", false),
            (fault(FaultCode::SchemaTooNew), "schema_too_new", true),
            (Cause::Protocol("p".into()), "protocol_violation", false),
            (Cause::Forked, "replica_forked", true),
            (Cause::Store("s".into()), "local_store", false),
        ] {
            let status = Status::new(&shown(Phase::Waiting, None, Some(cause)), Counts::default());
            let found = status.cause.unwrap();
            assert_eq!((found.code, found.is_final), (code, is_final));
        }
    }

    #[test]
    fn a_token_for_another_device_is_told_from_one_that_the_server_refused() {
        let device = |n| farshore_sync_core::ids::DeviceId::from_bytes([n; 16]);
        let mut shown = shown(Phase::Waiting, None, Some(Cause::Unauthenticated("x".into())));
        shown.mismatch = Some(OwnerError::Device { stored: device(1), given: device(2) });
        assert_eq!(Status::new(&shown, Counts::default()).cause.unwrap().code, "wrong_device");
    }
}

//! Waiting for a condition, with a deadline instead of a sleep.

use std::thread;
use std::time::{Duration, Instant};

/// Time for what takes one or two round trips on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);
/// Time for what has to be retried, restarted or filled anew.
pub const LATER: Duration = Duration::from_secs(60);

/// How long the processor is left to others between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// A moment after which waiting is over.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    started: Instant,
    within: Duration,
}

impl Deadline {
    /// So long from now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the deadlines of tests are the steady clock's")]
    pub fn after(within: Duration) -> Self {
        Self { started: Instant::now(), within }
    }

    /// How long it is until then; zero from then on.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.within.saturating_sub(self.started.elapsed())
    }

    /// How long it has been waited for.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Looks until there is something to see.
///
/// # Panics
/// At the deadline, with what was waited for.
pub fn eventually<T>(what: &str, within: Duration, look: impl FnMut() -> Option<T>) -> T {
    within_deadline(within, look).unwrap_or_else(|| panic!("not within {within:?}: {what}"))
}

/// Looks until there is something to see; `None` at the deadline.
pub fn within_deadline<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Deadline::after(within);
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if deadline.left().is_zero() {
            return None;
        }
        thread::park_timeout(BETWEEN_LOOKS.min(deadline.left()));
    }
}

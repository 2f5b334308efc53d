//! Where time and randomness enter the SDK. Nothing else in it reads a clock or a random source, the store's row
//! ids aside, so a test can put its own in their place.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time and randomness, as the SDK needs them.
pub trait Environment: Send + Sync {
    /// The wall clock, in milliseconds since 1970. It may jump; it stamps writes and nothing else depends on it.
    fn wall_ms(&self) -> u64;

    /// A clock that never goes back, in milliseconds since any moment: deadlines and retries are measured by it.
    fn steady_ms(&self) -> u64;

    /// Randomness, for the jitter of retries and for a device id that nobody gave; `None` where the system has none.
    fn entropy(&self) -> Option<u64>;
}

/// A moment of the steady clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at_ms: u64,
}

impl Deadline {
    /// So long from now.
    pub(crate) fn after(timeout: Duration, environment: &dyn Environment) -> Self {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        Self { at_ms: environment.steady_ms().saturating_add(timeout_ms) }
    }

    /// How long it is until then; zero from then on.
    pub(crate) fn left(self, environment: &dyn Environment) -> Duration {
        Duration::from_millis(self.at_ms.saturating_sub(environment.steady_ms()))
    }
}

/// The operating system's clocks and random source.
#[derive(Debug, Clone, Copy)]
pub struct OsEnvironment {
    started: Instant,
}

impl Default for OsEnvironment {
    #[expect(clippy::disallowed_methods, reason = "this is the home of the steady clock")]
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Environment for OsEnvironment {
    #[expect(clippy::disallowed_methods, reason = "this is the home of the wall clock")]
    fn wall_ms(&self) -> u64 {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
    }

    fn steady_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn entropy(&self) -> Option<u64> {
        getrandom::u64().ok()
    }
}

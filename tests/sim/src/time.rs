//! Time of a run: one timeline that moves when nobody has anything to do, and wall clocks that are wrong about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use farshore_client::environment::Environment;
use farshore_server::clock::Clock;
use test_chance::Chance;
use tokio::time::Instant;

/// What every wall clock shows when a run begins, in milliseconds since 1970.
pub const START_MS: u64 = 1_800_000_000_000;

/// The timeline of a run: the paused clock of its runtime.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    started: Instant,
}

impl Timeline {
    /// Begins now.
    #[must_use]
    pub fn begin() -> Self {
        Self { started: Instant::now() }
    }

    /// Milliseconds since the run began.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A wall clock that can be set. Clones show the same time.
#[derive(Debug, Clone)]
pub struct WallClock {
    timeline: Timeline,
    offset_ms: Arc<AtomicI64>,
}

impl WallClock {
    /// A clock that is right.
    #[must_use]
    pub fn new(timeline: Timeline) -> Self {
        Self { timeline, offset_ms: Arc::default() }
    }

    /// Sets it forward, or back where negative.
    pub fn jump(&self, by_ms: i64) {
        self.offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Sets it so far from the right time.
    pub fn set_off(&self, by_ms: i64) {
        self.offset_ms.store(by_ms, Ordering::Relaxed);
    }
}

impl Clock for WallClock {
    fn now_ms(&self) -> u64 {
        let right = START_MS + self.timeline.elapsed_ms();
        right.saturating_add_signed(self.offset_ms.load(Ordering::Relaxed))
    }
}

/// The clocks and the randomness of one device.
#[derive(Debug)]
pub struct DeviceEnvironment {
    timeline: Timeline,
    /// Its wall clock.
    pub wall: WallClock,
    chance: Mutex<Chance>,
}

impl DeviceEnvironment {
    /// An environment whose wall clock is right.
    #[must_use]
    pub fn new(timeline: Timeline, chance: Chance) -> Self {
        Self { timeline, wall: WallClock::new(timeline), chance: Mutex::new(chance) }
    }
}

impl Environment for DeviceEnvironment {
    fn wall_ms(&self) -> u64 {
        self.wall.now_ms()
    }

    fn steady_ms(&self) -> u64 {
        self.timeline.elapsed_ms()
    }

    fn entropy(&self) -> Option<u64> {
        Some(self.chance.lock().unwrap_or_else(PoisonError::into_inner).next())
    }
}

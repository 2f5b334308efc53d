//! Chance that can be repeated: every random test prints its seed first and last, and takes one from outside.

use std::time::{SystemTime, UNIX_EPOCH};

use test_chance::Chance;

/// The variable that repeats a run.
pub const SEED_VARIABLE: &str = "FARSHORE_TEST_SEED";

/// A seed that is shown when the test begins and when it ends, however it ends.
#[derive(Debug)]
pub struct Seed {
    test: &'static str,
    seed: u64,
}

impl Seed {
    /// The seed of the environment, or a fresh one.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the home of the tests' seeds")]
    #[expect(clippy::print_stderr, reason = "whoever reads a failed run needs its seed")]
    pub fn of(test: &'static str) -> Self {
        let given = std::env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |since| since.subsec_nanos().into())
        });
        eprintln!("{test}: {SEED_VARIABLE}={seed}");
        Self { test, seed }
    }

    /// The chance that this seed makes.
    #[must_use]
    pub const fn chance(&self) -> Chance {
        Chance::of(self.seed)
    }
}

impl Drop for Seed {
    #[expect(clippy::print_stderr, reason = "whoever reads a failed run needs its seed")]
    fn drop(&mut self) {
        eprintln!("{}: done with {SEED_VARIABLE}={}", self.test, self.seed);
    }
}

//! Everything that leaves the server besides frames: log lines, metrics, bodies of refusals. Each is searched for the
//! words of tenants that have no business there.
//!
//! A log line may hold words of the tenants that it names, a refusal those of the tenant that it is for, and metrics
//! none.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farshore_server::config::{Config, LogConfig};
use farshore_server::telemetry::log;
use tracing::subscriber::DefaultGuard;

use crate::network::{Leak, holds};
use crate::platform::TENANTS;

/// One run in so many has its log lines written and searched: writing them takes as long as much of a run.
pub const LOGGED_ONE_IN: u64 = 8;
/// How much is logged: what an operator may ask for.
const LOG_LEVEL: &str = "debug";

/// What was searched and found. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Sinks(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    canaries: Vec<Vec<u8>>,
    lines: u64,
    leaks: Vec<Leak>,
    /// A line that was not finished yet.
    line: Vec<u8>,
}

impl Sinks {
    /// The word that only one tenant's data holds. Tenants are numbered in the order of these calls.
    pub fn watch_for(&self, canary: &str) {
        self.lock().canaries.push(canary.as_bytes().to_vec());
    }

    /// Writes the log of this thread here until the guard is dropped.
    #[must_use]
    pub fn log_here(&self, config: &Config) -> DefaultGuard {
        let sinks = self.clone();
        let config = LogConfig { level: LOG_LEVEL.to_owned(), ..config.log.clone() };
        tracing::subscriber::set_default(log::subscriber(&config, move || sinks.clone()))
    }

    /// Searches something for the words of every tenant but these.
    pub fn search(&self, place: &str, bytes: &[u8], allowed: &[usize]) {
        let mut state = self.lock();
        let foreign = (0..state.canaries.len()).filter(|tenant| !allowed.contains(tenant));
        let found = foreign.filter(|tenant| holds(bytes, &state.canaries[*tenant]));
        let leaks: Vec<_> =
            found.map(|of_tenant| Leak { place: place.to_owned(), of_tenant }).collect();
        state.leaks.extend(leaks);
    }

    /// What was found.
    #[must_use]
    pub fn leaks(&self) -> Vec<Leak> {
        self.lock().leaks.clone()
    }

    /// How many log lines were searched.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lock().lines
    }

    fn line(&self, line: &[u8]) {
        self.lock().lines += 1;
        let named = |tenant: &usize| holds(line, TENANTS[*tenant].as_bytes());
        let allowed: Vec<usize> = (0..TENANTS.len()).filter(named).collect();
        self.search("a log line", line, &allowed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for Sinks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = {
                let mut state = self.lock();
                state.line.extend_from_slice(part);
                part.ends_with(b"\n").then(|| std::mem::take(&mut state.line))
            };
            if let Some(line) = line {
                self.line(&line);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

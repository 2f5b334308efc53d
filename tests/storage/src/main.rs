//! `storage-faults`: the campaigns at the command line. The last line on standard output is a JSON object with the
//! trials and the failures, for `cargo xtask proof`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks to its user")]

use std::io;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use storage_faults::crashes::{self, Budget, Report};
use storage_faults::device::Device;
use storage_faults::node::Node;
use storage_faults::subject::Subject;
use storage_faults::tenant::Tenant;
use storage_faults::workload::{self, WorkloadError};
use storage_faults::{errors, flips};

/// The stores under test: a device's, a tenant's, and several tenants that share a journal.
const STORES: usize = 3;
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// The real stores on a disk that loses, tears, reorders, refuses and flips.
#[derive(Debug, Parser)]
struct Arguments {
    /// What is random comes from here.
    #[arg(long, default_value_t = 1, global = true)]
    seed: u64,
    /// Ends each store's campaign after this long; what was tried until then counts.
    #[arg(long, default_value_t = 60.0, global = true)]
    minutes: f64,
    #[command(subcommand)]
    campaign: Campaign,
}

#[derive(Debug, Subcommand)]
enum Campaign {
    /// Opens the files as power cuts leave them.
    Crashes {
        /// Different images, as many of each store.
        #[arg(long, default_value_t = 20_000)]
        images: usize,
        /// Steps of the recorded run; about half of the device's are local transactions.
        #[arg(long, default_value_t = 400)]
        steps: u64,
        /// Threads that open images.
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
    /// Lets the n-th call fail.
    Errors {
        /// Runs with one fault each, as many of each store.
        #[arg(long, default_value_t = 2_000)]
        trials: usize,
        /// Runs this one of each store's alone.
        #[arg(long, conflicts_with = "trials")]
        trial: Option<usize>,
    },
    /// Flips bits of files that lie still.
    Flips {
        /// Bits, as many of each store.
        #[arg(long, default_value_t = 10_000)]
        trials: usize,
        /// Steps of the recorded run.
        #[arg(long, default_value_t = 90)]
        steps: u64,
    },
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    FileSystem(#[from] io::Error),
    #[error(transparent)]
    Workload(#[from] WorkloadError),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    storage_faults::install();
    let all = of::<Device>(&arguments)
        .and_then(|device| Ok([device, of::<Tenant>(&arguments)?, of::<Node>(&arguments)?]));
    let (trials, failed) = match all {
        Ok(counts) => counts.iter().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1)),
        Err(failure) => {
            eprintln!("storage-faults: {failure}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", serde_json::json!({ "trials": trials, "failed": failed }));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The campaign on one store; its trials and failures.
fn of<S: Subject>(arguments: &Arguments) -> Result<(usize, usize), Failure> {
    let seed = arguments.seed;
    let clock = Clock::new(S::NAME, arguments.minutes);
    let go_on = |done| clock.go_on(done);
    match arguments.campaign {
        Campaign::Crashes { images, steps, threads } => {
            let recording = workload::record::<S>(steps, seed)?;
            let budget = Budget { images: images.div_ceil(STORES), threads, seed };
            let report = crashes::run(&recording, budget, &go_on)?;
            let places = report.places;
            Ok(tell::<S>(&report, &format!("images, of {places} writes and syncs, {steps} steps")))
        }
        Campaign::Errors { trials, trial } => {
            let trials = trial.map_or(0..trials.div_ceil(STORES), |only| only..only + 1);
            let (report, struck) = errors::run::<S>(trials, seed, &go_on)?;
            Ok(tell::<S>(&report, &format!("runs with one fault, of which {struck} struck")))
        }
        Campaign::Flips { trials, steps } => {
            let recording = workload::record::<S>(steps, seed)?;
            let (report, ends) = flips::run(&recording, trials.div_ceil(STORES), seed, &go_on)?;
            for (region, end) in ends {
                println!("{}: {region:?}: {end:?}", S::NAME);
            }
            Ok(tell::<S>(&report, "flipped bits"))
        }
    }
}

fn tell<S: Subject>(report: &Report, what: &str) -> (usize, usize) {
    println!("{}: {} {what}: {} failed", S::NAME, report.images, report.failed);
    for failure in &report.failures {
        println!("  {failure}");
    }
    (report.images, report.failed)
}

/// Tells progress and knows when the time is up.
struct Clock {
    name: &'static str,
    started: Instant,
    budget: Duration,
    told: Mutex<Instant>,
}

#[expect(clippy::disallowed_methods, reason = "the home of the campaigns' deadlines")]
impl Clock {
    fn new(name: &'static str, minutes: f64) -> Self {
        let now = Instant::now();
        let budget = Duration::try_from_secs_f64(minutes * 60.0).unwrap_or(Duration::MAX);
        Self { name, started: now, budget, told: Mutex::new(now) }
    }

    fn go_on(&self, done: usize) -> bool {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(*told) >= PROGRESS_EVERY {
            *told = now;
            let seconds = now.duration_since(self.started).as_secs();
            eprintln!("{}: {done} done after {seconds} s", self.name);
        }
        now.duration_since(self.started) < self.budget
    }
}

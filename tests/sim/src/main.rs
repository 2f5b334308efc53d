//! `farshore-sim`: runs seeds of the simulator, and makes the plan of a failing one as small as it can.
#![expect(clippy::print_stdout, reason = "a command line speaks to its user")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use farshore_sim::campaign::{Campaign, Failure, KEPT_SEEDS, Report, kept_seeds};
use farshore_sim::plan::Plan;
use farshore_sim::shrink::shrink;
use farshore_sim::world::{Outcome, run};
use farshore_sim::{network, oracles};

/// Violations of one run that are printed.
const VIOLATIONS_SHOWN: usize = 5;

/// Runs seeds of the deterministic simulator: all kept ones, then new ones.
#[derive(Debug, Parser)]
#[command(name = "farshore-sim")]
struct Arguments {
    /// How many new seeds to run.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them; one that nobody has run yet where it is left out.
    #[arg(long)]
    from: Option<u64>,
    /// Begin no further seed after this time.
    #[arg(long)]
    minutes: Option<u64>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Run this seed alone, and make its plan smaller if it fails.
    #[arg(long, conflicts_with_all = ["seeds", "from", "minutes"])]
    seed: Option<u64>,
    /// Print every frame of the smallest plan that fails.
    #[arg(long, requires = "seed")]
    narrate: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let passed = match arguments.seed {
        Some(seed) => one(seed, arguments.narrate),
        None => many(&arguments),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64, narrate: bool) -> bool {
    println!("sim: --seed {seed}");
    let outcome = run(&Plan::draw(seed));
    let passed = outcome.violations.is_empty();
    if passed {
        let again = run(&Plan::draw(seed));
        println!("trace {}, {:?}", hex(&outcome.trace), outcome.covered);
        println!("the second run is the same: {}", again.trace == outcome.trace);
    } else {
        explain(&Failure { seed, outcome }, narrate);
    }
    println!("sim: --seed {seed}");
    passed
}

#[expect(clippy::disallowed_methods, reason = "a campaign measures how long it took")]
fn many(arguments: &Arguments) -> bool {
    let began = Instant::now();
    let fresh = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(1, |since| since.as_secs() << 20)
    };
    let first = arguments.from.unwrap_or_else(fresh);
    let seeds = format!("sim: --from {first} --seeds {}", arguments.seeds);
    println!("{seeds}");
    let limit = arguments.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let goes_on = || limit.is_none_or(|limit| began.elapsed() < limit);
    let threads = arguments.threads.max(1);
    let kept = Campaign { seeds: kept_seeds(KEPT_SEEDS), threads }.run(goes_on);
    let new = (first..first.saturating_add(arguments.seeds)).collect();
    let new = Campaign { seeds: new, threads }.run(goes_on);
    let took = began.elapsed();
    let mut passed = true;
    for (name, report) in [("kept", &kept), ("new", &new)] {
        passed &= tell(name, report);
    }
    let runs = kept.runs() + new.runs();
    println!("{runs} runs in {took:.1?}: {:.1} a second", runs as f64 / took.as_secs_f64());
    if let Some(failure) = kept.failures.iter().chain(&new.failures).next() {
        explain(failure, false);
    }
    println!("{seeds}");
    passed
}

fn tell(name: &str, report: &Report) -> bool {
    println!(
        "{name}: {} seeds, {} of them twice; {:?}",
        report.seeds, report.repeated, report.covered
    );
    let mut kinds: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for failure in &report.failures {
        let kind = failure.outcome.violations.first().map_or("nothing", oracles::Violation::kind);
        kinds.entry(kind).or_default().push(failure.seed);
    }
    for (kind, seeds) in kinds {
        println!("{name}: {kind}: seeds {seeds:?}");
    }
    if !report.unrepeatable.is_empty() {
        println!("{name}: not repeatable: seeds {:?}", report.unrepeatable);
    }
    report.passed()
}

/// The smallest plan that fails alike.
fn explain(failure: &Failure, narrate: bool) {
    println!("seed {} fails:", failure.seed);
    show(&failure.outcome);
    let (plan, outcome) = shrink(&Plan::draw(failure.seed), &failure.outcome);
    println!("the smallest plan found that fails alike:");
    for (number, device) in plan.devices.iter().enumerate() {
        println!("  device {number}: tenant {}, {:?}", device.tenant, device.rights);
    }
    println!(
        "  {:?}, latency {:?} ms, tombstones {} ms",
        plan.disk, plan.latency_ms, plan.retention_ms
    );
    for step in &plan.steps {
        println!("  after {} ms: {:?}", step.after_ms, step.action);
    }
    show(&outcome);
    if narrate {
        network::narrate_frames();
        let _ = run(&plan);
    }
}

fn show(outcome: &Outcome) {
    for violation in outcome.violations.iter().take(VIOLATIONS_SHOWN) {
        println!("  {violation}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

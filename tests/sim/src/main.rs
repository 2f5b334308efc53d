//! `farshore-sim`: runs seeds of the simulator, and makes the plan of a failing one as small as it can.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks to its user")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use farshore_sim::campaign::{Campaign, Failure, KEPT_SEEDS, Report, kept_seeds};
use farshore_sim::plan::Plan;
use farshore_sim::resources::Resources;
use farshore_sim::shrink::shrink;
use farshore_sim::world::{Outcome, run};
use farshore_sim::{network, oracles};

/// The server's allocator: a tenth of a run is memory that comes and goes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Violations of one run that are printed.
const VIOLATIONS_SHOWN: usize = 5;
/// Characters of a violation that the report of the bug bank prints.
#[cfg(feature = "bugs")]
const VIOLATION_SHOWN_CHARS: usize = 120;

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
    /// Judge causal consistency: other plans, with one kind of fault each, and a table of errors by fault.
    #[arg(long)]
    causal: bool,
    /// Plant the bugs of the bug bank one after the other, and run seeds until each is caught.
    #[cfg(feature = "bugs")]
    #[arg(long)]
    bugs: bool,
    /// Plant this bug alone.
    #[cfg(feature = "bugs")]
    #[arg(long, requires = "bugs")]
    bug: Option<String>,
    /// Print every frame of the smallest plan that fails.
    #[arg(long, requires = "seed")]
    narrate: bool,
    /// Leave the plan as it is.
    #[arg(long, requires = "seed")]
    whole: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    #[cfg(feature = "bugs")]
    if arguments.bugs {
        let passed = bank(&arguments);
        return if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let passed = match arguments.seed {
        Some(seed) => one(seed, &arguments),
        None => many(&arguments),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether every bug of the bank was caught.
#[cfg(feature = "bugs")]
fn bank(arguments: &Arguments) -> bool {
    use farshore_sim::bank::{Caught, measure, median};
    use farshore_sync_core::bugs::Bug;

    let (first, threads) = (arguments.from.unwrap_or(0), arguments.threads.max(1));
    let tell = |caught: &Caught| {
        let (name, seeds, seconds) = (caught.bug.as_str(), caught.seeds, caught.took.as_secs_f64());
        match &caught.by {
            Some((seed, violation)) => {
                let what = violation.to_string();
                let what: String = what.chars().take(VIOLATION_SHOWN_CHARS).collect();
                println!("{name:<26} caught {seeds:>6} seeds {seconds:>7.1} s  by {seed}: {what}");
            }
            None => println!("{name:<26} MISSED {seeds:>6} seeds {seconds:>7.1} s"),
        }
    };
    let wanted = |bug: &&Bug| arguments.bug.as_deref().is_none_or(|name| name == bug.as_str());
    let bugs: Vec<Bug> = Bug::ALL.iter().filter(wanted).copied().collect();
    let caught = measure(&bugs, first, arguments.seeds, threads, tell);
    let missed = caught.iter().filter(|caught| caught.by.is_none()).count();
    let median = median(&caught).unwrap_or_default().as_secs_f64();
    println!("{} of {} bugs caught, median {median:.1} s", caught.len() - missed, caught.len());
    missed == 0
}

impl Arguments {
    fn draw(&self) -> fn(u64) -> Plan {
        if self.causal { Plan::draw_causal } else { Plan::draw }
    }
}

fn one(seed: u64, arguments: &Arguments) -> bool {
    println!("sim: --seed {seed}");
    let (draw, narrate) = (arguments.draw(), arguments.narrate);
    let outcome = run(&draw(seed));
    let passed = outcome.violations.is_empty();
    if passed || arguments.whole {
        show(&outcome);
        if narrate {
            network::narrate_frames();
        }
        let again = run(&draw(seed));
        println!("trace {}, {:?}", hex(&outcome.trace), outcome.covered);
        println!("the second run is the same: {}", again.trace == outcome.trace);
    } else {
        explain(&Failure { seed, outcome }, draw, narrate);
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
    let told = AtomicU64::new(0);
    let progress = |report: &Report, failure: Option<&Failure>| {
        if let Some(Failure { seed, outcome }) = failure {
            eprintln!("seed {seed}: {}", outcome.violations[0]);
        }
        let minutes = began.elapsed().as_secs() / 60;
        if told.fetch_max(minutes, Ordering::Relaxed) < minutes {
            eprintln!("{minutes} min: {} seeds, {} failed", report.seeds, report.failures.len());
        }
    };
    let threads = arguments.threads.max(1);
    let (kept, draw) = (kept_seeds(KEPT_SEEDS), Plan::draw as fn(u64) -> Plan);
    let kept = Campaign { seeds: kept, threads, draw }.run(goes_on, progress);
    let before = Resources::now();
    let new = (first..first.saturating_add(arguments.seeds)).collect();
    let new = Campaign { seeds: new, threads, draw: arguments.draw() }.run(goes_on, progress);
    let took = began.elapsed();
    let mut passed = true;
    for (name, report) in [("kept", &kept), ("new", &new)] {
        passed &= tell(name, report);
    }
    match Resources::now().zip(before) {
        Some((now, before)) => {
            let kept = now.kept_since(&before);
            println!("{} open files, {} MiB of memory {kept:?}", now.files, now.bytes >> 20);
            passed &= kept.is_empty();
        }
        None => println!("the system does not say what the process holds"),
    }
    let runs = kept.runs() + new.runs();
    println!("{runs} runs in {took:.1?}: {:.1} a second", runs as f64 / took.as_secs_f64());
    if arguments.causal {
        println!("{}", new.causal);
    }
    let failed = kept.failures.iter().map(|failure| (failure, draw));
    if let Some((failure, draw)) =
        failed.chain(new.failures.iter().map(|failure| (failure, arguments.draw()))).next()
    {
        explain(failure, draw, false);
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
fn explain(failure: &Failure, draw: fn(u64) -> Plan, narrate: bool) {
    println!("seed {} fails:", failure.seed);
    show(&failure.outcome);
    let (plan, outcome) = shrink(&draw(failure.seed), &failure.outcome);
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

//! `real-faults`: kills and partitions of real programs at the command line. The last line on standard output is a JSON
//! object with the trials and the failures, for `cargo xtask proof`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks to its user")]

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use system_tests::deadline::Deadline;
use system_tests::real_faults::{TRIALS_OF_A_WORLD, kills, partitions, percentile};

/// Kills and partitions of real programs.
#[derive(Debug, Parser)]
struct Arguments {
    /// The seed of the first world; each world takes the next one.
    #[arg(long, default_value_t = 1, global = true)]
    seed: u64,
    /// Begins no further world after this time.
    #[arg(long, default_value_t = 60, global = true)]
    minutes: u64,
    #[command(subcommand)]
    campaign: Campaign,
}

#[derive(Debug, Subcommand)]
enum Campaign {
    /// SIGKILL for servers and replicas in mid-sync, and SIGSTOP now and then.
    Kills {
        /// Kills.
        #[arg(long, default_value_t = 1_000)]
        cycles: u64,
    },
    /// Wires that pass nothing one way or both, half-open or refusing.
    Partitions {
        /// Partitions.
        #[arg(long, default_value_t = 200)]
        runs: u64,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (wanted, what) = match arguments.campaign {
        Campaign::Kills { cycles } => (cycles, "kills"),
        Campaign::Partitions { runs } => (runs, "partitions"),
    };
    let deadline = Deadline::after(Duration::from_secs(60 * arguments.minutes));
    let (mut trials, mut failed, mut times) = (0, 0, Vec::new());
    let mut seed = arguments.seed;
    while trials < wanted && !deadline.left().is_zero() {
        let of_world = TRIALS_OF_A_WORLD.min(wanted - trials);
        let ended = catch_unwind(|| match arguments.campaign {
            Campaign::Kills { .. } => {
                kills(seed, of_world);
                Vec::new()
            }
            Campaign::Partitions { .. } => partitions(seed, of_world),
        });
        match ended {
            Ok(more) => times.extend(more),
            Err(_) => {
                failed += 1;
                println!(
                    "the world of seed {seed} failed: {what} --seed {seed}, {of_world} trials"
                );
            }
        }
        trials += of_world;
        seed += 1;
        let seconds = deadline.waited().as_secs();
        eprintln!("{trials} {what} after {seconds} s, {failed} worlds failed");
    }
    let mut report = serde_json::json!({ "trials": trials, "failed": failed });
    if !times.is_empty() {
        let (median, p99) = (percentile(&times, 50), percentile(&times, 99));
        println!("heal to converged: median {median:.0?}, p99 {p99:.0?}");
        report["p50_ms"] = millis(median).into();
        report["p99_ms"] = millis(p99).into();
        report["max_ms"] = millis(percentile(&times, 100)).into();
    }
    println!("{report}");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

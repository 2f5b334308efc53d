//! `fuzz-targets`: gives every decoder many inputs. A panic ends the target's run and leaves its input in a file. The
//! last line on standard output is a JSON object with the executions and the failures, for `cargo xtask proof`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks to its user")]

use std::fs;
use std::io;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use fuzz_targets::mutate::{Chance, input};
use fuzz_targets::seeds;
use fuzz_targets::targets::{TARGETS, Target};

/// Inputs between two looks at the clock.
const BETWEEN_LOOKS: u64 = 1_000;

/// Gives every decoder many inputs.
#[derive(Debug, Parser)]
struct Arguments {
    /// Inputs of all targets together.
    #[arg(long, default_value_t = 10_000_000)]
    executions: u64,
    /// Ends after this long; what was tried until then counts.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// What is random comes from here.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// This target alone.
    #[arg(long)]
    target: Option<String>,
    /// Where inputs go that made a decoder panic.
    #[arg(long, default_value = ".")]
    found: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let wanted =
        |target: &&Target| arguments.target.as_deref().is_none_or(|name| name == target.name);
    let targets: Vec<&Target> = TARGETS.iter().filter(wanted).collect();
    let share = targets.len().max(1) as u64;
    let time = Duration::from_secs(60 * arguments.minutes) / u32::try_from(share).unwrap_or(1);
    let (mut executions, mut failed) = (0, 0);
    for target in targets {
        match run(target, arguments.executions / share, time, &arguments) {
            Ok((done, Some(path))) => {
                println!("{}: a panic after {done} inputs: {}", target.name, path.display());
                (executions, failed) = (executions + done, failed + 1);
            }
            Ok((done, None)) => {
                eprintln!("{}: {done} inputs", target.name);
                executions += done;
            }
            Err(error) => {
                eprintln!("{}: {error}", target.name);
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{}", serde_json::json!({ "trials": executions, "failed": failed }));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::disallowed_methods, reason = "a campaign ends when its time is up")]
fn run(
    target: &Target,
    executions: u64,
    time: Duration,
    arguments: &Arguments,
) -> io::Result<(u64, Option<PathBuf>)> {
    let started = Instant::now();
    let seeds = seeds::of(target.name)?;
    let mut chance = Chance::of(arguments.seed);
    let all = seeds.len() as u64;
    for done in 0..executions.max(all) {
        // Each seed as it is, then others.
        let bytes = match usize::try_from(done).ok().and_then(|at| seeds.get(at)) {
            Some(seed) => seed.clone(),
            None => input(&seeds, &mut chance),
        };
        if catch_unwind(|| (target.run)(&bytes)).is_err() {
            let path = arguments.found.join(format!("{}-{}-{done}", target.name, arguments.seed));
            fs::write(&path, bytes)?;
            return Ok((done + 1, Some(path)));
        }
        if done >= all && done % BETWEEN_LOOKS == 0 && started.elapsed() >= time {
            return Ok((done + 1, None));
        }
    }
    Ok((executions.max(all), None))
}

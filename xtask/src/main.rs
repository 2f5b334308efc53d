//! `cargo xtask`: the repository's own commands.
//!
//! It is compiled before everything else, so it has two small dependencies, and one of ours that has none.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks to its user")]

mod failure;
mod fences;
mod mutants;
mod preflight;
mod process;
mod proof;
mod release;
mod services;
mod suite;

use std::process::ExitCode;

use failure::Failure;

const HELP: &str = "\
The repository's own commands.

Usage: cargo xtask <COMMAND> [ARGUMENTS]

Commands:
  demo    Build in release and run the quickstart; ARGUMENTS go to it
  test    Formatting, fences, lints and every test: what CI runs
  bench   Build as it ships and run the benchmarks; ARGUMENTS go to them (such as --report PATH)
  sim     Build in release and run the simulator; ARGUMENTS go to it (such as --seeds 1000 --minutes 10)
  mutants Change the code a little, many times, and see that a test notices; NAME, --minutes N
  proof   Run every kind of trial and write docs/proof.md; --quick, --minutes N, --only ROW.., --dev
  fences  Check who uses what, licences, layers and links, without network (part of test)
  help    Print this

`cargo xtask demo -- --help` prints the options of the quickstart, and so for bench and sim.
Needs a Rust toolchain, a C compiler, make and perl, and Postgres for test; what is missing is named.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            failure.exit_code()
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some((command, rest)) = arguments.split_first() else {
        return help();
    };
    if rest.first().is_some_and(|first| first == "--help" || first == "-h") {
        return help();
    }
    let passed_on = rest.strip_prefix(&["--".to_owned()]).unwrap_or(rest);
    match command.as_str() {
        "demo" => release::demo(passed_on),
        "bench" => release::bench(passed_on),
        "sim" => release::sim(passed_on),
        "test" => no_arguments(rest).and_then(|()| suite::run()),
        "mutants" => mutants::run(rest),
        "proof" => proof::run(rest),
        "fences" => no_arguments(rest).and_then(|()| fences::run()),
        "help" | "--help" | "-h" => help(),
        unknown => Err(Failure::Usage(format!("unknown command {unknown:?}"))),
    }
}

fn help() -> Result<(), Failure> {
    print!("{HELP}");
    Ok(())
}

fn no_arguments(rest: &[String]) -> Result<(), Failure> {
    match rest.first() {
        None => Ok(()),
        Some(first) => Err(Failure::Usage(format!("unexpected argument {first:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage_error(arguments: &[&str]) -> String {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        match run(&arguments) {
            Err(Failure::Usage(message)) => message,
            other => panic!("expected a usage error, got {other:?}"),
        }
    }

    #[test]
    fn wrong_arguments_are_named() {
        assert!(usage_error(&["dmeo"]).contains("dmeo"));
        assert!(usage_error(&["test", "--fast"]).contains("--fast"));
        assert!(usage_error(&["fences", "x"]).contains('x'));
    }

    #[test]
    fn help_is_printed_without_doing_the_work() {
        for arguments in [&["test", "--help"][..], &["demo", "-h"], &["help"], &[]] {
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            run(&arguments).unwrap();
        }
    }
}

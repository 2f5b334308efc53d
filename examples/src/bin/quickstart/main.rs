//! The quickstart: real data, written offline on two devices, converges through a real server that is killed on
//! the way, and arrives whole on a third device.
//!
//! Begin with `story.rs`. Each chapter is a file of its own:
//!
//! | file | chapter |
//! |---|---|
//! | `office` | a server, a tenant, two devices, a first sync |
//! | `apart` | both devices are offline and work on the same rows |
//! | `import` | both devices are offline and import thousands of rows |
//! | `crash` | both connect, and the server is killed while they push |
//! | `refused` | what the server refused, and what becomes of it |
//! | `together` | two people type into one document |
//! | `newcomer` | a third device joins |
//! | `report` | the table at the end |
#![expect(
    clippy::disallowed_methods,
    reason = "a story waits for conditions with deadlines on the steady clock"
)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a story is told to whoever runs it"
)]

mod apart;
mod cast;
mod crash;
mod import;
mod newcomer;
mod office;
mod refused;
mod report;
mod story;
mod together;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use farshore_examples::outcome::{Outcome, ensure};
use farshore_examples::telling::Telling;

/// Two devices write offline, the server is killed while they sync, and a third device gets everything.
#[derive(Debug, Parser)]
#[command(name = "quickstart")]
struct Options {
    /// Where server and devices keep their files, a new or empty directory; a temporary one otherwise
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut telling = Telling::default();
    match run(&options, &mut telling) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let chapter = telling.current().map(|title| format!("{title}: ")).unwrap_or_default();
            eprintln!("\nquickstart: {chapter}{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, telling: &mut Telling) -> Outcome {
    let Some(dir) = &options.dir else {
        return story::tell(tempfile::tempdir()?.path(), telling);
    };
    std::fs::create_dir_all(dir)?;
    let is_empty = std::fs::read_dir(dir)?.next().is_none();
    ensure(is_empty, || format!("{} is not empty", dir.display()))?;
    story::tell(dir, telling)?;
    println!("\nEverything is kept in {}.", dir.display());
    Ok(())
}

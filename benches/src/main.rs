//! Measurements against peers that run in the same run.
//!
//! Each row of the result is one figure, with the same figure of a peer where there is one. Legs that are compared
//! run in turns (ABAB), so that both meet the same machine. Encryption and durability are on in every leg: SQLCipher
//! with `synchronous=FULL` on devices, server and peers, unless a row says otherwise. The server is a process of its own.
//!
//! - One file a row, named as the row: [`plan::Bench`] lists them, [`rows`] says what each means.
//! - [`plan`]: which benches there are, and what they run with.
//! - [`legs`]: legs in turns, medians and ranges.
//! - [`report`]: the table and the JSON. [`records`], [`performance`], [`growth_plot`]: what was measured in which run, the
//!   page for readers, and one of its plots.
//! - [`flights`]: the data.
//! - [`server`], [`device`], [`load`], [`connection`]: our side: the server's process, the SDK, what devices without a
//!   store push, and the socket of one.
//! - [`generator`], [`drive`]: processes of their own that make the load, and how busy they and the server were.
//! - [`pushing`], [`crowd`], [`receiving`]: what they do: push, stay connected, receive.
//! - [`sqlite`], [`appending_by_hand`], [`postgres`], [`driver`], [`nats`], [`streams`], [`set_reconciliation`],
//!   [`document_engines`]: the peers.
//! - [`proxy`], [`wire_bytes`]: what goes over the wire, byte by byte, and what of it is values.
//! - [`latencies`], [`base64`]: how long things took, and bytes, as one process tells another.
//! - [`machine`], [`syncs`]: the disk's fsync, memory and processor time of processes, and how often one syncs.
//! - [`outcome`]: how a bench fails.
#![expect(clippy::disallowed_methods, reason = "measuring is reading the clock")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks to its user")]

mod appending_by_hand;
mod base64;
mod behind_1000;
mod clock_storage;
mod connection;
mod crowd;
mod device;
mod document_engines;
mod drive;
mod driver;
mod durable_push;
mod durable_streams;
mod fanout;
mod flights;
mod generator;
mod growth;
mod growth_plot;
mod hot_tenants;
mod idle_reconnect;
mod idle_socket;
mod initial_sync;
mod latencies;
mod legs;
mod load;
mod local_write;
mod machine;
mod nats;
mod noisy_neighbour;
mod outcome;
mod performance;
mod pg_durable_push;
mod pg_fanout;
mod pg_tenants;
mod plan;
mod postgres;
mod proxy;
mod pushing;
mod receiving;
mod reconnect_storm;
mod records;
mod repair;
mod report;
mod rows;
mod server;
mod set_reconciliation;
mod single_write;
mod small_documents;
mod sqlite;
mod streams;
mod syncs;
mod tenant_create;
mod tenant_move;
mod text_traces;
mod visible_latency;
mod wire_bytes;
mod wire_overhead;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use outcome::Outcome;
use plan::{Bench, Plan};
use records::{Records, Run};

const USAGE_ERROR: u8 = 2;

/// Measures Farshore against peers in the same run: as it ships, with encryption and fsync on.
#[derive(Debug, Parser)]
#[command(name = "farshore-benches")]
struct Options {
    /// Which benches to run; all of them by default
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Write the results as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Put the results on a page for readers, with plots and all that was measured beside it; other rows stay there
    #[arg(long, value_name = "PATH")]
    report: Option<PathBuf>,
    /// Less data and shorter runs: to see that everything works, not to quote
    #[arg(long)]
    quick: bool,
    /// On which disk to work; the system's temporary directory by default
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Be a generator for a bench that speaks over standard input and output
    #[arg(long, hide = true, value_name = "JOB")]
    generate: Option<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(job) = &options.generate {
        return ended(generator::generate(job));
    }
    match Bench::named(&options.names) {
        Ok(benches) => ended(run(&options, &benches)),
        Err(unknown) => {
            eprintln!("farshore-benches: {unknown}");
            ExitCode::from(USAGE_ERROR)
        }
    }
}

fn ended(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("farshore-benches: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, benches: &[Bench]) -> Outcome {
    // A path that cannot be written is better known before the minutes that the benches take.
    if let Some(path) = &options.json {
        report::write_json(path, &[])?;
    }
    if let Some(folder) = options.report.as_deref().and_then(Path::parent) {
        let there = folder.as_os_str().is_empty() || folder.is_dir();
        outcome::ensure(there, || format!("there is no folder {}", folder.display()))?;
    }
    let mut records = options.report.as_deref().map(Records::beside).transpose()?;
    let plan = Plan::new(options.quick, options.dir.as_deref())?;
    let setting = plan.describe()?;
    println!("{setting}");
    let run = Run::now(&setting);
    let mut results = Vec::new();
    for bench in benches {
        eprintln!("{}", bench.name());
        let found = bench.run(&plan).map_err(|failure| format!("{}: {failure}", bench.name()))?;
        report::print_notes(&found);
        results.extend(found.iter().cloned());
        // What is there so far survives a bench that fails later.
        if let Some(path) = &options.json {
            report::write_json(path, &results)?;
        }
        if let (Some(path), Some(records)) = (&options.report, &mut records) {
            records.put(*bench, &run, found)?;
            performance::write(path, records)?;
        }
    }
    report::print_table(&results);
    Ok(())
}

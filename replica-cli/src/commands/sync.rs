//! `sync`: connects, sends and takes in everything, and stops.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use farshore_client::{Client, Status};

use crate::failure::Failure;
use crate::json;
use crate::output::Output;

/// How long the progress line waits for something new.
const PROGRESS_WAIT: Duration = Duration::from_millis(200);

/// Success means that everything is in step.
pub(super) fn run(client: &Client, timeout_s: u64, output: Output) -> Result<ExitCode, Failure> {
    let is_over = AtomicBool::new(false);
    let report = thread::scope(|scope| {
        scope.spawn(|| show_progress(client, &is_over, output));
        let report = client.sync_once(Duration::from_secs(timeout_s));
        is_over.store(true, Ordering::Relaxed);
        report
    })?;
    output.say(&json::sync_report(&report), || match (&report.cause, report.complete) {
        (_, true) => format!("in step at seq {} after {} ms", report.cursor, report.elapsed_ms),
        (Some(cause), false) => format!("not in step: {} ({})", cause.message, cause.code),
        (None, false) => {
            format!("not in step after {} ms; {} to confirm", report.elapsed_ms, report.unconfirmed)
        }
    });
    client.clone().close()?;
    Ok(if report.complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show_progress(client: &Client, is_over: &AtomicBool, output: Output) {
    let mut statuses = client.watch_status();
    while !is_over.load(Ordering::Relaxed) {
        if let Some(status) = statuses.next_within(PROGRESS_WAIT) {
            output.progress(&line(&status));
        }
    }
    output.progress("");
}

fn line(status: &Status) -> String {
    let Status { cursor, unanswered, unconfirmed, .. } = status;
    let phase = status.phase_name().replace('_', " ");
    let cause =
        status.cause.as_ref().map(|cause| format!(", {}", cause.message)).unwrap_or_default();
    format!("{phase}: at seq {cursor}, {unanswered} to send, {unconfirmed} to confirm{cause}")
}

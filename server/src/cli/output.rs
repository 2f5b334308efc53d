//! What goes to stdout: answers for people, or JSON for programs.

use std::fmt::Display;
use std::io::{self, Write as _};

use serde::Serialize;

use super::error::CliError;

/// Prints a text as it is.
pub fn text(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(CliError::Output)
}

/// Prints one line.
pub fn line(line: impl Display) -> Result<(), CliError> {
    text(&format!("{line}\n"))
}

/// Prints an answer as JSON.
pub fn json(answer: &impl Serialize) -> Result<(), CliError> {
    line(serde_json::to_string_pretty(answer).expect("answers have string keys only"))
}

/// Prints rows under a head, each column as wide as its widest cell.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Result<(), CliError> {
    let head = head.map(str::to_owned);
    let lines: Vec<&[String; N]> = std::iter::once(&head).chain(rows).collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0)
    });
    for cells in lines {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        line(padded.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

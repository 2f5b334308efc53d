//! A replica at the command line: the SDK for scripts, support and black-box tests.
//!
//! - [`arguments`]: what can be said on the command line.
//! - [`commands`]: one module for each command.
//! - [`repl`]: one JSON command a line in, one JSON answer a line out.
//! - [`session`]: opening the client that a directory is about; [`settings`]: what `init` wrote there.
//! - [`json`]: values, rows and reports as JSON, and back.
//! - [`output`], [`failure`]: what a command says when it is done, and when it is not.
//!
//! It uses nothing but the public face of `farshore-client`.

mod arguments;
mod commands;
mod failure;
mod json;
mod output;
mod repl;
mod session;
mod settings;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::Arguments;
use output::Output;

/// Does what the command line says. The exit code is 0 for success, 1 for a failure, 2 for arguments that make no
/// sense.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.json);
    match commands::run(arguments, &output) {
        Ok(code) => code,
        Err(failure) => {
            output.failed(&failure);
            ExitCode::FAILURE
        }
    }
}

//! The `farshore` binary; see `farshore_server::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    farshore_server::cli::main()
}

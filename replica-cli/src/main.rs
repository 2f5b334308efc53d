//! The `farshore-replica` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    farshore_replica::run()
}

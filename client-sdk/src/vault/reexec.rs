//! For tests that need another surrounding: they run themselves again in a process of its own.

use std::process::{Command, Output, Stdio};

/// Set in the inner process; its value is the test's own.
const MARKER: &str = "FARSHORE_TEST_REEXEC";

/// What the outer process handed over; `None` in the outer process itself.
#[expect(
    clippy::disallowed_methods,
    reason = "a child process of a test is told so by its environment"
)]
pub(crate) fn inside() -> Option<String> {
    std::env::var(MARKER).ok()
}

/// Runs `test` (its path within the crate) again through `wrapper`, a command that ends by running its arguments.
pub(crate) fn run(test: &str, wrapper: &[&str], value: &str, variables: &[(&str, &str)]) -> Output {
    let program = std::env::current_exe().unwrap();
    let program = program.to_str().unwrap();
    let words = [wrapper, &[program, "--exact", test, "--nocapture"]].concat();
    Command::new(words[0])
        .args(&words[1..])
        .env(MARKER, value)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// As [`run`], and the test must have run there and passed.
pub(crate) fn run_passing(
    test: &str,
    wrapper: &[&str],
    value: &str,
    variables: &[(&str, &str)],
) -> Output {
    let output = run(test, wrapper, value, variables);
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{wrapper:?}\n{out}\n{err}");
    output
}

/// Whether a command works here; asked before a test that needs it.
pub(crate) fn works(command: &[&str]) -> bool {
    Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Says on the terminal that a test did not run, past the capture of the test harness.
pub(crate) fn skipped(test: &str, reason: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "SKIPPED {test}: {reason}").unwrap();
}

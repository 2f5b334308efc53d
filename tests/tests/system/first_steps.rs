//! What `farshore dev` tells a newcomer to do next works as it is printed.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use system_tests::process::{Process, run};
use system_tests::programs;
use system_tests::server::free_port;

/// What the last lines that `farshore dev` prints begin with.
const END: &str = "Health:";

fn farshore(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(programs::path_of(programs::SERVER));
    command
        .args(arguments)
        .current_dir(home)
        .env_remove("FARSHORE_MASTER_KEY")
        .stdin(Stdio::null());
    command
}

#[test]
fn the_printed_commands_bring_a_row_from_one_device_to_another() {
    let home = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let mut command = farshore(home.path(), &["dev", "--listen", &listen]);
    let mut server = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::null()));
    let stdout = BufReader::new(server.child().stdout.take().unwrap());
    let mut script = String::from("set -e\n");
    for line in stdout.lines().map(Result::unwrap) {
        if line.starts_with(END) {
            break;
        }
        if let Some(command) = line.strip_prefix("  ") {
            script.push_str(command);
            script.push('\n');
        }
    }
    assert!(script.lines().count() > 5, "{script}");

    let programs = programs::path_of(programs::REPLICA);
    let path = format!("{}:/usr/bin:/bin", programs.parent().unwrap().display());
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", &script]).current_dir(home.path()).env("PATH", path);
    let finished = run(shell);
    assert_eq!(finished.code, Some(0), "{script}\n{}", finished.stderr);
    assert!(finished.stdout.contains("Farshore Air"), "{}", finished.stdout);
    let running = server.ended();
    assert_eq!(running, None);
}

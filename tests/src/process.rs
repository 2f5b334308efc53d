//! One process of ours.

use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use crate::deadline::within_deadline;

/// A running process; it is ended by its own id when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

/// What a command that ran to its end said.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Process {
    /// Starts one.
    ///
    /// # Panics
    /// Where the system refuses.
    pub fn start(command: &mut Command) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child }
    }

    /// The process itself.
    pub const fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// SIGKILL: the process gets no chance to finish anything.
    ///
    /// # Panics
    /// Where the system refuses.
    pub fn kill9(&mut self) {
        // It may have ended by itself a moment ago.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// SIGTERM: the process is asked to end.
    ///
    /// # Panics
    /// Where there is no `kill` command.
    pub fn ask_to_end(&self) {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status().unwrap();
    }

    /// SIGSTOP: the process stands still, and its sockets stay open.
    ///
    /// # Panics
    /// Where there is no `kill` command.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT: the process goes on.
    ///
    /// # Panics
    /// Where there is no `kill` command.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(status.success(), "kill {signal} {id}: {status}");
    }

    /// Whether it has ended, and how.
    ///
    /// # Panics
    /// Where the system does not say.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end; `None` at the deadline.
    pub fn ended_within(&mut self, within: Duration) -> Option<ExitStatus> {
        within_deadline(within, || self.ended())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Runs a command to its end.
///
/// # Panics
/// Where it cannot be started.
pub fn run(command: &mut Command) -> Finished {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

//! What a command says: JSON or text on stdout, failures and progress on stderr.

use std::io::{IsTerminal as _, Write as _, stderr, stdout};

use serde_json::{Value as Json, json};

use crate::failure::Failure;

/// Where a command speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// The result of a command: `result` where JSON is wanted, else `text`.
    pub(crate) fn say(self, result: &Json, text: impl FnOnce() -> String) {
        let line = if self.json { result.to_string() } else { text() };
        // Whoever closed the pipe has heard enough.
        let _ = writeln!(stdout().lock(), "{line}");
    }

    /// A command failed.
    pub(crate) fn failed(self, failure: &Failure) {
        let Failure { code, message } = failure;
        let line = if self.json {
            json!({"ok": false, "code": code, "message": message}).to_string()
        } else {
            format!("farshore-replica: {message} ({code})")
        };
        let _ = writeln!(stderr().lock(), "{line}");
    }

    /// A line that the next one replaces; only a person at a terminal sees it.
    pub(crate) fn progress(self, line: &str) {
        if stderr().is_terminal() {
            let _ = write!(stderr().lock(), "\r\x1b[K{line}").and_then(|()| stderr().flush());
        }
    }
}

//! How far something long has come: one line on stderr that is written over, where a person looks on.

use std::io::{self, IsTerminal as _, Write as _};

/// Bytes after which the line is written anew.
const STEP_BYTES: u64 = 1 << 20;

/// Bytes on their way.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    /// How many there are, where that is known.
    total: Option<u64>,
    done: u64,
    shown: u64,
    is_seen: bool,
}

impl Progress {
    pub fn new(what: &'static str, total: Option<u64>) -> Self {
        Self { what, total, done: 0, shown: 0, is_seen: io::stderr().is_terminal() }
    }

    /// Counts bytes that have passed.
    pub fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.is_seen && self.done >= self.shown + STEP_BYTES {
            self.shown = self.done;
            self.show(&line(self.what, self.done, self.total));
        }
    }

    /// Says what happens now that all bytes have passed.
    pub fn then(&self, what: &str) {
        if self.is_seen {
            self.show(what);
        }
    }

    fn show(&self, line: &str) {
        // Where nobody reads stderr any more there is nobody to tell.
        let _ = write!(io::stderr(), "\r\x1b[K{line}");
        let _ = io::stderr().flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_seen {
            self.show("");
        }
    }
}

fn line(what: &str, done: u64, total: Option<u64>) -> String {
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    match total {
        Some(total) => format!(
            "{what}: {} of {} MiB ({} %)",
            mebibytes(done),
            mebibytes(total),
            done * 100 / total.max(1)
        ),
        None => format!("{what}: {} MiB", mebibytes(done)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_has_come() {
        assert_eq!(line("sent", 5 << 20, Some(10 << 20)), "sent: 5 of 10 MiB (50 %)");
        assert_eq!(line("sent", 0, Some(0)), "sent: 0 of 0 MiB (0 %)");
        assert_eq!(line("received", 1, None), "received: 1 MiB");
    }
}

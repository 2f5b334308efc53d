//! Bounded lines in, whole lines out.

use std::io::{self, BufRead, Read as _, Write, stdout};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value as Json, json};

use crate::failure::Failure;

/// Longest command, in bytes.
pub(crate) const MAX_LINE_BYTES: u64 = 64 << 20;

/// One line of input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Its text.
    Text(String),
    /// It is longer than [`MAX_LINE_BYTES`]; the rest of it was skipped.
    TooLong,
}

/// Reads lines without ever holding more than the longest allowed one.
pub(super) struct Lines<R> {
    input: R,
    most_bytes: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) const fn new(input: R) -> Self {
        Self { input, most_bytes: MAX_LINE_BYTES }
    }

    /// The next line; `None` at the end of the input.
    pub(super) fn next(&mut self) -> Result<Option<Line>, Failure> {
        self.read().map_err(|error| Failure::file(Path::new("stdin"), &error))
    }

    fn read(&mut self) -> io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        self.input.by_ref().take(self.most_bytes).read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.len() as u64 == self.most_bytes && !bytes.ends_with(b"\n") {
            self.input.skip_until(b'\n')?;
            return Ok(Some(Line::TooLong));
        }
        let text = String::from_utf8(bytes);
        // What is not UTF-8 is not JSON, and the parser says so.
        Ok(Some(Line::Text(
            text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        )))
    }
}

/// Where answers and events go: one line each, never two in one another.
#[derive(Clone)]
pub(super) struct Answers(Arc<Mutex<Box<dyn Write + Send>>>);

impl Answers {
    pub(super) fn to_stdout() -> Self {
        Self::to(stdout())
    }

    pub(super) fn to(output: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Box::new(output))))
    }

    /// A command was done; `fields` stand beside `id` and `ok`.
    pub(super) fn ok(&self, id: &Json, fields: Json) {
        let mut answer = Map::new();
        answer.insert("id".to_owned(), id.clone());
        answer.insert("ok".to_owned(), Json::Bool(true));
        if let Json::Object(fields) = fields {
            answer.extend(fields);
        }
        self.write(&Json::Object(answer));
    }

    /// A command was not done.
    pub(super) fn failed(&self, id: &Json, failure: &Failure) {
        let Failure { code, message } = failure;
        self.write(&json!({"id": id, "ok": false, "code": code, "message": message}));
    }

    /// Something happened.
    pub(super) fn write(&self, line: &Json) {
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever closed the pipe hears nothing more; the end of stdin ends the process.
        let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &str, most_bytes: u64) -> Vec<Line> {
        let mut lines = Lines { input: input.as_bytes(), most_bytes };
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    #[test]
    fn a_line_that_is_too_long_costs_no_memory_and_hides_no_other() {
        let text = |text: &str| Line::Text(text.to_owned());
        assert_eq!(all("ab\n\nc", 4), [text("ab\n"), text("\n"), text("c")]);
        assert_eq!(all("abcdefgh\nij\n", 4), [Line::TooLong, text("ij\n")]);
        assert_eq!(all("abc\nabcd\nx", 4), [text("abc\n"), Line::TooLong, text("x")]);
        assert_eq!(all("", 4), []);
    }
}

//! One JSON command a line in, one JSON answer a line out: docs/replica-cli.md describes the protocol.
//!
//! Commands are done one after the other and answered in order. `wait`, `sync` and `watch` go on beside them:
//! `wait` and `sync` answer when they are done, `watch` tells of each result until `unwatch`.
//!
//! - [`requests`]: what a line may say.
//! - [`operations`]: doing it.
//! - [`transaction`]: the steps of a `txn`.
//! - [`background`]: what goes on beside.
//! - [`lines`]: bounded lines in, whole lines out.

mod background;
mod lines;
mod operations;
mod requests;
mod transaction;

use std::io::stdin;

use farshore_client::Client;
use serde_json::{Value as Json, json};

use crate::failure::{BAD_REQUEST, Failure};
use background::Background;
pub(crate) use lines::MAX_LINE_BYTES;
use lines::{Answers, Line};
use requests::Request;

/// What one command leads to.
enum Done {
    /// The fields of its answer.
    Answer(Json),
    /// The answer comes later.
    Later,
    /// Nothing more is to be done.
    Exit,
}

/// Reads commands until stdin ends or one says `exit`. At the end of stdin, waits that are under way are answered
/// first; after `exit` they are not.
pub(crate) fn run(client: &Client) -> Result<(), Failure> {
    let answers = Answers::to_stdout();
    let background = Background::new(client.clone(), answers.clone());
    let mut lines = lines::Lines::new(stdin().lock());
    while let Some(line) = lines.next()? {
        let (id, done) = match line {
            Line::Text(text) if text.trim().is_empty() => continue,
            Line::Text(text) => do_line(client, &background, &text),
            Line::TooLong => (Json::Null, Err(Failure::new(BAD_REQUEST, "the line is too long"))),
        };
        match done {
            Ok(Done::Answer(fields)) => answers.ok(&id, fields),
            Ok(Done::Later) => {}
            Ok(Done::Exit) => {
                answers.ok(&id, json!({}));
                return Ok(());
            }
            Err(failure) => answers.failed(&id, &failure),
        }
    }
    background.finish();
    Ok(())
}

/// Does one line; its id comes back even if the rest cannot be read.
fn do_line(client: &Client, background: &Background, line: &str) -> (Json, Result<Done, Failure>) {
    let bad = |error: serde_json::Error| Failure::new(BAD_REQUEST, error.to_string());
    let json: Json = match serde_json::from_str(line) {
        Ok(json) => json,
        Err(error) => return (Json::Null, Err(bad(error))),
    };
    let id = json.get("id").cloned().unwrap_or_default();
    let done = serde_json::from_value::<Request>(json)
        .map_err(bad)
        .and_then(|request| operations::run(client, background, &id, request));
    (id, done)
}

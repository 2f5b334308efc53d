//! `watch`: a SELECT whose results keep coming.

use std::time::Duration;

use farshore_client::Client;

use super::query;
use crate::failure::Failure;
use crate::json::UuidColumns;
use crate::output::Output;

/// How long one wait for the next result lasts; there is always another one.
const WAIT: Duration = Duration::from_secs(3_600);

/// Runs until the process is interrupted or the query fails.
pub(super) fn run(
    client: &Client,
    sql: &str,
    args: &[String],
    offline: bool,
    output: Output,
) -> Result<(), Failure> {
    let mut results = client.live(sql, &query::parameters(args)?)?;
    if !offline {
        client.connect()?;
    }
    let uuids = UuidColumns::of(&client.schema());
    loop {
        match results.recv_timeout(WAIT) {
            Some(Ok(rows)) => query::say(&rows, &uuids, output),
            Some(Err(error)) => {
                return Err(Failure::new(
                    farshore_client::Classified::code(&*error),
                    error.to_string(),
                ));
            }
            None => {}
        }
    }
}

//! `quarantine`: what the server refused, and what to do about it.

use farshore_client::Client;
use serde_json::json;

use super::pretty;
use crate::arguments::QuarantineAction;
use crate::failure::Failure;
use crate::json;
use crate::output::Output;

pub(super) fn run(
    client: &Client,
    action: Option<QuarantineAction>,
    output: Output,
) -> Result<(), Failure> {
    match action {
        None => {
            let report = json::quarantine(&client.quarantine()?);
            output.say(&report, || pretty(&report));
        }
        Some(QuarantineAction::Resubmit { id }) => {
            client.resubmit(id)?;
            output.say(&json!({"resubmitted": id}), || format!("resubmitted {id}"));
        }
        Some(QuarantineAction::Discard { id }) => {
            client.discard(id)?;
            output.say(&json!({"discarded": id}), || format!("discarded {id}"));
        }
    }
    Ok(())
}

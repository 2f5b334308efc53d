//! Doing what a command says.

use farshore_client::Client;
use serde_json::{Value as Json, json};

use super::background::Background;
use super::requests::Request;
use super::{Done, transaction};
use crate::failure::Failure;
use crate::json::{self, UuidColumns};

pub(super) fn run(
    client: &Client,
    background: &Background,
    id: &Json,
    request: Request,
) -> Result<Done, Failure> {
    let fields = match request {
        Request::Txn { steps } => json!({"results": transaction::run(client, &steps)?}),
        Request::Query { sql, args } => {
            let result = client.query(&sql, &json::parameters(&args)?)?;
            json!({"columns": result.columns, "rows": json::rows(&result, &UuidColumns::of(&client.schema()))})
        }
        Request::Connect => {
            client.connect()?;
            json!({})
        }
        Request::Disconnect => {
            client.disconnect();
            json!({})
        }
        Request::Status => json!({"status": json::status(client, &client.status())}),
        Request::Outbox { limit } => json!({"outbox": json::outbox(&client.outbox(limit)?)}),
        Request::Quarantine => json!({"quarantine": json::quarantine(&client.quarantine()?)}),
        Request::Resubmit { mutation } => {
            client.resubmit(mutation)?;
            json!({})
        }
        Request::Discard { mutation } => {
            client.discard(mutation)?;
            json!({})
        }
        Request::Digest => json!({"digests": json::digests(client)?}),
        Request::Wait { goal, timeout_ms } => {
            background.wait(id.clone(), goal.into(), timeout_ms)?;
            return Ok(Done::Later);
        }
        Request::Sync { timeout_ms } => {
            background.sync(id.clone(), timeout_ms)?;
            return Ok(Done::Later);
        }
        Request::Watch { sql, args } => {
            background.watch(id.clone(), &sql, &json::parameters(&args)?)?;
            return Ok(Done::Later);
        }
        Request::Unwatch { watch } => {
            background.unwatch(&watch)?;
            json!({})
        }
        Request::Token { token } => {
            client.set_token(&token)?;
            json!({})
        }
        Request::Suspend => {
            client.suspend()?;
            json!({})
        }
        Request::Resume => {
            client.resume()?;
            json!({})
        }
        Request::Exit => return Ok(Done::Exit),
    };
    Ok(Done::Answer(fields))
}

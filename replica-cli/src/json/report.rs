//! Reports of the SDK as JSON.

use farshore_client::client::SyncReport;
use farshore_client::store::{MutationSummary, OutboxEntry, OutboxState, Quarantined};
use farshore_client::{Client, Status, StatusCause};
use serde_json::{Value as Json, json};

use crate::failure::Failure;

/// Where a replica stands.
pub(crate) fn status(client: &Client, status: &Status) -> Json {
    json!({
        "device": client.device().to_string(),
        "tenant": client.tenant().map(|tenant| tenant.to_string()),
        "phase": status.phase_name(),
        "connected": status.is_connected(),
        "synced": status.synced,
        "caught_up": status.caught_up,
        "cause": status.cause.as_ref().map(cause),
        "retry_at_ms": status.retry_at_ms,
        "checkpoint": status.checkpoint,
        "cursor": status.cursor,
        "filled": status.filled,
        "in_step": status.in_step,
        "repairs": status.repairs,
        "unanswered": status.unanswered,
        "unconfirmed": status.unconfirmed,
        "quarantined": status.quarantined,
        "corrections": status.corrections,
        "last_correction_ms": status.last_correction_ms,
        "suspended": status.suspended,
    })
}

/// Why there is no connection.
pub(crate) fn cause(cause: &StatusCause) -> Json {
    json!({"code": cause.code, "message": cause.message, "final": cause.is_final})
}

/// What one sync achieved.
pub(crate) fn sync_report(report: &SyncReport) -> Json {
    json!({
        "complete": report.complete,
        "cause": report.cause.as_ref().map(cause),
        "cursor": report.cursor,
        "advanced": report.advanced,
        "unanswered": report.unanswered,
        "unconfirmed": report.unconfirmed,
        "quarantined": report.quarantined,
        "elapsed_ms": report.elapsed_ms,
    })
}

/// What has not synced yet.
pub(crate) fn outbox(entries: &[OutboxEntry]) -> Json {
    let entry = |entry: &OutboxEntry| {
        let (state, seq) = match entry.state {
            OutboxState::Waiting => ("waiting", None),
            OutboxState::Answered { seq } => ("answered", Some(seq)),
        };
        json!({
            "number": entry.number,
            "state": state,
            "seq": seq,
            "written_at_ms": entry.written_at_ms,
            "mutations": mutations(&entry.mutations),
        })
    };
    entries.iter().map(entry).collect()
}

/// What the server refused. `mutation` is what `resubmit` and `discard` want.
pub(crate) fn quarantine(entries: &[Quarantined]) -> Json {
    let entry = |entry: &Quarantined| {
        json!({
            "mutation": entry.id,
            "number": entry.number,
            "code": entry.code.as_str(),
            "message": entry.message,
            "refused_index": entry.refused_index,
            "since_ms": entry.since_ms,
            "mutations": mutations(&entry.mutations),
        })
    };
    entries.iter().map(entry).collect()
}

fn mutations(mutations: &[MutationSummary]) -> Json {
    let mutation = |mutation: &MutationSummary| {
        json!({
            "collection": mutation.collection,
            "row": mutation.row.to_string(),
            "operation": mutation.operation,
            "columns": mutation.columns,
        })
    };
    mutations.iter().map(mutation).collect()
}

/// The digests of everything held, each 32 hexadecimal digits.
pub(crate) fn digests(client: &Client) -> Result<Json, Failure> {
    let schema = client.schema();
    let digests = client.digests()?;
    let rendered = digests.iter().map(|(scope, collection, sum)| {
        // A number stands in for the name of a collection that the app's schema does not know.
        let known = schema.collection(*collection);
        let name =
            known.map_or_else(|| collection.to_string(), |collection| collection.name.clone());
        json!({"scope": scope.as_str(), "collection": name, "digest": format!("{:032x}", sum.0)})
    });
    Ok(rendered.collect())
}

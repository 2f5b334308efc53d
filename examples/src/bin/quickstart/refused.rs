//! What the server refused waits in a quarantine, with its reason, until somebody decides.

use farshore_client::store::{Quarantined, SqlValue};
use farshore_examples::outcome::{Outcome, ensure_equal};
use farshore_examples::telling::Telling;
use farshore_sync_core::ids::RowId;
use farshore_sync_core::reason::ReasonCode;

use crate::cast::{Cast, ensure_on_all};
use crate::office::Flights;

pub fn discard_and_resubmit(cast: &Cast, flights: &Flights, telling: &Telling) -> Outcome {
    let bruno = &cast.bruno.client;
    let refused = bruno.quarantine()?;
    ensure_equal("transactions in Bruno's quarantine", &2, &refused.len())?;
    for entry in &refused {
        ensure_equal("why it was refused", &ReasonCode::RowDeleted, &entry.code)?;
        let what: Vec<_> = entry.mutations.iter().map(|mutation| mutation.operation).collect();
        let (number, what, code) = (entry.number, what.join(", "), entry.code.as_str());
        telling.line(format!("Bruno's transaction {number} ({what}): {code}: {}", entry.message));
    }

    bruno.discard(about(&refused, flights.gone)?.id)?;
    telling.line("one is discarded");

    cast.alice.client.write(|t| t.restore("flights", flights.restored))?;
    cast.converge()?;
    bruno.resubmit(about(&refused, flights.restored)?.id)?;
    cast.converge()?;
    let id = SqlValue::Bytes(flights.restored.as_bytes().to_vec());
    let note = SqlValue::Text("tows at noon".to_owned());
    ensure_on_all(&cast.devices(), "SELECT note FROM flights WHERE id = ?", &[id], &note)?;
    ensure_equal("transactions in Bruno's quarantine", &0, &bruno.quarantine()?.len())?;
    telling.line("Alice restores the other flight, Bruno submits his edit again, and both have it");
    Ok(())
}

fn about(refused: &[Quarantined], row: RowId) -> Outcome<&Quarantined> {
    let found =
        refused.iter().find(|entry| entry.mutations.iter().any(|mutation| mutation.row == row));
    found.ok_or_else(|| format!("nothing about {row} was refused").into())
}

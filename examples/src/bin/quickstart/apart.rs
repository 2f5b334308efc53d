//! Both devices are offline and work on the same rows; and what both of them see once they have met.

use farshore_client::store::SqlValue;
use farshore_examples::outcome::Outcome;
use farshore_examples::telling::Telling;
use farshore_sync_core::ids::RowId;
use farshore_sync_core::value::Value;

use crate::cast::{Cast, ensure_on_all};
use crate::office::{BLANKETS, Flights};

/// How many transactions Alice wrote before she imported anything.
#[derive(Debug, Clone, Copy)]
pub struct EarlyTransactions(pub u64);

pub fn alice_works(
    cast: &Cast,
    flights: &Flights,
    stock: RowId,
    telling: &Telling,
) -> Outcome<EarlyTransactions> {
    let alice = &cast.alice.client;
    // Each statement is a transaction of its own, as it would be in an app.
    let note = |text| [("note", Value::from(text))];
    alice.write(|t| t.update("flights", flights.different_columns, &note("waits for a crew")))?;
    alice.write(|t| t.update("flights", flights.same_column, &note("moved to gate 12")))?;
    alice.write(|t| t.set_add("flights", flights.tagged, "tags", Value::from("vip")))?;
    alice.write(|t| t.delete("flights", flights.gone))?;
    alice.write(|t| t.delete("flights", flights.restored))?;
    alice.write(|t| t.increment("stock", stock, "count", 25))?;
    alice.write(|t| t.increment("stock", stock, "count", -10))?;
    telling.line("two notes, a tag, two flights deleted, 25 blankets in, 10 out");
    Ok(EarlyTransactions(alice.status().unanswered))
}

pub fn bruno_works(cast: &Cast, flights: &Flights, stock: RowId, telling: &Telling) -> Outcome {
    let bruno = &cast.bruno.client;
    let note = |text| [("note", Value::from(text))];
    let delay = [("dep_delay", Value::Int(45))];
    bruno.write(|t| t.update("flights", flights.different_columns, &delay))?;
    bruno.write(|t| t.update("flights", flights.same_column, &note("moved to gate 14")))?;
    bruno.write(|t| t.set_add("flights", flights.tagged, "tags", Value::from("late")))?;
    bruno.write(|t| t.update("flights", flights.gone, &note("cancelled")))?;
    bruno.write(|t| t.update("flights", flights.restored, &note("tows at noon")))?;
    bruno.write(|t| t.increment("stock", stock, "count", -7))?;
    telling.line("a delay, three notes of which two are on flights that Alice deleted, a tag, 7 blankets out");
    Ok(())
}

/// Nothing was lost, and both see the same.
pub fn both_agree(cast: &Cast, flights: &Flights, stock: RowId, telling: &Telling) -> Outcome {
    let devices = cast.devices();
    let check = |select: &str, row: RowId, expected| {
        let id = SqlValue::Bytes(row.as_bytes().to_vec());
        ensure_on_all(&devices, &format!("{select} WHERE id = ?"), &[id], &expected)
    };
    let text = |text: &str| SqlValue::Text(text.to_owned());
    check("SELECT note FROM flights", flights.different_columns, text("waits for a crew"))?;
    check("SELECT dep_delay FROM flights", flights.different_columns, SqlValue::Int(45))?;
    telling.line("different columns of one flight: both edits are there");
    check("SELECT note FROM flights", flights.same_column, text("moved to gate 14"))?;
    telling.line("the same column: the later edit is there, on both");
    check("SELECT tags FROM flights", flights.tagged, text(r#"["late","vip"]"#))?;
    telling.line("a set: both tags are there");
    check("SELECT count FROM stock", stock, SqlValue::Int(BLANKETS + 25 - 10 - 7))?;
    telling.line(format!("a counter: {BLANKETS} + 25 - 10 - 7 blankets, each counted once"));
    for row in [flights.gone, flights.restored] {
        check("SELECT count(*) FROM flights", row, SqlValue::Int(0))?;
    }
    telling.line("flights that one deleted and the other edited: deleted");
    Ok(())
}

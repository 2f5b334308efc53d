//! The first chapter: a server, a tenant, two devices, and a first day of data that both of them have.

use std::path::Path;

use farshore_client::store::SqlValue;
use farshore_examples::device::{Device, PATIENCE};
use farshore_examples::outcome::{Outcome, ensure, ensure_equal};
use farshore_examples::records;
use farshore_examples::server::{Server, TENANT};
use farshore_examples::telling::Telling;
use farshore_sync_core::ids::RowId;
use farshore_sync_core::value::Value;

use crate::cast::Cast;

/// How many blankets there are in the beginning.
pub const BLANKETS: i64 = 100;

/// The flights of 1 January that both devices work on.
#[derive(Debug)]
pub struct Flights {
    /// Each writes another column.
    pub different_columns: RowId,
    /// Both write the same column.
    pub same_column: RowId,
    /// Both add to a set.
    pub tagged: RowId,
    /// Alice deletes it, Bruno edits it, and his edit is discarded.
    pub gone: RowId,
    /// Alice deletes it, Bruno edits it, Alice restores it, and his edit is submitted again.
    pub restored: RowId,
}

/// Starts the server and sets everything up.
pub fn open(home: &Path, telling: &Telling) -> Outcome<Cast> {
    let server = Server::start(&home.join("server"))?;
    telling.line(format!("`farshore serve` listens on {}", server.address()));
    server.create_tenant()?;
    telling
        .line(format!("`farshore tenant create {TENANT}`, `farshore schema apply flights.json`"));
    let alice = Device::set_up(home, "alice", &server)?;
    let bruno = Device::set_up(home, "bruno", &server)?;
    telling.line("`farshore token` for each device; each opens an encrypted database of its own");
    write_first_day(&alice)?;
    for device in [&alice, &bruno] {
        let report = device.client.sync_once(PATIENCE)?;
        ensure(report.complete, || format!("{} did not sync: {:?}", device.name, report.cause))?;
    }
    let count = bruno.count("flights")?;
    ensure_equal("flights on both devices", &alice.count("flights")?, &count)?;
    telling.line(format!(
        "Alice entered {count} flights, a stock list and a note; Bruno has them too"
    ));
    Ok(Cast { server, alice, bruno })
}

fn write_first_day(alice: &Device) -> Outcome {
    let (first_day, _) = records::flights()?.divided("day", |day| day == 1);
    alice.client.write(|transaction| {
        for flight in first_day.rows() {
            transaction.insert(first_day.collection, None, &flight)?;
        }
        let blankets = [("name", Value::from("blankets")), ("site_id", Value::from("EWR"))];
        let blankets = transaction.insert("stock", None, &blankets)?;
        transaction.increment("stock", blankets, "count", BLANKETS)?;
        transaction.insert("notes", None, &[("title", Value::from("Friends forever"))])
    })?;
    Ok(())
}

/// Picks the flights that the next chapters are about.
pub fn pick_flights(cast: &Cast) -> Outcome<Flights> {
    let departing_at = |time| {
        let select = "SELECT id FROM flights WHERE day = 1 AND dep_time = ? AND carrier = 'UA'";
        cast.bruno.id(select, &[SqlValue::Int(time)])
    };
    Ok(Flights {
        different_columns: departing_at(517)?,
        same_column: departing_at(533)?,
        tagged: departing_at(554)?,
        gone: departing_at(559)?,
        restored: departing_at(607)?,
    })
}

/// The row of the stock list.
pub fn stock(cast: &Cast) -> Outcome<RowId> {
    cast.bruno.id("SELECT id FROM stock WHERE name = 'blankets'", &[])
}

//! A query whose results keep coming: each commit that changes them brings the next ones. It needs no server.
#![expect(clippy::print_stdout, reason = "a story is told to whoever runs it")]

use std::sync::Arc;
use std::time::Duration;

use farshore_client::store::SqlValue;
use farshore_client::vault::SealedFile;
use farshore_client::{Client, LiveQuery};
use farshore_examples::SCHEMA;
use farshore_examples::outcome::Outcome;
use farshore_sync_core::value::Value;

const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Outcome {
    let home = tempfile::tempdir()?;
    let vault = Arc::new(SealedFile::new(home.path()));
    let client = Client::builder().dir(home.path()).schema(SCHEMA).vault(vault).build()?;

    // Any SELECT over the collections will do; its first result is there at once.
    let mut low =
        client.live("SELECT name, count FROM stock WHERE count < 10 ORDER BY name", &[])?;
    show("at first", &mut low)?;

    let name = [("name", Value::from("blankets"))];
    let blankets = client.write(|t| t.insert("stock", None, &name))?;
    show("blankets are on the list", &mut low)?;

    client.write(|t| t.increment("stock", blankets, "count", 4))?;
    show("4 have come", &mut low)?;

    // Several writes in one transaction are one commit, and so one result.
    client.write(|t| {
        t.increment("stock", blankets, "count", 40)?;
        let pillows = t.insert("stock", None, &[("name", Value::from("pillows"))])?;
        t.increment("stock", pillows, "count", 3)
    })?;
    show("40 more have come, and 3 pillows", &mut low)
}

fn show(when: &str, live: &mut LiveQuery) -> Outcome {
    let result = live.recv_timeout(PATIENCE).ok_or("the query has nothing new to say")??;
    let lines: Vec<_> = result.rows.iter().map(|row| line(row)).collect();
    println!(
        "{when}: {}",
        if lines.is_empty() { "nothing is low".to_owned() } else { lines.join(", ") }
    );
    Ok(())
}

fn line(row: &[SqlValue]) -> String {
    match row {
        [SqlValue::Text(name), SqlValue::Int(count)] => format!("{count} {name}"),
        other => format!("{other:?}"),
    }
}

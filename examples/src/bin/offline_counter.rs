//! Two devices count the same blankets while neither has a network; when they meet, every count counts once.
#![expect(clippy::print_stdout, reason = "a story is told to whoever runs it")]

use farshore_client::store::SqlValue;
use farshore_examples::device::{Device, PATIENCE};
use farshore_examples::outcome::{Outcome, ensure, ensure_equal};
use farshore_examples::server::Server;
use farshore_sync_core::value::Value;

fn main() -> Outcome {
    let home = tempfile::tempdir()?;
    let server = Server::start(&home.path().join("server"))?;
    server.create_tenant()?;
    let alice = Device::set_up(home.path(), "alice", &server)?;
    let bruno = Device::set_up(home.path(), "bruno", &server)?;

    // Both need the row; it comes to Bruno through the server.
    let name = [("name", Value::from("blankets"))];
    let blankets = alice.client.write(|t| t.insert("stock", None, &name))?;
    sync(&alice)?;
    sync(&bruno)?;

    // From here on nobody has a network.
    alice.client.write(|t| t.increment("stock", blankets, "count", 25))?;
    alice.client.write(|t| t.increment("stock", blankets, "count", -3))?;
    bruno.client.write(|t| t.increment("stock", blankets, "count", 10))?;
    println!("offline: Alice counts {}, Bruno {}", count(&alice)?, count(&bruno)?);

    // Alice's count has to pass the server before Bruno can see it, and the other way round.
    sync(&alice)?;
    sync(&bruno)?;
    sync(&alice)?;
    println!("synced: Alice counts {}, Bruno {}", count(&alice)?, count(&bruno)?);
    ensure_equal("what Alice counts", &32, &count(&alice)?)?;
    ensure_equal("what Bruno counts", &32, &count(&bruno)?)
}

/// Connects, sends everything, takes everything in, and disconnects.
fn sync(device: &Device) -> Outcome {
    let report = device.client.sync_once(PATIENCE)?;
    ensure(report.complete, || format!("{} did not sync: {:?}", device.name, report.cause))
}

fn count(device: &Device) -> Outcome<i64> {
    match device.value("SELECT count FROM stock WHERE name = 'blankets'", &[])? {
        SqlValue::Int(count) => Ok(count),
        other => Err(format!("{other:?} is no count").into()),
    }
}

//! Tenants that are held to a pace: devices wait, nothing is refused, and each transaction counts once.

use serde_json::json;
use system_tests::replica::Replica;
use system_tests::server::{Server, ServerOptions, TENANT};

const BYTES_PER_SECOND: usize = 40_000;
const TRANSACTIONS: usize = 40;
const BYTES_EACH: usize = 4_000;
/// Everything but the last commit is paid for while the device waits, in seconds.
const AT_LEAST_S: f64 = ((TRANSACTIONS - 1) * BYTES_EACH / BYTES_PER_SECOND) as f64;

/// The seconds that tenants were held back.
fn held_back(server: &Server) -> f64 {
    let (_, metrics) = server.get("/metrics").unwrap();
    let line = metrics.lines().find_map(|of| of.strip_prefix("farshore_held_back_seconds_total "));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_tenant_that_pushes_more_than_its_share_waits_and_loses_nothing() {
    let options = ServerOptions::default().set("sync.tenant_bytes_per_second", BYTES_PER_SECOND);
    let server = Server::start(options);
    let mut writer = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    let mut reader = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    for number in 0..TRANSACTIONS {
        let label = format!("{number} {}", "x".repeat(BYTES_EACH));
        writer.insert("items", json!({ "label": label }));
    }
    writer.sync();
    assert!(held_back(&server) > AT_LEAST_S, "{}", held_back(&server));
    assert_eq!(writer.quarantine().len(), 0);
    reader.sync();
    assert_eq!(reader.digest(), writer.digest());
    assert_eq!(reader.number("SELECT count(*) FROM items"), TRANSACTIONS as i64);
    let said = server.log();
    let mut named = said.lines().filter(|of| of.contains("tenant_bytes_per_second")).peekable();
    assert!(named.peek().is_some() && named.all(|of| of.contains(TENANT)), "{said}");
}

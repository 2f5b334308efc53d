//! Rule 7: once tombstones are purged, an old copy is filled anew; nothing rises from the dead, and what was not sent
//! yet is kept.

use farshore_sync_core::wire::{Refill, RowPayload};
use serde_json::json;
use system_tests::backstage::purge_tombstones;
use system_tests::replica::Replica;
use system_tests::server::{Server, ServerOptions, TENANT};
use system_tests::wire::{WireClient, first_hello, returning_hello};

#[test]
fn a_copy_from_before_the_horizon_is_filled_anew_and_resurrects_nothing() {
    let mut server = Server::start(ServerOptions::default());
    let mut away = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    let mut stays = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    let row = |replica: &mut Replica, n: i64| {
        replica.insert("items", json!({"label": format!("row {n}"), "amount": n}))
    };
    let ids: Vec<String> = (1..=6).map(|n| row(&mut stays, n)).collect();
    stays.sync();
    away.sync();
    away.wait_for_number("SELECT count(*) FROM items", 6);
    away.disconnect();

    // 1 to 3 are deleted; 3 and 4 are edited offline by the one who does not know.
    stays.transact(json!([
        ["del", "items", ids[0]],
        ["del", "items", ids[1]],
        ["del", "items", ids[2]]
    ]));
    stays.transact(json!([["put", "items", {"id": ids[4], "label": "edited meanwhile"}]]));
    stays.wait_for("synced");
    stays.disconnect();
    away.transact(json!([["put", "items", {"id": ids[2], "label": "edit of a dead row"}]]));
    away.transact(json!([["put", "items", {"id": ids[3], "label": "unsent edit"}]]));
    away.insert("items", json!({"label": "unsent row", "amount": 100}));

    server.terminate();
    assert_eq!(purge_tombstones(&server, TENANT), 3);
    server.restart();
    assert!(server.digest().horizon > 0);

    away.sync();
    let labels = "SELECT label FROM items ORDER BY amount";
    let expected = ["unsent edit", "edited meanwhile", "row 6", "unsent row"];
    assert_eq!(away.column(labels), expected);
    let quarantine = away.quarantine();
    assert_eq!(quarantine.len(), 1, "{quarantine:?}");
    assert!(
        ["row_missing", "row_deleted"].contains(&quarantine[0]["code"].as_str().unwrap()),
        "{quarantine:?}"
    );

    let mut fresh = Replica::create(&server.url(), &server.token(&["tenant"]));
    fresh.sync();
    assert_eq!(fresh.column(labels), expected);
    stays.sync();
    stays.wait_for_number("SELECT count(*) FROM items", 4);
    assert_eq!(away.digest(), fresh.digest());
    assert_eq!(stays.digest(), fresh.digest());
}

#[test]
fn the_welcome_says_so_only_to_those_below_the_horizon() {
    let mut server = Server::start(ServerOptions::default());
    let (writing, reading) = (server.token(&["tenant:rw"]), server.token(&["tenant"]));
    let mut writer = Replica::create(&server.url(), &writing);
    let rows: Vec<String> =
        (0..3).map(|n| writer.insert("items", json!({"label": "row", "amount": n}))).collect();
    writer.sync();
    let mut reader = WireClient::connect(server.address(), &reading.token).unwrap();
    let before = reader.catch_up(first_hello());
    let grants = before.welcome.grants.clone().unwrap();
    reader.vanish();
    writer.transact(json!([["del", "items", rows[0]]]));
    writer.wait_for("synced");
    let mut reader = WireClient::connect(server.address(), &reading.token).unwrap();
    let after = reader.catch_up(returning_hello(&before, &grants));
    assert_eq!(after.welcome.refill, Refill::No);
    assert!(after.rows().values().any(|payload| matches!(payload, RowPayload::Deleted(_))));
    reader.vanish();

    writer.disconnect();
    server.terminate();
    assert!(purge_tombstones(&server, TENANT) > 0);
    server.restart();
    for (hello, refill) in [
        (returning_hello(&before, &grants), Refill::BelowHorizon),
        (returning_hello(&after, &grants), Refill::No),
        (first_hello(), Refill::No),
    ] {
        let mut reader = WireClient::connect(server.address(), &reading.token).unwrap();
        let caught_up = reader.catch_up(hello);
        assert_eq!(caught_up.welcome.refill, refill);
        assert_eq!(reader.counts.sent_messages, 1, "a refill costs one round trip too");
        let rows = if refill == Refill::No && caught_up.welcome.grants.is_none() { 0 } else { 2 };
        assert_eq!(caught_up.row_count(), rows, "{refill:?}");
    }
}

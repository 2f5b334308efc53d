//! Rule 10: a connection that is only half there is given up by both ends, and trying again is a timer's business:
//! no new write is needed.

use std::time::Duration;

use farshore_sync_core::wire::limits::{HEARTBEAT_MS, SILENCE_LIMIT_MS};
use farshore_sync_core::wire::{FaultCode, ServerFrame};
use serde_json::json;
use system_tests::deadline::{Deadline, LATER, SOON, eventually};
use system_tests::fleet::{fresh_row, insert_large_item};
use system_tests::proxy::{Direction, Proxy};
use system_tests::replica::Replica;
use system_tests::server::{Server, ServerOptions};
use system_tests::wire::{WireClient, first_hello};

const OPEN: &str = "farshore_connections_open";

fn impatient() -> ServerOptions {
    ServerOptions::default().set("sync.heartbeat_ms", 200).set("sync.silence_limit_ms", 800)
}

#[test]
fn the_server_asks_a_silent_device_and_gives_it_up() {
    let server = Server::start(impatient());
    let mut device =
        WireClient::connect(server.address(), &server.token(&["tenant"]).token).unwrap();
    device.catch_up(first_hello());
    let waiting = Deadline::after(SOON);
    let ServerFrame::Ping(_) = device.receive() else { panic!("a ping comes first") };
    assert_eq!(device.expect_fault().code, FaultCode::Silent);
    assert!(waiting.waited() >= Duration::from_millis(700), "{:?}", waiting.waited());
    assert_eq!(server.metric("farshore_faults_total{code=\"silent\"}"), 1);
}

#[test]
fn the_server_lets_go_of_devices_that_vanished_behind_a_dead_wire() {
    let server = Server::start(impatient());
    for direction in [Direction::Up, Direction::Down] {
        let proxy = Proxy::to(server.address());
        let mut replica = Replica::create(&proxy.url(), &server.token(&["tenant:rw"]));
        replica.sync();
        proxy.stall(Direction::Up);
        if direction == Direction::Down {
            // Nothing comes out at the other end either, so that not even the fault arrives.
            proxy.stall(Direction::Down);
        }
        eventually("the server to let go", SOON, || (server.metric(OPEN) == 0).then_some(()));
        replica.insert("items", json!({"label": "into the void", "amount": 1}));
        proxy.flow(Direction::Up);
        proxy.flow(Direction::Down);
        proxy.cut();
        replica.wait_for("synced");
        replica.close();
        eventually("the server to let go", SOON, || (server.metric(OPEN) == 0).then_some(()));
    }
    let mut witness = Replica::create(&server.url(), &server.token(&["tenant"]));
    witness.sync();
    assert_eq!(witness.number("SELECT count(*) FROM items"), 2);
}

#[test]
fn a_device_gives_a_silent_server_up_and_drains_its_queue_without_a_new_write() {
    // The server is patient here: it is the device that has to notice.
    let server = Server::start(ServerOptions::default());
    let proxy = Proxy::to(server.address());
    let mut replica = Replica::create(&proxy.url(), &server.token(&["tenant:rw"]));
    replica.sync();
    proxy.stall(Direction::Up);
    proxy.stall(Direction::Down);
    let waiting = Deadline::after(LATER);
    replica.insert("items", json!({"label": "waits", "amount": 1}));
    let within = Duration::from_millis(SILENCE_LIMIT_MS + HEARTBEAT_MS + 5_000);
    let status = replica.wait_for_status_within("the silence to be noticed", within, |status| {
        status["cause"]["code"] == "silent"
    });
    assert_eq!(status["unanswered"], 1, "{status}");
    assert!(
        waiting.waited() >= Duration::from_millis(SILENCE_LIMIT_MS - 1_000),
        "{:?}",
        waiting.waited()
    );

    // The dead connection stays dead; the next one is the timer's.
    let before = proxy.connections();
    proxy.flow(Direction::Up);
    proxy.flow(Direction::Down);
    replica.wait_for("synced");
    assert!(proxy.connections() > before);
}

#[test]
fn a_queue_drains_by_itself_once_the_server_is_back() {
    let mut server = Server::start(ServerOptions::default());
    let mut replica = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    replica.sync();
    server.kill9();
    replica.wait_for_status("the end of the connection", |status| {
        status["cause"]["code"] == "network"
    });
    replica.insert("items", json!({"label": "while nobody listens", "amount": 1}));
    let status = replica
        .wait_for_status("a time for the next attempt", |status| !status["retry_at_ms"].is_null());
    assert_eq!((&status["synced"], &status["unanswered"]), (&json!(false), &json!(1)), "{status}");
    server.restart();
    replica.wait_for("synced");
    let status = replica.status();
    assert!(status["cause"].is_null(), "{status}");
}

#[test]
fn a_cut_wire_is_a_network_error_and_no_more() {
    let server = Server::start(ServerOptions::default());
    let proxy = Proxy::to(server.address());
    let mut replica = Replica::create(&proxy.url(), &server.token(&["tenant:rw"]));
    replica.sync();
    for round in 1..=10 {
        proxy.refuse();
        replica.insert("items", json!({"label": format!("round {round}"), "amount": round}));
        proxy.accept();
        replica.wait_for("synced");
    }
    let mut witness = Replica::create(&server.url(), &server.token(&["tenant"]));
    witness.sync();
    assert_eq!(witness.number("SELECT count(*) FROM items"), 10);
}

#[test]
fn a_dead_wire_does_not_keep_a_server_from_stopping() {
    let mut server = Server::start(ServerOptions::default().set("server.drain_timeout_ms", 2_000));
    let proxy = Proxy::to(server.address());
    let mut writer =
        WireClient::connect(server.address(), &server.token(&["tenant:rw"]).token).unwrap();
    writer.catch_up(first_hello());
    let mut replica = Replica::create(&proxy.url(), &server.token(&["tenant"]));
    replica.sync();
    proxy.stall(Direction::Down);
    // More than the buffers between the two take.
    for number in 1..=24 {
        writer.commit(number, vec![insert_large_item(fresh_row(), "large", 250_000)]);
    }
    let stopping = Deadline::after(LATER);
    server.terminate();
    assert!(stopping.waited() < SOON, "it took {:?}", stopping.waited());
}

//! Rule 5: downloads never wait for uploads.

use serde_json::json;
use system_tests::proxy::{Direction, Proxy};
use system_tests::replica::{Replica, is_row};
use system_tests::server::{Server, ServerOptions};

#[test]
fn rows_come_down_while_the_way_up_is_stalled() {
    let server = Server::start(ServerOptions::default());
    let proxy = Proxy::to(server.address());
    let mut stalled = Replica::create(&proxy.url(), &server.token(&["tenant:rw"]));
    let mut other = Replica::create(&server.url(), &server.token(&["tenant:rw"]));
    let shared = other.insert("items", json!({"label": "shared", "amount": 1}));
    other.sync();
    stalled.sync();

    proxy.stall(Direction::Up);
    stalled.insert("items", json!({"label": "cannot go up", "amount": 1}));
    stalled.transact(json!([["put", "items", {"id": shared, "amount": 2}]]));
    other.transact(json!([["put", "items", {"id": shared, "label": "renamed elsewhere"}]]));
    other.insert("items", json!({"label": "came down", "amount": 3}));
    stalled.wait_for_number("SELECT count(*) FROM items WHERE label = 'came down'", 1);
    let row = format!("SELECT label || ' ' || amount FROM items WHERE {}", is_row(&shared));
    assert_eq!(
        stalled.value(&row),
        "renamed elsewhere 2",
        "the pending change is laid over the server's row"
    );
    let status = stalled.status();
    assert_eq!((&status["unanswered"], &status["synced"]), (&json!(2), &json!(false)), "{status}");

    proxy.flow(Direction::Up);
    stalled.wait_for("synced");
    other.wait_for_number("SELECT count(*) FROM items WHERE label = 'cannot go up'", 1);
    assert_eq!(other.value(&row), "renamed elsewhere 2");
}

//! Rule 3: a transaction is applied exactly once, and acknowledged after it is durable.

use farshore_sync_core::hlc::Hlc;
use farshore_sync_core::wire::FaultCode;
use system_tests::fleet::{
    ITEMS, SECOND, TALLIES, count_in, count_up, fresh_row, insert_item, insert_tally, transaction,
};
use system_tests::server::{Server, ServerOptions};
use system_tests::wire::{CaughtUp, WireClient, first_hello};

/// Kills in [`what_was_acknowledged_survives_a_kill_at_once`].
const KILLS: u64 = 8;

fn from_scratch(server: &Server) -> CaughtUp {
    WireClient::connect(server.address(), &server.token(&["tenant"]).token)
        .unwrap()
        .catch_up(first_hello())
}

#[test]
fn a_transaction_that_is_sent_again_over_another_connection_is_applied_once() {
    let server = Server::start(ServerOptions::default());
    let token = server.token(&["tenant:rw"]);
    let tally = fresh_row();
    let mut first = WireClient::connect(server.address(), &token.token).unwrap();
    first.catch_up(first_hello());
    first.commit(1, vec![insert_tally(tally, "once")]);
    let answered = first.commit(2, vec![count_up(tally, 5)]);
    // Nobody waits for the answer to the third.
    first.push(3, vec![count_up(tally, 7)]);
    first.vanish();

    let mut second = WireClient::connect(server.address(), &token.token).unwrap();
    second.catch_up(first_hello());
    let again = [2, 3]
        .map(|number| transaction(number, vec![count_up(tally, if number == 2 { 5 } else { 7 })]));
    second.push_all(&again);
    assert_eq!(second.outcome_of(2), answered, "the same answer");
    second.push_all(&again);
    assert_eq!(second.outcome_of(3).refused, None);

    let state = from_scratch(&server).state(TALLIES, tally).unwrap();
    assert_eq!(count_in(&state, SECOND), 12);
}

#[test]
fn the_same_transaction_twice_in_flight_is_applied_once() {
    let server = Server::start(ServerOptions::default());
    let tally = fresh_row();
    let mut device =
        WireClient::connect(server.address(), &server.token(&["tenant:rw"]).token).unwrap();
    device.catch_up(first_hello());
    device.commit(1, vec![insert_tally(tally, "twice")]);
    for _ in 0..10 {
        device.push(2, vec![count_up(tally, 3)]);
    }
    for _ in 0..10 {
        assert_eq!(device.outcome_of(2).refused, None);
    }
    assert_eq!(count_in(&from_scratch(&server).state(TALLIES, tally).unwrap(), SECOND), 3);
}

#[test]
fn other_content_under_the_same_number_is_a_fork() {
    let server = Server::start(ServerOptions::default());
    let token = server.token(&["tenant:rw"]);
    let mut device = WireClient::connect(server.address(), &token.token).unwrap();
    device.catch_up(first_hello());
    device.commit(1, vec![insert_item(fresh_row(), "the original", 1)]);
    let impostor = fresh_row();
    device.push(1, vec![insert_item(impostor, "the clone", 1)]);
    let fault = device.expect_fault();
    assert_eq!(fault.code, FaultCode::ReplicaForked, "{}", fault.message);
    assert_eq!(from_scratch(&server).state(ITEMS, impostor), None);

    let mut with_another_stamp = transaction(1, vec![insert_item(impostor, "the clone", 1)]);
    with_another_stamp.stamp = Hlc(with_another_stamp.stamp.0 + 1);
    let mut device = WireClient::connect(server.address(), &token.token).unwrap();
    device.catch_up(first_hello());
    device.push_all(&[with_another_stamp]);
    assert_eq!(device.expect_fault().code, FaultCode::ReplicaForked);
}

#[test]
fn what_was_acknowledged_survives_a_kill_at_once() {
    let mut server = Server::start(ServerOptions::default());
    let token = server.token(&["tenant:rw"]);
    let mut rows = Vec::new();
    for number in 1..=KILLS {
        let mut device = WireClient::connect(server.address(), &token.token).unwrap();
        device.catch_up(first_hello());
        let row = fresh_row();
        device.commit(number, vec![insert_item(row, "acknowledged", 1)]);
        server.kill9();
        rows.push(row);
        server.restart();
        let caught_up = from_scratch(&server);
        for row in &rows {
            assert!(caught_up.state(ITEMS, *row).is_some(), "lost after kill {number}");
        }
        assert_eq!(caught_up.row_count(), rows.len());
    }
}

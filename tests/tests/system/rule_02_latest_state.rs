//! Rule 2: a pull costs rows changed, never operations made; a row that leaves a scope says so there.

use farshore_sync_core::wire::{RowPayload, ServerFrame};
use system_tests::fleet::{
    FIRST, ITEMS, VISITS, fresh_row, insert_item, insert_visit, move_visit, relabel_item, text_in,
    transaction,
};
use system_tests::server::{Server, ServerOptions};
use system_tests::wire::{WireClient, first_hello, returning_hello};

#[test]
fn a_thousand_edits_of_a_row_cost_one_row() {
    let server = Server::start(ServerOptions::default());
    let reading = server.token(&["tenant"]);
    let mut writer =
        WireClient::connect(server.address(), &server.token(&["tenant:rw"]).token).unwrap();
    writer.catch_up(first_hello());
    let row = fresh_row();
    writer.commit(1, vec![insert_item(row, "edit 0", 1)]);
    let mut reader = WireClient::connect(server.address(), &reading.token).unwrap();
    let before = reader.catch_up(first_hello());
    let grants = before.welcome.grants.clone().unwrap();
    reader.vanish();

    for hundred in 0..10 {
        let edit = |n: u64| transaction(1 + n, vec![relabel_item(row, &format!("edit {n}"))]);
        writer.push_all(&(hundred * 100 + 1..=hundred * 100 + 100).map(edit).collect::<Vec<_>>());
    }
    assert_eq!(writer.outcome_of(1_001).refused, None);

    let mut reader = WireClient::connect(server.address(), &reading.token).unwrap();
    let after = reader.catch_up(returning_hello(&before, &grants));
    assert_eq!(after.row_count(), 1, "the latest state and nothing of its history");
    let state = after.state(ITEMS, row).unwrap();
    assert_eq!(text_in(&state, FIRST).as_deref(), Some("edit 1000"));
    assert!(reader.counts.received_bytes < 500, "{:?}", reader.counts);
}

#[test]
fn a_row_that_moves_departs_from_one_scope_and_arrives_in_the_other() {
    let server = Server::start(ServerOptions::default());
    let both = ["site/1:rw", "site/2:rw"];
    let mut writer = WireClient::connect(server.address(), &server.token(&both).token).unwrap();
    writer.catch_up(first_hello());
    let row = fresh_row();
    writer.commit(1, vec![insert_visit(row, "1", "inspection")]);

    let connect = |scope: &str| {
        let mut device =
            WireClient::connect(server.address(), &server.token(&[scope]).token).unwrap();
        let caught_up = device.catch_up(first_hello());
        (device, caught_up)
    };
    let (mut first, at_first) = connect("site/1");
    let (mut second, at_second) = connect("site/2");
    assert!(at_first.state(VISITS, row).is_some());
    assert_eq!(at_second.row_count(), 0);

    writer.commit(2, vec![move_visit(row, "2")]);
    let next_row = |device: &mut WireClient| {
        device.receive_until("the move", |frame| match frame {
            ServerFrame::Page(page) => page.rows.into_iter().find(|entry| entry.row == row),
            _ => None,
        })
    };
    assert_eq!(next_row(&mut first).payload, RowPayload::Departed);
    let RowPayload::State(state) = next_row(&mut second).payload else { panic!("the row arrives") };
    assert_eq!(text_in(&state, FIRST).as_deref(), Some("2"));

    let (_, from_scratch) = connect("site/1");
    assert_eq!(from_scratch.state(VISITS, row), None, "whoever comes later sees nothing of it");
}

#[test]
fn moving_a_row_takes_the_right_to_write_in_both_scopes() {
    let server = Server::start(ServerOptions::default());
    let grants = ["site/1:rw", "site/2:r"];
    let mut writer = WireClient::connect(server.address(), &server.token(&grants).token).unwrap();
    writer.catch_up(first_hello());
    let row = fresh_row();
    writer.commit(1, vec![insert_visit(row, "1", "inspection")]);
    for (number, site) in [(2, "2"), (3, "3")] {
        writer.push(number, vec![move_visit(row, site)]);
        let refused = writer.outcome_of(number).refused.expect("it may not write there");
        assert_eq!(refused.code.as_str(), "permission_denied", "site/{site}");
    }
}

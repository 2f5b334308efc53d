//! Rule 6: a transaction is visible whole or not at all, and the cursor is stored with the rows that it covers.

use farshore_sync_core::mutation::{Mutation, Op};
use farshore_sync_core::value::Value;
use system_tests::deadline::{LATER, eventually};
use system_tests::fleet::{ITEMS, SECOND, cells, fresh_row, insert_item, insert_large_item};
use system_tests::proxy::{Direction, Proxy};
use system_tests::replica::Replica;
use system_tests::server::{Server, ServerOptions};
use system_tests::wire::{WireClient, first_hello};

/// Rows of the large transaction: with [`BODY_BYTES`] each they fill several pages, and just fit a transaction.
const ROWS: i64 = 18;
const BODY_BYTES: usize = 100_000;
/// Bytes after which the wire goes dead: beyond the first page, before the last.
const CUT_AFTER_BYTES: u64 = 700_000;
/// Transfers in [`a_reader_never_sees_half_a_transfer`].
const TRANSFERS: u64 = 150;

const WHOLE: &str = "SELECT count(*) FROM items WHERE label = 'whole'";

fn commit_large_transaction(writer: &mut WireClient) {
    let rows = (0..ROWS).map(|_| insert_large_item(fresh_row(), "whole", BODY_BYTES));
    writer.commit(1, rows.collect());
}

#[test]
fn a_transaction_of_many_pages_appears_at_once() {
    let server = Server::start(ServerOptions::default());
    let proxy = Proxy::to(server.address());
    let mut writer =
        WireClient::connect(server.address(), &server.token(&["tenant:rw"]).token).unwrap();
    writer.catch_up(first_hello());
    let mut replica = Replica::create(&proxy.url(), &server.token(&["tenant"]));
    replica.sync();
    replica.disconnect();
    commit_large_transaction(&mut writer);

    replica.connect();
    let mut looks = 0;
    eventually("the transaction", LATER, || {
        let seen = replica.number(WHOLE);
        assert!(seen == 0 || seen == ROWS, "{seen} of {ROWS} rows are visible");
        looks += 1;
        (seen == ROWS).then_some(())
    });
    assert!(looks > 1, "the reader looked before it was there");
}

#[test]
fn a_kill_in_the_middle_of_a_catch_up_leaves_rows_and_cursor_as_they_were() {
    let server = Server::start(ServerOptions::default());
    let proxy = Proxy::to(server.address());
    let mut writer =
        WireClient::connect(server.address(), &server.token(&["tenant:rw"]).token).unwrap();
    writer.catch_up(first_hello());
    let mut replica = Replica::create(&proxy.url(), &server.token(&["tenant"]));
    replica.sync();
    let cursor = replica.status()["cursor"].clone();
    replica.disconnect();
    commit_large_transaction(&mut writer);

    proxy.stall_after(Direction::Down, CUT_AFTER_BYTES);
    replica.connect();
    eventually("the wire to go dead", LATER, || proxy.is_stalled(Direction::Down).then_some(()));
    replica.wait_for("connected");
    assert_eq!(replica.number(WHOLE), 0);
    replica.kill9();
    proxy.cut();
    proxy.flow(Direction::Down);

    replica.open();
    assert_eq!((replica.number(WHOLE), replica.status()["cursor"].clone()), (0, cursor.clone()));
    let before = proxy.passed(Direction::Down);
    replica.connect();
    replica.wait_for("caught_up");
    assert_eq!(replica.number(WHOLE), ROWS);
    assert!(replica.status()["cursor"].as_u64() > cursor.as_u64());
    let again = proxy.passed(Direction::Down) - before;
    assert!(again < 2 * BODY_BYTES as u64 * ROWS as u64, "{again} bytes for the rest");
}

#[test]
fn a_reader_never_sees_half_a_transfer() {
    let server = Server::start(ServerOptions::default());
    let mut writer =
        WireClient::connect(server.address(), &server.token(&["tenant:rw"]).token).unwrap();
    writer.catch_up(first_hello());
    let (from, to) = (fresh_row(), fresh_row());
    writer.commit(1, vec![insert_item(from, "from", 1_000), insert_item(to, "to", 0)]);
    let mut replica = Replica::create(&server.url(), &server.token(&["tenant"]));
    replica.sync();

    for number in 1..=TRANSFERS {
        let moved = i64::try_from(number).unwrap();
        let set = |row, amount| Mutation {
            collection: ITEMS,
            row,
            op: Op::Update { cells: cells([(SECOND, Value::Int(amount))]) },
        };
        writer.push(1 + number, vec![set(from, 1_000 - moved), set(to, moved)]);
        assert_eq!(
            replica.number("SELECT sum(amount) FROM items"),
            1_000,
            "after {number} transfers"
        );
    }
    let all = i64::try_from(TRANSFERS).unwrap();
    replica.wait_for_number("SELECT amount FROM items WHERE label = 'to'", all);
    assert_eq!(replica.number("SELECT sum(amount) FROM items"), 1_000);
}

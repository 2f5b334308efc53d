//! Rule 1: catching up costs one round trip.

use farshore_sync_core::wire::{Hello, Refill, ServerFrame};
use system_tests::fleet::{ITEMS, fresh_row, insert_item, insert_large_item, transaction};
use system_tests::server::{Server, ServerOptions};
use system_tests::wire::{WireClient, encoded, first_hello, returning_hello};

/// What a device to which nothing happened may pay for coming back, in bytes of messages both ways.
const MAX_IDLE_RECONNECT_BYTES: usize = 300;

#[test]
fn a_device_that_was_never_there_gets_everything_for_one_message() {
    let server = Server::start(ServerOptions::default());
    let mut writer =
        WireClient::connect(server.address(), &server.token(&["tenant:rw"]).token).unwrap();
    writer.catch_up(first_hello());
    let rows: Vec<_> = (0..20).map(|_| fresh_row()).collect();
    for (number, row) in (1..).zip(&rows) {
        writer.commit(number, vec![insert_large_item(*row, "large", 100_000)]);
    }

    let mut reader =
        WireClient::connect(server.address(), &server.token(&["tenant"]).token).unwrap();
    let caught_up = reader.catch_up(first_hello());
    assert_eq!(reader.counts.sent_messages, 1, "Hello and nothing else");
    assert!(caught_up.pages.len() > 2, "{} pages hold 2 MB", caught_up.pages.len());
    assert!(rows.iter().all(|row| caught_up.state(ITEMS, *row).is_some()));
    assert_eq!((caught_up.row_count(), caught_up.seq), (20, caught_up.welcome.head));
}

#[test]
fn a_device_that_comes_back_pays_for_what_changed_and_an_idle_one_next_to_nothing() {
    let server = Server::start(ServerOptions::default());
    let (writing, reading) = (server.token(&["tenant:rw"]), server.token(&["tenant"]));
    let mut writer = WireClient::connect(server.address(), &writing.token).unwrap();
    writer.catch_up(first_hello());
    let push: Vec<_> =
        (1..=1_000).map(|n| transaction(n, vec![insert_item(fresh_row(), "row", 1)])).collect();
    writer.push_all(&push);
    assert_eq!(writer.outcome_of(1_000).refused, None);

    let mut reader = WireClient::connect(server.address(), &reading.token).unwrap();
    let first = reader.catch_up(first_hello());
    assert_eq!(first.row_count(), 1_000);
    let grants = first.welcome.grants.clone().expect("the first welcome names the scopes");
    reader.vanish();
    (1_001..=1_010).for_each(|number| {
        writer.commit(number, vec![insert_item(fresh_row(), "later", 1)]);
    });

    let mut reader = WireClient::connect(server.address(), &reading.token).unwrap();
    let second = reader.catch_up(returning_hello(&first, &grants));
    assert_eq!((reader.counts.sent_messages, second.row_count()), (1, 10));
    assert_eq!((second.welcome.refill, &second.welcome.grants), (Refill::No, &None));
    reader.vanish();

    let mut reader = WireClient::connect(server.address(), &reading.token).unwrap();
    let third = reader.catch_up(returning_hello(&second, &grants));
    let bytes = reader.counts.sent_bytes + reader.counts.received_bytes;
    assert_eq!((reader.counts.sent_messages, third.row_count()), (1, 0));
    assert!(bytes <= MAX_IDLE_RECONNECT_BYTES, "{bytes} bytes: {:?}", reader.counts);
}

#[test]
fn the_first_transactions_travel_with_hello() {
    let server = Server::start(ServerOptions::default());
    let mut device =
        WireClient::connect(server.address(), &server.token(&["tenant:rw"]).token).unwrap();
    let row = fresh_row();
    let transactions = encoded(&[transaction(1, vec![insert_item(row, "with hello", 7)])]);
    let mut caught_up = device.catch_up(Hello { transactions, next_number: 2, ..first_hello() });
    assert_eq!(caught_up.outcomes.len(), 1, "the answer comes before what it may show");
    assert_eq!(caught_up.outcomes[0].refused, None);
    // The first checkpoint may be the one of before the commit.
    while caught_up.seq < caught_up.outcomes[0].seq {
        let (page, seq) = device.receive_until("the next checkpoint", |frame| match frame {
            ServerFrame::Page(page) => page.checkpoint.map(|checkpoint| (page, checkpoint.seq)),
            _ => None,
        });
        caught_up.pages.push(page);
        caught_up.seq = seq;
    }
    assert!(caught_up.state(ITEMS, row).is_some(), "the checkpoint shows what the device pushed");
    assert_eq!(device.counts.sent_messages, 1);
}

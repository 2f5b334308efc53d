//! What a device may not send: each has a fault with a name, and the server lives on.

use farshore_api::envelope;
use farshore_sync_core::digest::Sum;
use farshore_sync_core::hlc::Hlc;
use farshore_sync_core::mutation::Transaction;
use farshore_sync_core::wire::limits::{MAX_FRAME_BYTES, MAX_MESSAGE_BYTES};
use farshore_sync_core::wire::{ClientFrame, FaultCode, Frame as _, Hello, Push, ServerFrame};
use system_tests::fleet::{FIRST, ITEMS, fresh_row, insert_item, text_in, transaction};
use system_tests::server::{Server, ServerOptions};
use system_tests::wire::{WireClient, encoded, first_hello};
use tokio_tungstenite::tungstenite::Message;

/// Milliseconds of the year 2099.
const YEAR_2099_MS: u64 = 4_070_908_800_000;
/// Milliseconds of 12 hours: far more than a test takes.
const HALF_A_DAY_MS: u64 = 12 * 3_600_000;

struct Bench {
    server: Server,
    token: String,
}

impl Bench {
    fn new() -> Self {
        let server = Server::start(ServerOptions::default().set("sync.hello_timeout_ms", 2_000));
        let token = server.token(&["tenant:rw"]).token;
        Self { server, token }
    }

    fn connect(&self) -> WireClient {
        WireClient::connect(self.server.address(), &self.token).unwrap()
    }

    fn in_step(&self) -> WireClient {
        let mut device = self.connect();
        device.catch_up(first_hello());
        device
    }

    /// The server answers, and serves a device.
    fn check_alive(&self) {
        assert_eq!(self.server.get("/healthz").unwrap().0, 200);
        self.in_step();
    }
}

fn check(device: &mut WireClient, what: &str, code: FaultCode) {
    let fault = device.expect_fault();
    assert_eq!(fault.code, code, "{what}: {}", fault.message);
}

#[test]
fn messages_that_hold_no_frame() {
    let bench = Bench::new();
    let zstd = |bytes: Vec<u8>| [vec![1], bytes].concat();
    let bomb = zstd(zstd::bulk::compress(&vec![0; 256 << 20], 1).unwrap());
    assert!(bomb.len() < 100_000);
    let hello = envelope::seal(&ClientFrame::Hello(first_hello()).to_bytes());
    let mut with_a_tail = hello.clone();
    with_a_tail.push(0);
    let messages = [
        ("nothing", vec![]),
        ("garbage", vec![0xff; 100]),
        ("an unknown encoding", vec![9, 1, 2, 3]),
        ("cbor that is no frame", vec![0, 0x83, 1, 2, 3]),
        ("a frame of the future", envelope::seal(&[0x82, 0x18, 0x63, 0x80])),
        ("half a frame", hello[..hello.len() / 2].to_vec()),
        ("a frame and more", with_a_tail),
        ("a zstd bomb", bomb),
        ("zstd without its size", zstd(zstd::stream::encode_all(&[7_u8; 5_000][..], 1).unwrap())),
        (
            "an oversize frame",
            zstd(zstd::bulk::compress(&vec![0; MAX_FRAME_BYTES + 1], 1).unwrap()),
        ),
        (
            "an endless list",
            envelope::seal(&[
                0x82, 0x01, 0x81, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ]),
        ),
    ];
    for (what, message) in messages {
        for greeted in [false, true] {
            let mut device = if greeted { bench.in_step() } else { bench.connect() };
            device.send_bytes(message.clone());
            check(&mut device, what, FaultCode::Protocol);
        }
    }
    let mut device = bench.connect();
    device.send_message(Message::text("{\"hello\": true}"));
    check(&mut device, "a text message", FaultCode::Protocol);
    bench.check_alive();
}

#[test]
fn a_message_beyond_the_limit_is_refused_without_being_read() {
    let bench = Bench::new();
    let mut device = bench.in_step();
    device.send_bytes(vec![0; MAX_MESSAGE_BYTES + 1]);
    check(&mut device, "an oversize message", FaultCode::Protocol);
    bench.check_alive();
}

#[test]
fn frames_out_of_order() {
    let bench = Bench::new();
    let push = |number| {
        ClientFrame::Push(Push {
            settled: 0,
            transactions: encoded(&[transaction(number, vec![])]),
        })
    };
    for (what, frame) in [
        ("Push before Hello", push(1)),
        ("Resume before Hello", ClientFrame::Resume(vec![])),
        ("Compare before Hello", ClientFrame::Compare(vec![])),
        ("Buckets before Hello", ClientFrame::Buckets(vec![])),
        ("Token before Hello", ClientFrame::Token("x".into())),
    ] {
        let mut device = bench.connect();
        device.send(&frame);
        check(&mut device, what, FaultCode::Protocol);
    }
    for (what, frame) in [
        ("Hello twice", ClientFrame::Hello(first_hello())),
        ("Resume unasked", ClientFrame::Resume(vec![])),
    ] {
        let mut device = bench.in_step();
        device.send(&frame);
        check(&mut device, what, FaultCode::Protocol);
    }
    let mut device = bench.connect();
    device.send(&ClientFrame::Hello(first_hello()));
    device.send(&ClientFrame::Hello(first_hello()));
    check(&mut device, "Hello twice at once", FaultCode::Protocol);
    bench.check_alive();
}

#[test]
fn hello_that_the_server_cannot_serve() {
    let bench = Bench::new();
    for (what, hello, code) in [
        (
            "another protocol",
            Hello { protocol: 99, ..first_hello() },
            FaultCode::UnsupportedVersion,
        ),
        ("a newer schema", Hello { schema_version: 99, ..first_hello() }, FaultCode::SchemaTooNew),
    ] {
        let mut device = bench.connect();
        device.send(&ClientFrame::Hello(hello));
        check(&mut device, what, code);
    }
    let mut silent = bench.connect();
    check(&mut silent, "no hello at all", FaultCode::Silent);
    bench.check_alive();
}

#[test]
fn transactions_that_are_none() {
    let bench = Bench::new();
    let bytes = |bytes: &[u8]| {
        ClientFrame::Push(Push { settled: 0, transactions: vec![bytes.to_vec().into()] })
    };
    let many = |numbers: &[u64]| {
        let transactions: Vec<Transaction> =
            numbers.iter().map(|n| transaction(*n, vec![])).collect();
        ClientFrame::Push(Push { settled: 0, transactions: encoded(&transactions) })
    };
    for (what, frame) in [
        ("no transaction", bytes(&[0xff, 0xff])),
        ("nothing", bytes(&[])),
        ("numbers that fall", many(&[2, 1])),
        ("a number twice", many(&[1, 1])),
        ("number zero", many(&[0])),
    ] {
        let mut device = bench.in_step();
        device.send(&frame);
        check(&mut device, what, FaultCode::Protocol);
    }
    // A number and then nonsense: refused or a fault, never applied, and never the end of the server.
    let mut device = bench.in_step();
    device.send(&bytes(&[0x83, 0x01, 0x00, 0x81, 0xff]));
    device.receive_within(std::time::Duration::from_secs(5));
    bench.check_alive();
}

#[test]
fn a_flood_of_comparisons_is_answered_or_refused_and_the_server_lives_on() {
    let bench = Bench::new();
    let mut device = bench.in_step();
    let totals: Vec<_> =
        (0..1_000).map(|n| (format!("scope/{n}").parse().unwrap(), ITEMS, Sum(n))).collect();
    for _ in 0..200 {
        device.send(&ClientFrame::Compare(totals.clone()));
    }
    bench.check_alive();
}

#[test]
fn a_clock_that_is_years_ahead_keeps_its_writes_and_is_corrected() {
    let bench = Bench::new();
    let mut device = bench.in_step();
    let (row, next) = (fresh_row(), fresh_row());
    let from_the_future = |number, mutations| Transaction {
        stamp: Hlc::from_wall_ms(YEAR_2099_MS + number),
        ..transaction(number, mutations)
    };
    device.push_all(&[
        from_the_future(1, vec![insert_item(row, "from 2099", 1)]),
        from_the_future(2, vec![insert_item(next, "a moment later", 1)]),
    ]);
    let mut outcomes = Vec::new();
    device.receive_until("two outcomes", |frame| match frame {
        ServerFrame::Outcomes(some) => {
            outcomes.extend(some);
            (outcomes.len() == 2).then_some(())
        }
        _ => None,
    });
    let corrected: Vec<Hlc> =
        outcomes.iter().map(|outcome| outcome.corrected.expect("it was far ahead")).collect();
    assert!(corrected[0] < corrected[1], "the order of one device's writes stays");

    let caught_up = bench.connect().catch_up(first_hello());
    let now_ms = caught_up.welcome.server_time_ms;
    assert!(
        corrected[1].wall_ms().abs_diff(now_ms) < HALF_A_DAY_MS,
        "{corrected:?} is not about now: {now_ms}"
    );
    assert_eq!(text_in(&caught_up.state(ITEMS, row).unwrap(), FIRST).as_deref(), Some("from 2099"));
}

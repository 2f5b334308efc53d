//! The bytes of each frame, pinned by the files in `sync-core/tests/golden`.
//!
//! A difference here is a change of the protocol: old devices are out there and speak the old bytes.
//! `FARSHORE_BLESS=1 cargo test -p farshore-sync-core golden` writes the files anew.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{
    BucketListing, Checkpoint, ChunkEntry, ClientFrame, Fault, FaultCode, Frame, FrameError, Grant,
    Hello, Page, PositionUpdate, Push, PushOutcome, Refill, RefusedMutation, Repair, Rights,
    RowEntry, RowPayload, ScopePosition, ServerFrame, SumsEntry, Welcome,
};
use crate::digest::Sum;
use crate::hlc::{Hlc, Stamp};
use crate::ids::{CollectionId, ColumnId, DeviceId, RowId, Scope};
use crate::mutation::{Cells, Mutation, Op, Transaction};
use crate::reason::ReasonCode;
use crate::row::RowState;
use crate::value::Value;

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

const ROW: RowId = RowId::from_bytes([0x11; 16]);
const DEVICE: DeviceId = DeviceId::from_bytes([0xdd; 16]);
const STAMP: Stamp = Stamp { hlc: Hlc::from_wall_ms(1_700_000_000_000), device: DEVICE };

fn transaction() -> Transaction {
    let (collection, row) = (CollectionId(4), ROW);
    let ops = [
        Op::Insert {
            cells: Cells::new(vec![
                (ColumnId(1), Value::Int(2013)),
                (ColumnId(2), Value::from("EWR")),
                (ColumnId(3), Value::Null),
                (ColumnId(4), Value::from(1.5)),
                (ColumnId(5), Value::Timestamp(1_357_034_400_000_000)),
                (ColumnId(6), Value::Uuid([7; 16])),
                (ColumnId(7), Value::Json("{}".into())),
                (ColumnId(8), Value::Bool(true)),
                (ColumnId(9), Value::Bytes(vec![0, 1])),
            ]),
        },
        Op::Update { cells: Cells::new(vec![(ColumnId(2), Value::from("LGA"))]) },
        Op::Delete,
        Op::Restore,
        Op::Increment { column: ColumnId(10), delta: -3 },
        Op::SetAdd { column: ColumnId(11), element: Value::from("late") },
        Op::SetRemove { column: ColumnId(11), element: Value::from("late"), observed: vec![STAMP] },
        Op::Document { column: ColumnId(12), change: vec![1, 2, 3] },
        Op::Offer { state: Box::new(state()) },
    ];
    let mutations = ops.into_iter().map(|op| Mutation { collection, row, op }).collect();
    Transaction { number: 7, stamp: STAMP.hlc, mutations }
}

fn state() -> RowState {
    let apply = |row: Option<&RowState>, op: Op, hlc: u64| {
        RowState::apply(
            row.cloned(),
            op,
            Stamp { hlc: Hlc(STAMP.hlc.0 + hlc), device: DEVICE },
            None,
        )
        .unwrap()
    };
    let cells = Cells::new(vec![(ColumnId(1), Value::Int(1)), (ColumnId(2), Value::from("a"))]);
    let row = apply(None, Op::Insert { cells }, 0);
    let row = apply(
        Some(&row),
        Op::Update { cells: Cells::new(vec![(ColumnId(2), Value::from("b"))]) },
        1,
    );
    let row = apply(Some(&row), Op::Increment { column: ColumnId(3), delta: 5 }, 2);
    let row = apply(Some(&row), Op::SetAdd { column: ColumnId(4), element: Value::Int(9) }, 3);
    let row = apply(Some(&row), Op::Document { column: ColumnId(5), change: vec![] }, 4);
    apply(Some(&apply(Some(&row), Op::Delete, 5)), Op::Restore, 6)
}

fn client_frames() -> Vec<(&'static str, ClientFrame)> {
    let hello = Hello {
        protocol: 1,
        schema_version: 3,
        epoch: 9,
        scopes_hash: Sum(0x0102),
        cursor: 1_000_000,
        positions: vec![],
        settled: 6,
        next_number: 8,
        transactions: vec![],
    };
    let first = Hello {
        positions: vec![ScopePosition { scope: scope("site/7"), seq: 12 }],
        transactions: vec![transaction().encode().into()],
        ..hello.clone()
    };
    let push = Push { settled: 6, transactions: vec![transaction().encode().into()] };
    let listing = BucketListing {
        scope: scope("tenant"),
        collection: CollectionId(4),
        bucket: 255,
        hashes: vec![1; 16].into(),
    };
    vec![
        ("client-hello-idle", ClientFrame::Hello(hello)),
        ("client-hello-first", ClientFrame::Hello(first)),
        (
            "client-resume",
            ClientFrame::Resume(vec![ScopePosition { scope: scope("site/7"), seq: 12 }]),
        ),
        ("client-push", ClientFrame::Push(push)),
        ("client-compare", ClientFrame::Compare(vec![(scope("tenant"), CollectionId(4), Sum(5))])),
        ("client-buckets", ClientFrame::Buckets(vec![listing])),
        ("client-token", ClientFrame::Token("a.b.c".into())),
        ("client-ping", ClientFrame::Ping(1)),
        ("client-pong", ClientFrame::Pong(2)),
    ]
}

fn server_frames() -> Vec<(&'static str, ServerFrame)> {
    let grants = vec![Grant { scope: scope("tenant"), rights: Rights::Write }];
    let welcome = Welcome {
        server_time_ms: 1_700_000_000_000,
        epoch: 9,
        head: 1_000_000,
        high_water: 7,
        schema_version: 3,
        grants: None,
        digest_key: None,
        refill: Refill::No,
    };
    let first = Welcome {
        grants: Some(grants.clone()),
        digest_key: Some([5; 32].into()),
        refill: Refill::BelowHorizon,
        ..welcome.clone()
    };
    let entry = |payload| RowEntry { scope: 0, collection: CollectionId(4), row: ROW, payload };
    let chunk = ChunkEntry {
        collection: CollectionId(4),
        row: ROW,
        column: ColumnId(12),
        change: vec![1, 2].into(),
    };
    let rows = vec![
        entry(RowPayload::State(state().encode().into())),
        entry(RowPayload::Deleted(STAMP)),
        entry(RowPayload::Departed),
    ];
    let page = Page {
        rows: rows.clone(),
        chunks: vec![chunk.clone()],
        positions: vec![PositionUpdate { scope: 0, seq: 12 }],
        checkpoint: Some(Checkpoint { seq: 13, root: Sum(6) }),
    };
    let outcomes = vec![
        PushOutcome { number: 7, seq: 13, refused: None, corrected: Some(STAMP.hlc) },
        PushOutcome {
            number: 8,
            seq: 13,
            refused: Some(RefusedMutation {
                index: 0,
                code: ReasonCode::RowDeleted,
                message: "gone".into(),
            }),
            corrected: None,
        },
    ];
    let sums = SumsEntry {
        scope: scope("tenant"),
        collection: CollectionId(4),
        buckets: vec![0; 4].into(),
    };
    let fault =
        Fault { code: FaultCode::Overloaded, message: "later".into(), retry_after_ms: Some(500) };
    vec![
        ("server-welcome-idle", ServerFrame::Welcome(welcome)),
        ("server-welcome-first", ServerFrame::Welcome(first)),
        ("server-page", ServerFrame::Page(page)),
        (
            "server-page-idle",
            ServerFrame::Page(Page {
                checkpoint: Some(Checkpoint { seq: 13, root: Sum(6) }),
                ..Page::default()
            }),
        ),
        ("server-outcomes", ServerFrame::Outcomes(outcomes)),
        ("server-sums", ServerFrame::Sums(vec![sums])),
        (
            "server-repair",
            ServerFrame::Repair(Repair { rows, chunks: vec![chunk], unknown: vec![1; 8].into() }),
        ),
        ("server-scopes", ServerFrame::Scopes(grants)),
        ("server-fault", ServerFrame::Fault(fault)),
        ("server-ping", ServerFrame::Ping(1)),
        ("server-pong", ServerFrame::Pong(2)),
    ]
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2 + bytes.len() / 32 + 1);
    for line in bytes.chunks(32) {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    text
}

fn check<F: Frame + PartialEq + std::fmt::Debug>(name: &str, frame: &F) {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"));
    let bytes = frame.to_bytes();
    if option_env!("FARSHORE_BLESS").is_some() {
        std::fs::write(&path, hex(&bytes)).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(hex(&bytes), golden, "{name}: the protocol changed");
    assert_eq!(&F::from_bytes(&bytes).unwrap(), frame, "{name}");
    for cut in 0..bytes.len() {
        assert!(
            matches!(F::from_bytes(&bytes[..cut]), Err(FrameError::Malformed(_))),
            "{name} cut at {cut}"
        );
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(F::from_bytes(&longer).is_err(), "{name} with a byte behind it");
}

#[test]
fn golden_frames_keep_their_bytes() {
    client_frames().iter().for_each(|(name, frame)| check(name, frame));
    server_frames().iter().for_each(|(name, frame)| check(name, frame));
}

#[test]
fn every_golden_file_has_its_frame() {
    let frames = client_frames().len() + server_frames().len();
    let files =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).unwrap().count();
    assert_eq!(files, frames);
}

#[test]
fn an_idle_reconnect_is_small() {
    let bytes_of = |name: &str| {
        let client = client_frames()
            .into_iter()
            .find(|(n, _)| *n == name)
            .map(|(_, frame)| frame.to_bytes());
        let server = server_frames()
            .into_iter()
            .find(|(n, _)| *n == name)
            .map(|(_, frame)| frame.to_bytes());
        client.or(server).unwrap().len()
    };
    let total = bytes_of("client-hello-idle")
        + bytes_of("server-welcome-idle")
        + bytes_of("server-page-idle");
    assert!(total <= 150, "{total} bytes");
}

#[test]
fn what_is_too_long_is_refused_by_name() {
    let positions =
        vec![ScopePosition { scope: scope("a"), seq: 1 }; super::limits::MAX_SCOPES_PER_DEVICE + 1];
    let error = ClientFrame::from_bytes(&ClientFrame::Resume(positions).to_bytes()).unwrap_err();
    assert!(matches!(error, FrameError::TooMany { list: "positions", .. }), "{error}");
    let long = vec![0; super::limits::MAX_FRAME_BYTES + 1];
    assert!(matches!(ClientFrame::from_bytes(&long).unwrap_err(), FrameError::TooLong { .. }));
    assert!(matches!(
        ServerFrame::from_bytes(&[0x82, 0x18, 0x63, 0x80]).unwrap_err(),
        FrameError::Malformed(_)
    ));
}

proptest::proptest! {
    #[test]
    fn hostile_frames_are_an_error(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let _ = ClientFrame::from_bytes(&bytes);
        let _ = ServerFrame::from_bytes(&bytes);
        let _ = Transaction::decode(&bytes);
    }

    #[test]
    fn frames_with_flipped_bytes_never_panic(
        which in 0usize..20, at in proptest::prelude::any::<proptest::sample::Index>(), to: u8,
    ) {
        let clients = client_frames();
        let mut bytes = match clients.get(which) {
            Some((_, frame)) => frame.to_bytes(),
            None => server_frames()[which - clients.len()].1.to_bytes(),
        };
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = ClientFrame::from_bytes(&bytes);
        let _ = ServerFrame::from_bytes(&bytes);
    }
}

//! The session machine against a scripted device and store.

use std::sync::Arc;

use farshore_store::sync::{
    ChangedRow, Committed, DeviceProgress, Greeting, Head, PageRead, PageRequest, PushResult,
    RowChange, ScopeRead,
};
use farshore_sync_core::digest::{DigestKey, Sum, Totals};
use farshore_sync_core::hlc::Hlc;
use farshore_sync_core::ids::{CollectionId, DeviceId, RowId};
use farshore_sync_core::mutation::Transaction;
use farshore_sync_core::wire::{
    ClientFrame, FaultCode, Grant, Hello, Page, Push, PushOutcome, Refill, Rights, ScopePosition,
    ServerFrame, scopes_hash,
};

use super::audience::Heard;
use super::session::{Authority, Effect, Event, MAX_PUSHES_WITH_LANE, Session, Waits};
use super::update::Update;

const NOW: u64 = 1_700_000_000_000;
/// No push of the tests is longer, but one.
const PART_BYTES: usize = 10;
const WAITS: Waits = Waits { hello_ms: 5_000, heartbeat_ms: 15_000, silence_ms: 40_000 };

fn grant(scope: &str) -> Grant {
    Grant { scope: scope.parse().unwrap(), rights: Rights::Write }
}

fn grants() -> Vec<Grant> {
    vec![grant("a"), grant("b")]
}

fn head(seq: u64) -> Head {
    Head { seq, horizon: 10, epoch: 7 }
}

fn hello(cursor: u64) -> Hello {
    Hello {
        protocol: 1,
        schema_version: 1,
        epoch: 7,
        scopes_hash: scopes_hash(&grants()),
        cursor,
        positions: vec![],
        settled: 0,
        next_number: 1,
        transactions: vec![],
    }
}

fn push(number: u64) -> ClientFrame {
    let transaction = Transaction { number, stamp: Hlc(number), mutations: vec![] };
    ClientFrame::Push(Push { settled: 0, transactions: vec![transaction.encode().into()] })
}

fn answered(number: u64, seq: u64) -> Event {
    let outcome = PushOutcome { number, seq, refused: None, corrected: None };
    Event::Answered(PushResult::Answered(vec![outcome]))
}

fn row(seq: u64, scope: &str) -> ChangedRow {
    ChangedRow {
        seq,
        scope: scope.parse().unwrap(),
        collection: CollectionId(1),
        row: RowId::from_bytes([seq as u8; 16]),
        change: RowChange::State(vec![1]),
        chunks: vec![],
    }
}

fn complete(seq: u64, rows: Vec<ChangedRow>) -> Event {
    let (positions, totals) = (vec![seq, seq], Totals::new());
    Event::Page(PageRead { head: head(seq), rows, positions, complete: true, totals })
}

fn update(before: u64, rows: Vec<ChangedRow>) -> Event {
    let seq = rows.last().unwrap().seq;
    let place = (rows[0].scope.clone(), CollectionId(1));
    let update = Arc::new(Update::new(Committed {
        seq_before: before,
        seq,
        results: vec![],
        rows,
        totals: vec![(place, Sum(u128::from(seq)))],
        documents_came_anew: false,
    }));
    Event::Update(Heard { update, after: before })
}

fn checkpoints(effects: &[Effect]) -> Vec<u64> {
    let checkpoint = |page: &&Page| page.checkpoint.map(|checkpoint| checkpoint.seq);
    pages(effects).iter().filter_map(checkpoint).collect()
}

fn standing(seq: u64) -> Event {
    Event::Standing(Greeting {
        head: head(seq),
        progress: DeviceProgress::default(),
        digest_key: DigestKey([0; 32]),
        schema_version: 1,
    })
}

struct Bench(Session);

impl Bench {
    fn new() -> Self {
        let authority = Authority { grants: grants(), expires_at_ms: NOW + 3_600_000 };
        Self(Session::new(DeviceId::from_bytes([1; 16]), authority, WAITS, PART_BYTES, NOW))
    }

    fn on(&mut self, event: Event) -> Vec<Effect> {
        self.0.handle(event, NOW)
    }

    fn frame(&mut self, frame: ClientFrame) -> Vec<Effect> {
        self.on(Event::Frame(frame))
    }

    /// Up to Welcome; what follows it comes back.
    fn greet(&mut self, hello: Hello, seq: u64) -> Vec<Effect> {
        assert!(matches!(self.frame(ClientFrame::Hello(hello))[..], [Effect::LoadStanding]));
        self.on(standing(seq))
    }

    /// In step at a seq.
    fn in_step(seq: u64) -> Self {
        let mut bench = Self::new();
        bench.greet(hello(seq), seq);
        bench.on(complete(seq, vec![]));
        bench
    }
}

fn pages(effects: &[Effect]) -> Vec<&Page> {
    let page = |effect| match effect {
        &Effect::Send(ServerFrame::Page(ref page)) => Some(page),
        _ => None,
    };
    effects.iter().filter_map(page).collect()
}

fn closes_with(effects: &[Effect], code: FaultCode) -> bool {
    matches!(effects, [Effect::Close(fault)] if fault.code == code)
}

fn request(effects: &[Effect]) -> Option<&PageRequest> {
    effects.iter().find_map(|effect| match effect {
        Effect::ReadPage(request) => Some(request),
        _ => None,
    })
}

#[test]
fn welcome_and_the_first_page_need_no_second_word_of_the_device() {
    let mut bench = Bench::new();
    let effects = bench.greet(hello(50), 60);
    let [Effect::Send(ServerFrame::Welcome(welcome)), Effect::ReadPage(request)] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!((welcome.head, welcome.refill, &welcome.grants), (60, Refill::No, &None));
    assert!(request.scopes.iter().all(|read| read.after == 50));
    let effects = bench.on(complete(60, vec![row(55, "a")]));
    assert_eq!(pages(&effects)[0].checkpoint.map(|checkpoint| checkpoint.seq), Some(60));
}

#[test]
fn how_far_a_device_is_behind_is_known_before_its_page_is_read() {
    let mut bench = Bench::new();
    let behind = |bench: &Bench, effects: &[Effect]| bench.0.behind(request(effects).unwrap());
    let effects = bench.greet(hello(0), 60);
    assert_eq!(behind(&bench, &effects), 60);
    let read = PageRead {
        head: head(60),
        rows: vec![row(20, "a")],
        positions: vec![20, 45],
        complete: false,
        totals: Totals::new(),
    };
    let effects = bench.on(Event::Page(read));
    assert_eq!(behind(&bench, &effects), 40);
}

#[test]
fn who_is_overtaken_by_a_purge_on_the_way_is_filled_anew() {
    let page = |horizon, seq| {
        let read = PageRead {
            head: Head { horizon, ..head(60) },
            rows: vec![row(seq, "a")],
            positions: vec![seq, seq],
            complete: false,
            totals: Totals::new(),
        };
        Event::Page(read)
    };
    let mut bench = Bench::new();
    bench.greet(hello(20), 60);
    assert_eq!(pages(&bench.on(page(20, 30))).len(), 1, "nothing after what it holds is gone");
    let effects = bench.on(page(31, 40));
    assert!(closes_with(&effects, FaultCode::BelowHorizon), "{effects:?}");
    // Who holds nothing misses no deletion, and is filled from the horizon of that time on.
    let mut bench = Bench::new();
    bench.greet(hello(0), 60);
    assert_eq!(pages(&bench.on(page(31, 20))).len(), 1);
    assert_eq!(pages(&bench.on(page(31, 25))).len(), 1);
    assert!(closes_with(&bench.on(page(32, 40)), FaultCode::BelowHorizon));
}

#[test]
fn frames_out_of_order_are_a_named_fault() {
    let out_of_order = [
        ClientFrame::Resume(vec![]),
        push(1),
        ClientFrame::Compare(vec![]),
        ClientFrame::Buckets(vec![]),
        ClientFrame::Token(String::new()),
    ];
    for frame in out_of_order {
        assert!(closes_with(&Bench::new().frame(frame), FaultCode::Protocol));
    }
    let mut bench = Bench::in_step(50);
    assert!(closes_with(&bench.frame(ClientFrame::Hello(hello(1))), FaultCode::Protocol));
    assert!(closes_with(&bench.frame(ClientFrame::Resume(vec![])), FaultCode::Protocol));
    let Hello { protocol, .. } = hello(0);
    let newer = Hello { protocol: protocol + 1, ..hello(0) };
    let effects = Bench::new().frame(ClientFrame::Hello(newer));
    assert!(closes_with(&effects, FaultCode::UnsupportedVersion));
}

#[test]
fn a_session_ends_when_its_tenant_begins_anew() {
    let page = |epoch| {
        let (positions, totals) = (vec![51, 51], Totals::new());
        let head = Head { epoch, ..head(51) };
        Event::Page(PageRead { head, rows: vec![], positions, complete: true, totals })
    };
    assert!(!closes_with(&Bench::in_step(50).on(page(7)), FaultCode::BegunAnew));
    assert!(closes_with(&Bench::in_step(50).on(page(8)), FaultCode::BegunAnew));
    let update = Arc::new(Update::begin_anew());
    let told = Event::Update(Heard { update, after: 0 });
    assert!(closes_with(&Bench::in_step(50).on(told), FaultCode::BegunAnew));
}

#[test]
fn a_copy_that_is_too_old_or_of_another_epoch_is_filled_anew() {
    for (hello, refill) in [
        (hello(5), Refill::BelowHorizon),
        (Hello { epoch: 6, ..hello(50) }, Refill::NewEpoch),
        (hello(61), Refill::NewEpoch),
        (hello(10), Refill::No),
    ] {
        let effects = Bench::new().greet(hello.clone(), 60);
        let Effect::Send(ServerFrame::Welcome(welcome)) = &effects[0] else { panic!() };
        assert_eq!(welcome.refill, refill, "{hello:?}");
        let from_start = request(&effects).unwrap().scopes.iter().all(|read| read.after == 0);
        assert_eq!(from_start, refill != Refill::No);
    }
}

#[test]
fn scopes_that_differ_wait_for_the_positions_of_the_device() {
    let mut bench = Bench::new();
    let effects = bench.greet(Hello { scopes_hash: Sum(1), ..hello(50) }, 60);
    assert!(request(&effects).is_none(), "{effects:?}");
    let known = ScopePosition { scope: "a".parse().unwrap(), seq: 50 };
    let effects = bench.frame(ClientFrame::Resume(vec![known]));
    let scopes = &request(&effects).unwrap().scopes;
    let seqs: Vec<_> = scopes.iter().map(|read| (read.after, read.changes_after)).collect();
    assert_eq!(seqs, [(50, 50), (0, 0)]);
}

#[test]
fn a_page_waits_for_the_answers_to_pushes_that_it_may_show() {
    let mut bench = Bench::new();
    bench.greet(hello(50), 60);
    bench.frame(push(1));
    let effects = bench.on(complete(61, vec![row(61, "a")]));
    assert!(effects.is_empty(), "{effects:?}");
    let effects = bench.on(answered(1, 61));
    assert!(matches!(effects[0], Effect::Send(ServerFrame::Outcomes(_))));
    assert_eq!(pages(&effects).len(), 1);
}

#[test]
fn updates_follow_each_other_and_a_gap_is_read_from_the_store() {
    let mut bench = Bench::in_step(50);
    assert!(matches!(bench.on(update(50, vec![row(51, "a")]))[..], [Effect::SendShared(_)]));
    assert!(bench.on(update(50, vec![row(51, "a")])).is_empty(), "seen already");
    assert!(bench.on(update(51, vec![row(52, "elsewhere")])).is_empty(), "not for this device");
    let effects = bench.on(update(53, vec![row(54, "a")]));
    assert!(request(&effects).unwrap().scopes.iter().all(|read| read.after == 52));
    let mut lagged = Bench::in_step(50);
    assert!(request(&lagged.on(Event::Lagged)).is_some());
}

/// Nobody wakes a session for what does not concern it.
#[test]
fn what_does_not_concern_a_session_opens_no_gap() {
    let mut bench = Bench::in_step(50);
    let heard = |before, after, row| match update(before, vec![row]) {
        Event::Update(Heard { update, .. }) => Event::Update(Heard { update, after }),
        other => panic!("{other:?}"),
    };
    assert!(matches!(bench.on(heard(60, 45, row(61, "a")))[..], [Effect::SendShared(_)]));
    assert!(bench.on(heard(60, 45, row(61, "a"))).is_empty(), "seen already");
    assert!(bench.on(Event::Told(70)).is_empty());
    assert!(bench.on(Event::Told(65)).is_empty());
    assert_eq!(checkpoints(&bench.frame(ClientFrame::Ping(1))), [70]);
    assert!(matches!(bench.on(heard(80, 61, row(81, "a")))[..], [Effect::SendShared(_)]));
    let effects = bench.on(heard(90, 85, row(91, "a")));
    assert!(request(&effects).unwrap().scopes.iter().all(|read| read.after == 81), "{effects:?}");
    assert!(bench.on(Event::Told(95)).is_empty(), "it has the commit before only from the store");
    let effects = bench.on(complete(91, vec![row(85, "a"), row(91, "a")]));
    assert_eq!(checkpoints(&effects), [91]);
}

#[test]
fn what_came_from_elsewhere_is_read_from_where_the_session_stands() {
    let mut bench = Bench::in_step(50);
    let update = Arc::new(Update::elsewhere(60));
    let effects = bench.on(Event::Update(Heard { update, after: 45 }));
    assert!(request(&effects).unwrap().scopes.iter().all(|read| read.after == 50), "{effects:?}");
}

/// Its transaction may have changed nothing, in a commit that does not concern it.
#[test]
fn a_push_is_confirmed_once_nothing_up_to_its_commit_is_missing() {
    let mut bench = Bench::in_step(50);
    bench.frame(push(1));
    assert!(checkpoints(&bench.on(answered(1, 60))).is_empty());
    assert!(checkpoints(&bench.on(Event::Told(59))).is_empty());
    assert_eq!(checkpoints(&bench.on(Event::Told(60))), [60]);
}

/// A row that changes between two pages moves to a later one: its document changes from before have not come yet.
#[test]
fn document_changes_are_read_from_the_checkpoint_on_until_the_next_one() {
    let read = |effects: &[Effect]| {
        let scopes = &request(effects).unwrap().scopes;
        scopes.iter().map(|read| (read.after, read.changes_after)).collect::<Vec<_>>()
    };
    let mut bench = Bench::new();
    assert_eq!(read(&bench.greet(hello(50), 60)), [(50, 50), (50, 50)]);
    let totals = Totals::new();
    let (head, positions) = (head(60), vec![55, 50]);
    let part = PageRead { head, rows: vec![row(55, "a")], positions, complete: false, totals };
    assert_eq!(read(&bench.on(Event::Page(part))), [(55, 50), (50, 50)]);
    bench.on(complete(60, vec![]));
    assert_eq!(read(&bench.on(Event::Lagged)), [(60, 60), (60, 60)]);

    let half = ScopePosition { scope: "a".parse().unwrap(), seq: 55 };
    let resumed = Hello { positions: vec![half], ..hello(50) };
    assert_eq!(read(&Bench::new().greet(resumed, 60)), [(55, 0), (50, 50)]);
}

#[test]
fn a_commit_that_came_while_a_page_was_read_is_read_next() {
    let mut bench = Bench::new();
    bench.greet(hello(50), 60);
    assert!(bench.on(update(60, vec![row(61, "a")])).is_empty(), "the page may hold it");
    let effects = bench.on(complete(60, vec![]));
    assert!(request(&effects).unwrap().scopes.iter().all(|read| read.after == 60), "{effects:?}");
    let effects = bench.on(complete(61, vec![row(61, "a")]));
    assert_eq!(pages(&effects)[0].rows.len(), 1);
    assert!(request(&effects).is_none());
}

#[test]
fn a_push_without_a_visible_row_is_still_confirmed_by_a_checkpoint() {
    let mut bench = Bench::in_step(50);
    bench.on(update(50, vec![row(51, "elsewhere")]));
    bench.frame(push(1));
    let effects = bench.on(answered(1, 51));
    assert_eq!(pages(&effects)[0].checkpoint.map(|checkpoint| checkpoint.seq), Some(51));
}

#[test]
fn the_socket_is_not_read_while_the_lane_holds_too_many_pushes() {
    let mut bench = Bench::in_step(50);
    for number in 1..=MAX_PUSHES_WITH_LANE {
        assert!(bench.0.may_read());
        bench.frame(push(number));
    }
    assert!(!bench.0.may_read());
    bench.on(answered(1, 51));
    assert!(bench.0.may_read());
}

#[test]
fn a_long_push_is_submitted_in_parts_and_read_on_when_they_are_answered() {
    let mut bench = Bench::in_step(50);
    let numbers = 1..=20;
    let encoded = |number| Transaction { number, stamp: Hlc(number), mutations: vec![] }.encode();
    let transactions: Vec<_> = numbers.clone().map(|number| encoded(number).into()).collect();
    let effects = bench.frame(ClientFrame::Push(Push { settled: 3, transactions }));
    let parts = effects.iter().map(|effect| match effect {
        Effect::Submit(part) if part.settled == 3 => part.transactions.iter().map(|of| of.number()),
        other => panic!("{other:?}"),
    });
    let parts = parts.map(Iterator::collect).collect::<Vec<Vec<u64>>>();
    assert!(parts.len() as u64 > MAX_PUSHES_WITH_LANE, "{parts:?}");
    assert!(parts.concat().into_iter().eq(numbers));
    for (answered_parts, part) in parts.iter().enumerate() {
        let waiting = (parts.len() - answered_parts) as u64;
        assert_eq!(bench.0.may_read(), waiting < MAX_PUSHES_WITH_LANE);
        assert!(matches!(
            bench.on(answered(part[0], 51))[..],
            [Effect::Send(ServerFrame::Outcomes(_))]
        ));
    }
    assert!(bench.0.may_read());
}

#[test]
fn the_socket_is_not_read_while_hello_is_being_answered() {
    let mut bench = Bench::new();
    assert!(bench.0.may_read());
    bench.frame(ClientFrame::Hello(hello(50)));
    assert!(!bench.0.may_read(), "a push that follows at once waits");
    bench.on(standing(60));
    assert!(bench.0.may_read());
}

#[test]
fn a_changed_right_stops_pages_at_once() {
    let mut bench = Bench::in_step(50);
    let authority = Authority { grants: vec![grant("a")], expires_at_ms: NOW + 1 };
    let effects = bench.on(Event::Authorised(authority));
    assert!(
        matches!(&effects[..], [Effect::Send(ServerFrame::Scopes(grants))] if grants.len() == 1)
    );
    assert!(bench.on(update(50, vec![row(51, "b")])).is_empty());
    let known = ScopePosition { scope: "a".parse().unwrap(), seq: 50 };
    let effects = bench.frame(ClientFrame::Resume(vec![known]));
    assert_eq!(request(&effects).unwrap().scopes.len(), 1);
}

#[test]
fn rights_that_change_twice_wait_for_the_second_answer() {
    let mut bench = Bench::in_step(50);
    for grants in [vec![grant("a")], vec![grant("b")]] {
        bench.on(Event::Authorised(Authority { grants, expires_at_ms: NOW + 1 }));
    }
    let held = |scope: &str| ScopePosition { scope: scope.parse().unwrap(), seq: 50 };
    let effects = bench.frame(ClientFrame::Resume(vec![held("a")]));
    assert!(effects.is_empty(), "{effects:?}");
    let effects = bench.frame(ClientFrame::Resume(vec![held("b")]));
    assert_eq!(
        request(&effects).unwrap().scopes,
        [ScopeRead::from_checkpoint("b".parse().unwrap(), 50)]
    );
}

#[test]
fn a_page_that_was_asked_for_before_the_rights_changed_is_thrown_away() {
    let mut bench = Bench::in_step(50);
    assert!(request(&bench.on(Event::Lagged)).is_some());
    bench.on(Event::Authorised(Authority { grants: vec![grant("b")], expires_at_ms: NOW + 1 }));
    assert!(request(&bench.frame(ClientFrame::Resume(vec![]))).is_none(), "one read at a time");
    let effects = bench.on(complete(60, vec![row(55, "a"), row(56, "b")]));
    assert!(pages(&effects).is_empty(), "{effects:?}");
    assert_eq!(
        request(&effects).unwrap().scopes,
        [ScopeRead::from_checkpoint("b".parse().unwrap(), 0)]
    );
}

#[test]
fn expiry_and_silence_end_a_session() {
    let mut bench = Bench::in_step(50);
    let effects = bench.0.handle(Event::Tick, NOW + WAITS.heartbeat_ms);
    assert!(matches!(effects[..], [Effect::Send(ServerFrame::Ping(_))]));
    let effects = bench.0.handle(Event::Tick, NOW + WAITS.silence_ms);
    assert!(closes_with(&effects, FaultCode::Silent));
    let effects = Bench::in_step(50).0.handle(Event::Tick, NOW + 3_600_000);
    assert!(closes_with(&effects, FaultCode::Unauthenticated));
    let effects = Bench::new().0.handle(Event::Tick, NOW + WAITS.hello_ms);
    assert!(closes_with(&effects, FaultCode::Silent));
}

#[test]
fn a_fork_is_answered_up_to_it_and_closes() {
    let mut bench = Bench::in_step(50);
    bench.frame(push(1));
    let effects = bench.on(Event::Answered(PushResult::Forked { answered: vec![], number: 1 }));
    assert!(closes_with(&effects, FaultCode::ReplicaForked));
}

//! The machine against a scripted server and store.

use super::*;
use crate::wire::{Checkpoint, FaultCode, Refill, Rights};

const NOW: u64 = 1_700_000_000_000;

struct Bench {
    replica: Replica,
    now_ms: u64,
}

impl Bench {
    fn new() -> Self {
        Self { replica: Replica::new(RetryPolicy::default()), now_ms: NOW }
    }

    fn on(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.replica.handle(event, self.now_ms, 3);
        effects.into_iter().filter(|effect| !matches!(effect, Effect::Status(_))).collect()
    }

    fn frame(&mut self, frame: ServerFrame) -> Vec<Effect> {
        self.on(Event::Frame(Box::new(frame)))
    }

    /// Up to Hello, with these transactions waiting.
    fn connect(&mut self, standing: Standing, outbox: Vec<(u64, Vec<u8>)>) -> Hello {
        self.on(Event::Start);
        self.on(Event::Opened);
        self.on(Event::Stored(StoreReply::Loaded(standing)));
        let effects = self.on(Event::Stored(StoreReply::Outbox(outbox)));
        match effects.into_iter().next() {
            Some(Effect::Send(ClientFrame::Hello(hello))) => hello,
            other => panic!("expected Hello, got {other:?}"),
        }
    }
}

fn standing(cursor: u64) -> Standing {
    Standing {
        schema_version: 1,
        epoch: 5,
        scopes_hash: Sum(1),
        cursor,
        positions: vec![],
        settled: 0,
        next_number: 3,
    }
}

fn welcome() -> Welcome {
    Welcome {
        server_time_ms: NOW,
        epoch: 5,
        head: 9,
        high_water: 0,
        schema_version: 1,
        grants: None,
        digest_key: None,
        refill: Refill::No,
    }
}

#[test]
fn hello_carries_where_the_device_stands_and_its_first_transactions() {
    let mut bench = Bench::new();
    let hello = bench.connect(standing(9), vec![(1, vec![1]), (2, vec![2])]);
    assert_eq!((hello.cursor, hello.next_number, hello.transactions.len()), (9, 3, 2));
}

#[test]
fn a_checkpoint_makes_it_live_and_nothing_else_does() {
    let mut bench = Bench::new();
    bench.connect(standing(9), vec![]);
    bench.frame(ServerFrame::Welcome(welcome()));
    assert_eq!(bench.replica.status().phase, Phase::CatchingUp);
    let page = Page { checkpoint: Some(Checkpoint { seq: 9, root: Sum(0) }), ..Page::default() };
    assert_eq!(
        bench.frame(ServerFrame::Page(page.clone())),
        [Effect::Store(StoreRequest::Page(page))]
    );
    assert_eq!(bench.replica.status().phase, Phase::CatchingUp, "the page is not stored yet");
    let checkpoint = Some(Checked { seq: 9, in_step: true });
    bench.on(Event::Stored(StoreReply::PageStored { checkpoint, outbox_grew: false }));
    assert_eq!(
        (bench.replica.status().phase, bench.replica.status().checkpoint),
        (Phase::Live, Some(9))
    );
}

#[test]
fn other_scopes_are_caught_up_with_anew() {
    let mut bench = Bench::new();
    bench.connect(standing(9), vec![]);
    bench.frame(ServerFrame::Welcome(welcome()));
    let checkpoint = Some(Checked { seq: 9, in_step: true });
    let stored = || Event::Stored(StoreReply::PageStored { checkpoint, outbox_grew: false });
    bench.on(stored());
    bench.frame(ServerFrame::Scopes(vec![]));
    let status = bench.replica.status();
    assert_eq!((status.phase, status.checkpoint), (Phase::CatchingUp, None));
    bench.on(stored());
    assert_eq!(bench.replica.status().phase, Phase::Live);
}

#[test]
fn a_local_commit_is_pushed_once_however_many_events_say_so() {
    let mut bench = Bench::new();
    bench.connect(standing(9), vec![]);
    let read = bench.on(Event::LocalCommit);
    assert!(matches!(read[..], [Effect::Store(StoreRequest::Outbox { after: 0, .. })]), "{read:?}");
    assert_eq!(bench.on(Event::LocalCommit), []);
    let effects = bench.on(Event::Stored(StoreReply::Outbox(vec![(1, vec![1])])));
    assert!(
        matches!(&effects[0], Effect::Send(ClientFrame::Push(push)) if push.transactions.len() == 1)
    );
    assert!(
        matches!(effects[1], Effect::Store(StoreRequest::Outbox { after: 1, .. })),
        "{effects:?}"
    );
    assert_eq!(bench.on(Event::Stored(StoreReply::Outbox(vec![]))), []);
}

#[test]
fn the_window_is_bounded_and_reopens_with_the_answers() {
    let mut bench = Bench::new();
    bench.connect(standing(9), vec![]);
    bench.on(Event::LocalCommit);
    let mut number = 0;
    let mut batch = |count: usize| -> Vec<(u64, Vec<u8>)> {
        (0..count)
            .map(|_| {
                number += 1;
                (number, vec![1])
            })
            .collect()
    };
    for _ in 0..MAX_TRANSACTIONS_IN_FLIGHT / limits::MAX_TRANSACTIONS_PER_PUSH {
        let transactions = batch(limits::MAX_TRANSACTIONS_PER_PUSH);
        bench.on(Event::Stored(StoreReply::Outbox(transactions)));
    }
    assert_eq!(bench.on(Event::LocalCommit), [], "the window is full");
    let outcome = PushOutcome { number: 1, seq: 10, refused: None, corrected: None };
    bench.frame(ServerFrame::Outcomes(vec![outcome]));
    let effects = bench.on(Event::Stored(StoreReply::Settled { settled: 1 }));
    assert!(matches!(effects[..], [Effect::Store(StoreRequest::Outbox { .. })]), "{effects:?}");
}

#[test]
fn silence_is_noticed_first_by_a_ping_and_then_by_giving_up() {
    let mut bench = Bench::new();
    bench.connect(standing(9), vec![]);
    bench.now_ms += limits::HEARTBEAT_MS;
    let effects = bench.on(Event::Timer);
    assert!(matches!(effects[0], Effect::Send(ClientFrame::Ping(_))), "{effects:?}");
    bench.now_ms = NOW + limits::SILENCE_LIMIT_MS;
    let effects = bench.on(Event::Timer);
    assert_eq!(effects[0], Effect::Close);
    assert!(matches!(effects[1], Effect::SetTimer(at) if at > bench.now_ms));
    assert_eq!(bench.replica.status().cause, Some(Cause::Silent));
}

#[test]
fn every_lost_connection_is_tried_again_by_a_timer_that_backs_off() {
    let mut bench = Bench::new();
    bench.on(Event::Start);
    let mut last_delay = 0;
    for _ in 0..8 {
        bench.on(Event::Closed(Cause::Network("refused".into())));
        let at_ms = bench.replica.status().retry_at_ms.unwrap();
        let delay = at_ms - bench.now_ms;
        assert!(delay >= last_delay / 2 && delay <= RetryPolicy::default().most_ms, "{delay}");
        last_delay = delay;
        bench.now_ms = at_ms;
        assert_eq!(bench.on(Event::Timer)[0], Effect::Open);
    }
}

#[test]
fn a_refused_token_waits_for_a_fresh_one() {
    let mut bench = Bench::new();
    bench.on(Event::Start);
    bench.on(Event::Closed(Cause::Unauthenticated("expired".into())));
    assert_eq!(bench.replica.status().retry_at_ms, None);
    assert_eq!(bench.on(Event::Token("fresh".into()))[0], Effect::Open);
}

#[test]
fn a_fork_stops_for_good() {
    let mut bench = Bench::new();
    bench.connect(standing(9), vec![]);
    let fault =
        Fault { code: FaultCode::ReplicaForked, message: String::new(), retry_after_ms: None };
    assert_eq!(bench.frame(ServerFrame::Fault(fault))[0], Effect::Close);
    assert_eq!(
        (bench.replica.status().cause.clone(), bench.replica.status().retry_at_ms),
        (Some(Cause::Forked), None)
    );
}

#[test]
fn changed_scopes_are_answered_with_positions() {
    let mut bench = Bench::new();
    bench.connect(standing(9), vec![]);
    let grants = vec![Grant { scope: "tenant".parse().unwrap(), rights: Rights::Read }];
    bench.frame(ServerFrame::Welcome(Welcome { grants: Some(grants.clone()), ..welcome() }));
    let positions = vec![ScopePosition { scope: "tenant".parse().unwrap(), seq: 9 }];
    let effects = bench.on(Event::Stored(StoreReply::Adopted { positions: positions.clone() }));
    assert_eq!(effects, [Effect::Send(ClientFrame::Resume(positions.clone()))]);
    assert_eq!(
        bench.frame(ServerFrame::Scopes(grants.clone())),
        [Effect::Store(StoreRequest::AdoptGrants(grants))]
    );
    let effects = bench.on(Event::Stored(StoreReply::Adopted { positions: positions.clone() }));
    assert_eq!(effects, [Effect::Send(ClientFrame::Resume(positions))]);
}

#[test]
fn a_fresh_device_adopts_scopes_without_a_second_round_trip() {
    let mut bench = Bench::new();
    bench.connect(Standing { epoch: 0, ..standing(0) }, vec![]);
    let grants = vec![Grant { scope: "tenant".parse().unwrap(), rights: Rights::Read }];
    bench.frame(ServerFrame::Welcome(Welcome { grants: Some(grants), ..welcome() }));
    assert_eq!(bench.on(Event::Stored(StoreReply::Adopted { positions: vec![] })), []);
}

#[test]
fn a_difference_is_compared_once_at_a_time_and_not_for_ever() {
    let mut bench = Bench::new();
    bench.connect(standing(9), vec![]);
    let differs = || {
        Event::Stored(StoreReply::PageStored {
            checkpoint: Some(Checked { seq: 9, in_step: false }),
            outbox_grew: false,
        })
    };
    for _ in 0..machine::MAX_REPAIRS_PER_CONNECTION {
        assert_eq!(bench.on(differs()), [Effect::Store(StoreRequest::Totals)]);
        assert_eq!(bench.on(differs()), [], "a comparison is under way");
        bench.on(Event::Stored(StoreReply::Repaired(1)));
    }
    assert_eq!(bench.on(differs()), []);
    assert!(!bench.replica.status().in_step);
}

#[test]
fn frames_of_a_connection_that_was_given_up_do_nothing() {
    let mut bench = Bench::new();
    bench.connect(standing(9), vec![]);
    bench.on(Event::Stop);
    assert_eq!(bench.frame(ServerFrame::Ping(1)), []);
}

//! What the planner decides, without a database.

use farshore_sync_core::digest::DigestKey;
use farshore_sync_core::hlc::{Hlc, MAX_FUTURE_DRIFT_MS, Stamp};
use farshore_sync_core::ids::{CollectionId, ColumnId, DeviceId, RowId};
use farshore_sync_core::mutation::{Cells, Mutation, Op, Transaction};
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::row::RowState;
use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;
use farshore_sync_core::wire::limits::MAX_SET_ELEMENTS;
use farshore_sync_core::wire::{Grant, PushOutcome, Rights};

use super::validate::MAX_SET_ELEMENT_BYTES;
use super::{Context, Loaded, Plan, StoredRow, plan, prepare};
use crate::pushed::PushedTransaction;
use crate::sync::{Batch, DevicePush, Head, PushResult, RowChange};

const NOW: u64 = 1_700_000_000_000;
const DEVICE: DeviceId = DeviceId::from_bytes([1; 16]);
const ROW: RowId = RowId::from_bytes([9; 16]);
const VISITS: CollectionId = CollectionId(1);
const SITE: ColumnId = ColumnId(1);
const RATING: ColumnId = ColumnId(2);
const STARTS: ColumnId = ColumnId(3);
const ENDS: ColumnId = ColumnId(4);
const NAME: ColumnId = ColumnId(5);
const TAGS: ColumnId = ColumnId(6);

/// A store of one table, kept in what a commit loads.
struct Bench {
    schema: Schema,
    loaded: Loaded,
    head: Head,
    grants: Vec<Grant>,
    last: Option<Plan>,
}

impl Bench {
    fn new() -> Self {
        let schema = Schema::parse(
            r#"{"name":"s","version":1,"collections":[{"name":"visits","scope":"site/{site}","columns":[
                {"name":"site","type":"text"},{"name":"rating","type":"int","min":1,"max":5},
                {"name":"starts","type":"timestamp","group":"period"},
                {"name":"ends","type":"timestamp","group":"period"},
                {"name":"name","type":"text","max_bytes":8},
                {"name":"tags","type":"set"}]}]}"#,
        )
        .unwrap();
        let grant = |scope: &str, rights| Grant { scope: scope.parse().unwrap(), rights };
        let grants = vec![grant("site/a", Rights::Write), grant("site/b", Rights::Read)];
        let head = Head { seq: 100, horizon: 0, epoch: 1 };
        Self { schema, loaded: Loaded::default(), head, grants, last: None }
    }

    fn push(&mut self, transactions: Vec<Transaction>) -> PushResult {
        let push = DevicePush {
            device: DEVICE,
            epoch: self.head.epoch,
            grants: self.grants.clone(),
            settled: 0,
            transactions: transactions
                .iter()
                .map(|transaction| PushedTransaction::read(&transaction.encode()).unwrap())
                .collect(),
        };
        let prepared = prepare(Batch { now_ms: NOW, pushes: vec![push] });
        let key = DigestKey([3; 32]);
        let context =
            Context { schema: &self.schema, head: self.head, digest_key: &key, now_ms: NOW };
        let plan = plan(prepared, self.loaded.clone(), &context).unwrap();
        self.head.seq = plan.committed.seq;
        for row in &plan.rows {
            let stored = StoredRow { scope: row.scope.clone(), state: row.state.clone() };
            self.loaded.rows.insert(row.key, stored);
        }
        self.loaded.devices.extend(plan.devices.iter().copied());
        for (device, outcome) in &plan.outcomes {
            self.loaded.outcomes.insert((*device, outcome.outcome.number), outcome.clone());
        }
        let result = plan.committed.results[0].clone();
        self.last = Some(plan);
        result
    }

    fn outcomes(&mut self, transactions: Vec<Transaction>) -> Vec<PushOutcome> {
        match self.push(transactions) {
            PushResult::Answered(outcomes) => outcomes,
            forked @ PushResult::Forked { .. } => panic!("{forked:?}"),
        }
    }

    fn refusal(&mut self, number: u64, ops: Vec<Op>) -> Option<ReasonCode> {
        let outcomes = self.outcomes(vec![transaction(number, Hlc::from_wall_ms(NOW), ops)]);
        outcomes[0].refused.as_ref().map(|refused| refused.code)
    }

    fn state(&self) -> RowState {
        RowState::decode(&self.loaded.rows[&(VISITS, ROW)].state).unwrap()
    }
}

fn transaction(number: u64, stamp: Hlc, ops: Vec<Op>) -> Transaction {
    let mutation = |op| Mutation { collection: VISITS, row: ROW, op };
    Transaction { number, stamp, mutations: ops.into_iter().map(mutation).collect() }
}

fn insert(site: &str) -> Op {
    Op::Insert { cells: Cells::new(vec![(SITE, Value::from(site))]) }
}

fn update(column: ColumnId, value: Value) -> Op {
    Op::Update { cells: Cells::new(vec![(column, value)]) }
}

#[test]
fn a_refused_offer_takes_neither_the_others_nor_what_was_written_after_them_with_it() {
    let mut bench = Bench::new();
    let other = RowId::from_bytes([8; 16]);
    let stamp = Stamp { hlc: Hlc::from_wall_ms(NOW - 5), device: DEVICE };
    let offer = |row: RowId, site: &str| {
        let state = RowState::apply(None, insert(site), stamp, None).unwrap();
        Mutation { collection: VISITS, row, op: Op::Offer { state: Box::new(state) } }
    };
    let offers = |number, mutations| Transaction { number, stamp: stamp.hlc, mutations };
    let written = transaction(2, Hlc::from_wall_ms(NOW), vec![update(RATING, Value::Int(3))]);
    let outcomes = bench.outcomes(vec![
        offers(1, vec![offer(other, "b"), offer(ROW, "a"), offer(other, "nowhere")]),
        written,
    ]);
    let refused = outcomes[0].refused.as_ref().unwrap();
    assert_eq!((refused.index, refused.code), (0, ReasonCode::PermissionDenied));
    assert_eq!(outcomes[1].refused, None);
    assert_eq!(bench.state().value(RATING), Some(&Value::Int(3)));
    assert!(!bench.loaded.rows.contains_key(&(VISITS, other)));

    // What an app wrote is whole or not at all, whatever else is in it.
    let mut mixed = transaction(3, Hlc::from_wall_ms(NOW), vec![update(RATING, Value::Int(4))]);
    mixed.mutations.push(offer(other, "b"));
    assert!(bench.outcomes(vec![mixed])[0].refused.is_some());
    assert_eq!(bench.state().value(RATING), Some(&Value::Int(3)));
}

#[test]
fn misfits_are_refused_with_their_reason_and_the_rest_goes_on() {
    let mut bench = Bench::new();
    let unknown = Mutation { collection: CollectionId(77), row: ROW, op: Op::Delete };
    let unknown =
        Transaction { number: 1, stamp: Hlc::from_wall_ms(NOW), mutations: vec![unknown] };
    let outcomes =
        bench.outcomes(vec![unknown, transaction(2, Hlc::from_wall_ms(NOW), vec![insert("a")])]);
    assert_eq!(outcomes[0].refused.as_ref().unwrap().code, ReasonCode::UnknownCollection);
    assert_eq!(outcomes[1].refused, None);
    let too_long = || Value::from("e".repeat(MAX_SET_ELEMENT_BYTES + 1));
    let stamp = Stamp { hlc: Hlc::from_wall_ms(NOW), device: DEVICE };
    let remove =
        |element, adds| Op::SetRemove { column: TAGS, element, observed: vec![stamp; adds] };
    let cases = [
        (update(ColumnId(99), Value::Null), ReasonCode::UnknownColumn),
        (update(RATING, Value::from("five")), ReasonCode::TypeMismatch),
        (update(RATING, Value::Int(6)), ReasonCode::OutOfRange),
        (update(NAME, Value::from("much too long")), ReasonCode::TooLarge),
        (update(STARTS, Value::Timestamp(1)), ReasonCode::IncompleteGroup),
        (update(SITE, Value::Null), ReasonCode::NoScope),
        (update(SITE, Value::from("b")), ReasonCode::PermissionDenied),
        (update(SITE, Value::from("c")), ReasonCode::PermissionDenied),
        (Op::Increment { column: NAME, delta: 1 }, ReasonCode::TypeMismatch),
        (Op::Document { column: NAME, change: vec![1] }, ReasonCode::BadDocumentChange),
        (Op::SetAdd { column: TAGS, element: too_long() }, ReasonCode::TooLarge),
        (remove(too_long(), 1), ReasonCode::TooLarge),
        (remove(Value::from("a"), MAX_SET_ELEMENTS + 1), ReasonCode::TooLarge),
    ];
    for (number, (op, code)) in (3..).zip(cases) {
        assert_eq!(bench.refusal(number, vec![update(NAME, Value::from("x")), op]), Some(code));
    }
    let period = vec![(STARTS, Value::Timestamp(1)), (ENDS, Value::Timestamp(2))];
    assert_eq!(bench.refusal(50, vec![Op::Update { cells: Cells::new(period) }]), None);
    assert_eq!(bench.state().value(NAME), None, "nothing of a refused transaction stays");
}

#[test]
fn a_refused_transaction_leaves_what_the_batch_did_before_it() {
    let mut bench = Bench::new();
    let now = Hlc::from_wall_ms(NOW);
    let other = RowId::from_bytes([0x77; 16]);
    let of_other = |op| Mutation { collection: VISITS, row: other, op };
    let good = transaction(1, now, vec![insert("a"), update(NAME, Value::from("kept"))]);
    let mut bad = transaction(2, now.next(), vec![update(NAME, Value::from("lost"))]);
    bad.mutations.push(of_other(insert("a")));
    bad.mutations.extend(
        transaction(2, now, vec![update(RATING, Value::Int(1)), update(RATING, Value::Int(6))])
            .mutations,
    );
    let mut again = transaction(3, now.next().next(), vec![]);
    again.mutations.push(of_other(update(RATING, Value::Int(2))));
    let outcomes = bench.outcomes(vec![good, bad, again]);
    let codes: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.refused.as_ref().map(|refused| refused.code))
        .collect();
    assert_eq!(codes, [None, Some(ReasonCode::OutOfRange), Some(ReasonCode::RowMissing)]);
    assert_eq!(bench.state().value(NAME), Some(&Value::from("kept")));
    assert_eq!(bench.state().value(RATING), None);
    assert_eq!(bench.last.unwrap().rows.len(), 1, "the other row was never there");
}

#[test]
fn a_row_in_a_scope_that_cannot_be_read_looks_missing() {
    let mut bench = Bench::new();
    assert_eq!(bench.refusal(1, vec![insert("a")]), None);
    let row = bench.loaded.rows.get_mut(&(VISITS, ROW)).unwrap();
    row.scope = "site/secret".parse().unwrap();
    assert_eq!(bench.refusal(2, vec![update(RATING, Value::Int(3))]), Some(ReasonCode::RowMissing));
    bench.loaded.rows.get_mut(&(VISITS, ROW)).unwrap().scope = "site/b".parse().unwrap();
    let code = bench.refusal(3, vec![update(RATING, Value::Int(3))]);
    assert_eq!(code, Some(ReasonCode::PermissionDenied));
}

#[test]
fn a_clock_ahead_is_clamped_in_order_and_the_correction_is_told() {
    let mut bench = Bench::new();
    let future = Hlc::from_wall_ms(NOW + 10 * MAX_FUTURE_DRIFT_MS);
    let outcomes = bench.outcomes(vec![
        transaction(1, future, vec![insert("a"), update(NAME, Value::from("one"))]),
        transaction(2, future.next(), vec![update(NAME, Value::from("two"))]),
    ]);
    let corrected: Vec<_> = outcomes.iter().map(|outcome| outcome.corrected.unwrap()).collect();
    assert_eq!(corrected, [Hlc::from_wall_ms(NOW), Hlc::from_wall_ms(NOW).next()]);
    assert_eq!(bench.state().value(NAME), Some(&Value::from("two")));
}

#[test]
fn a_clock_ahead_does_not_lose_to_what_it_has_seen() {
    let mut bench = Bench::new();
    let seen = Hlc::from_wall_ms(NOW + MAX_FUTURE_DRIFT_MS);
    let old = vec![insert("a"), update(NAME, Value::from("seen"))];
    assert_eq!(bench.outcomes(vec![transaction(1, seen, old)])[0].corrected, None);
    bench.loaded.devices.clear();
    let future = Hlc::from_wall_ms(NOW + 10 * MAX_FUTURE_DRIFT_MS);
    let over = transaction(2, future, vec![update(NAME, Value::from("over"))]);
    assert_eq!(bench.outcomes(vec![over])[0].corrected, Some(seen.next()));
    assert_eq!(bench.state().value(NAME), Some(&Value::from("over")));
}

#[test]
fn a_number_counts_once_and_other_content_under_it_is_a_fork() {
    let mut bench = Bench::new();
    let first = transaction(1, Hlc::from_wall_ms(NOW), vec![insert("a")]);
    let answer = bench.push(vec![first.clone()]);
    let head = bench.head.seq;
    assert_eq!(bench.push(vec![first]), answer, "a resend gets the same answer");
    assert_eq!(bench.head.seq, head);
    assert!(bench.last.as_ref().unwrap().rows.is_empty());
    let other = transaction(1, Hlc::from_wall_ms(NOW), vec![insert("a"), Op::Delete]);
    let next = transaction(2, Hlc::from_wall_ms(NOW), vec![update(RATING, Value::Int(1))]);
    let forked = PushResult::Forked { answered: vec![], number: 1 };
    assert_eq!(bench.push(vec![other, next]), forked);
    assert_eq!(bench.state().value(RATING), None, "nothing after the fork applies");
}

#[test]
fn a_row_that_moves_leaves_a_departure_and_moves_its_sum() {
    let mut bench = Bench::new();
    bench.grants[1].rights = Rights::Write;
    assert_eq!(bench.refusal(1, vec![insert("a")]), None);
    assert_eq!(bench.refusal(2, vec![update(SITE, Value::from("b"))]), None);
    let plan = bench.last.unwrap();
    assert_eq!(plan.departures.len(), 1);
    assert_eq!(plan.departures[0].scope.as_str(), "site/a");
    let changes: Vec<_> = plan.committed.rows.iter().map(|row| (row.seq, &row.change)).collect();
    assert!(matches!(changes[..], [(102, RowChange::Departed), (103, RowChange::State(_))]));
    let scopes: Vec<_> = plan.digests.keys().map(|(scope, _)| scope.as_str()).collect();
    assert_eq!(scopes, ["site/a", "site/b"]);
}

#[test]
fn what_changes_nothing_gets_no_seq() {
    let mut bench = Bench::new();
    let late = Hlc::from_wall_ms(NOW - 1000);
    assert_eq!(bench.refusal(1, vec![insert("a"), update(RATING, Value::Int(4))]), None);
    let head = bench.head.seq;
    bench.loaded.devices.clear();
    let outcomes = bench.outcomes(vec![transaction(2, late, vec![update(RATING, Value::Int(2))])]);
    assert_eq!((outcomes[0].seq, bench.head.seq), (head, head));
}

#[test]
fn an_add_that_comes_again_after_a_restore_does_not_undo_its_removal() {
    let mut bench = Bench::new();
    let element = Value::from("x");
    let stamp = Hlc::from_wall_ms(NOW);
    let add = Op::SetAdd { column: TAGS, element: element.clone() };
    let made = || transaction(1, stamp, vec![insert("a"), add.clone()]);
    bench.outcomes(vec![made()]);
    let observed = bench.state().observed_adds(TAGS, &element);
    assert_eq!(bench.refusal(2, vec![Op::SetRemove { column: TAGS, element, observed }]), None);
    // A restored server, to which somebody has offered the row: it knows nothing of this device.
    bench.loaded.devices.clear();
    bench.loaded.outcomes.clear();
    bench.outcomes(vec![made()]);
    assert_eq!(bench.state().set(TAGS).count(), 0);
    bench.outcomes(vec![transaction(2, Hlc::from_wall_ms(NOW + 1), vec![add])]);
    assert_eq!(bench.state().set(TAGS).count(), 1, "another add counts");
}

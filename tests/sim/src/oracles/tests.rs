//! Every oracle fails where what it forbids is planted, and passes where it is not.
//!
//! Those that look at a running device (digests, clocks, queues that do not drain, copies that had to be mended) are
//! shown to fail by the bug bank.

use std::time::Duration;

use bytes::Bytes;
use farshore_client::Status;
use farshore_server::config::{Config, Settings};
use farshore_sync_core::ids::{CollectionId, RowId};
use farshore_sync_core::schema::ColumnType;
use farshore_sync_core::wire::{Frame as _, Page, RowEntry, RowPayload, ServerFrame};
use futures_util::SinkExt as _;
use test_chance::Chance;
use tokio::runtime::Builder;

use super::*;
use crate::history::Transaction;
use crate::network::{Network, SUSPENSION_LIMIT_MS};
use crate::platform::TENANTS;
use crate::sinks::Sinks;
use crate::time::Timeline;

const SEEN: &str = "seen";

fn shape() -> Shape {
    Shape::draw(&mut Chance::of(1))
}

fn row(number: u8) -> RowKey {
    ("c0".to_owned(), RowId::from_bytes([number; 16]))
}

fn cell(column: &str) -> Cell {
    (row(1), column.to_owned())
}

fn insert(number: u8) -> Deed {
    Deed::Insert { row: row(number), scope: shape::tenant_scope() }
}

fn write(value: &str, over: Option<&str>) -> Deed {
    Deed::Write { cell: cell("text"), value: value.into(), over: over.map(Value::from) }
}

/// One transaction for each list of deeds.
fn history<const N: usize>(transactions: [(Fate, Vec<Deed>); N]) -> History {
    let made = (1..).zip(transactions).map(|(number, (fate, deeds))| Transaction {
        device: 0,
        number,
        deeds,
        fate,
        read: None,
        ahead: false,
        resent: false,
        resubmitted: false,
    });
    History { transactions: made.collect(), ..History::default() }
}

/// A copy with one row.
fn view<const N: usize>(columns: [(&str, ColumnValue); N]) -> View {
    let columns = columns.map(|(name, value)| (name.to_owned(), value));
    View::from([(row(1), columns.into())])
}

fn text(value: &str) -> (&'static str, ColumnValue) {
    ("text", ColumnValue::Scalar(value.into()))
}

fn kinds(history: &History, view: &View) -> Vec<&'static str> {
    judge(&shape(), history, view).iter().map(Violation::kind).collect()
}

#[test]
fn rows_come_from_accepted_inserts_and_go_with_accepted_deletes() {
    let delete = || Deed::Delete { row: row(1) };
    let inserted = history([(Fate::Accepted, vec![insert(1)])]);
    assert_eq!(kinds(&inserted, &view([])), [""; 0]);
    assert_eq!(kinds(&inserted, &View::new()), ["lost write"]);
    let refused = history([(Fate::Refused, vec![insert(1)])]);
    assert_eq!(kinds(&refused, &View::new()), [""; 0]);
    assert_eq!(kinds(&refused, &view([])), ["came back"]);
    let deleted = history([(Fate::Accepted, vec![insert(1)]), (Fate::Accepted, vec![delete()])]);
    assert_eq!(kinds(&deleted, &View::new()), [""; 0]);
    assert_eq!(kinds(&deleted, &view([])), ["came back"]);
    let doubtful = history([(Fate::Accepted, vec![insert(1)]), (Fate::Doubtful, vec![delete()])]);
    assert_eq!((kinds(&doubtful, &View::new()).len(), kinds(&doubtful, &view([])).len()), (0, 0));
}

#[test]
fn a_scalar_is_what_an_accepted_write_made_it_and_stays_replaced() {
    let made = history([
        (Fate::Accepted, vec![insert(1), write(SEEN, None)]),
        (Fate::Accepted, vec![write("over", Some(SEEN))]),
        (Fate::Refused, vec![write("refused", Some("over"))]),
    ]);
    assert_eq!(kinds(&made, &view([text("over")])), [""; 0]);
    assert_eq!(kinds(&made, &view([text(SEEN)])), ["came back"], "it was seen and replaced");
    assert_eq!(kinds(&made, &view([text("refused")])), ["came back"]);
    assert_eq!(kinds(&made, &view([text("from nowhere")])), ["came back"]);
    let null = ("text", ColumnValue::Scalar(Value::Null));
    assert_eq!(kinds(&made, &view([null])), ["lost write"]);
}

#[test]
fn who_writes_reads_it_at_once() {
    let seen = |deeds: &[Deed], view: &View| own_writes(deeds, view).len();
    let updated = [write("earlier", None), write(SEEN, None)];
    assert_eq!(seen(&updated, &view([text(SEEN)])), 0);
    assert_eq!(seen(&updated, &view([text("earlier")])), 1);
    assert_eq!(seen(&updated, &view([])), 1);
    assert_eq!(seen(&updated, &View::new()), 1);
    let deleted = [insert(1), Deed::Delete { row: row(1) }];
    assert_eq!(seen(&deleted, &View::new()), 0);
    assert_eq!(seen(&deleted, &view([])), 1);
}

#[test]
fn only_what_was_ahead_and_was_sent_anew_may_win_or_lose_against_the_order_of_the_writes() {
    let add = |element: &str| Deed::SetAdd { cell: cell("set"), element: element.into() };
    let remove = Deed::SetRemove { cell: cell("set"), element: "goes".into() };
    let mut made = history([
        (Fate::Accepted, vec![insert(1), write(SEEN, None), add("goes")]),
        (Fate::Accepted, vec![write("over", Some(SEEN)), remove]),
    ]);
    let set = ColumnValue::Set(vec!["goes".into()]);
    let back = view([text(SEEN), ("set", set)]);
    for (ahead, resent, expected) in
        [(false, false, 2), (true, false, 2), (false, true, 2), (true, true, 0)]
    {
        (made.transactions[0].ahead, made.transactions[0].resent) = (ahead, resent);
        assert_eq!(kinds(&made, &back), vec!["came back"; expected], "{ahead} {resent}");
    }
    let null = ("text", ColumnValue::Scalar(Value::Null));
    assert_eq!(kinds(&made, &view([null])), ["lost write"], "it is not lost for it");
    let element = ("set", ColumnValue::Set(vec![]));
    for (ahead, resent, expected) in
        [(false, false, 1), (true, false, 1), (false, true, 1), (true, true, 0)]
    {
        (made.transactions[0].ahead, made.transactions[0].resent) = (false, false);
        (made.transactions[1].ahead, made.transactions[1].resent) = (ahead, resent);
        let older = view([text(SEEN), element.clone()]);
        assert_eq!(kinds(&made, &older), vec!["came back"; expected], "{ahead} {resent}");
    }
    (made.transactions[1].ahead, made.transactions[0].resubmitted) = (false, true);
    assert_eq!(kinds(&made, &back), [""; 0], "the app wrote it once more");
}

#[test]
fn increments_count_once() {
    let add = |delta| Deed::Add { cell: cell("counter"), delta };
    let made = history([
        (Fate::Accepted, vec![insert(1), add(3)]),
        (Fate::Refused, vec![add(5)]),
        (Fate::Doubtful, vec![add(7)]),
    ]);
    for (shown, expected) in [(3, 0), (10, 0), (2, 1), (6 + 7, 1), (8 + 7, 1)] {
        let found = kinds(&made, &view([("counter", ColumnValue::Counter(shown))]));
        assert_eq!(found, vec!["not once"; expected], "{shown}");
    }
}

#[test]
fn what_waits_in_a_quarantine_after_a_restore_is_not_lost() {
    let mut made = history([(Fate::Accepted, vec![insert(1)])]);
    assert_eq!(kinds(&made, &View::new()), ["lost write"]);
    made.set_aside.insert(row(2));
    assert_eq!(kinds(&made, &View::new()), ["lost write"], "another row waits there");
    made.set_aside.insert(row(1));
    assert_eq!(kinds(&made, &View::new()), [""; 0]);
}

#[test]
fn what_was_moved_to_where_its_writer_may_not_write_is_out_of_reach() {
    let site = (row(1), crate::shape::SITE_COLUMN.to_owned());
    let moved = Deed::Write { cell: site, value: Value::from("s2"), over: None };
    let made =
        history([(Fate::Accepted, vec![insert(1), insert(2)]), (Fate::Accepted, vec![moved])]);
    assert_eq!(made.moved_out_of_reach(|_, _| true), [].into());
    let may = |_, scope: &Scope| *scope != crate::shape::site_scope("s2");
    assert_eq!(made.moved_out_of_reach(may), [row(1)].into());
}

#[test]
fn elements_stay_until_somebody_who_saw_them_removes_them() {
    let add = |element: &str| Deed::SetAdd { cell: cell("set"), element: element.into() };
    let remove = |element: &str| Deed::SetRemove { cell: cell("set"), element: element.into() };
    let made = history([
        (Fate::Accepted, vec![insert(1), add("stays"), add("goes")]),
        (Fate::Accepted, vec![remove("goes")]),
    ]);
    let shown = |elements: &[&str]| {
        let elements = elements.iter().map(|element| Value::from(*element)).collect();
        kinds(&made, &view([("set", ColumnValue::Set(elements))]))
    };
    assert_eq!(shown(&["stays"]), [""; 0]);
    assert_eq!(shown(&[]), ["lost write"]);
    assert_eq!(shown(&["stays", "goes"]), ["came back"]);
    assert_eq!(shown(&["stays", "from nowhere"]), ["came back"]);
}

#[test]
fn words_stand_in_their_text_once() {
    let word = |word: &str| Deed::Type { cell: cell("document"), word: word.to_owned() };
    let made = history([
        (Fate::Accepted, vec![insert(1), word("<1>")]),
        (Fate::Refused, vec![word("<2>")]),
    ]);
    let shown = |text: &str| {
        let json = serde_json::json!({ TEXT_FIELD: text });
        kinds(&made, &view([("document", ColumnValue::Document(json))]))
    };
    assert_eq!(shown("<1>"), [""; 0]);
    assert_eq!(shown(""), ["lost write"]);
    assert_eq!(shown("<1><1>"), ["not once"]);
    assert_eq!(shown("<1><2>"), ["came back"]);
    let nothing = ("document", ColumnValue::Document(serde_json::Value::Null));
    assert_eq!(kinds(&made, &view([nothing])), ["lost write"]);
}

#[test]
fn rows_of_one_transaction_are_all_there_or_none() {
    let int = |int: i64| ColumnValue::Scalar(int.into());
    let batch = |number: u8| ("batches".to_owned(), RowId::from_bytes([number; 16]));
    let columns =
        || [("batch", int(7)), ("size", int(2))].map(|(name, value)| (name.into(), value));
    let whole: View = [1, 2].map(|number| (batch(number), columns().into())).into();
    let part: View = [(batch(1), columns().into())].into();
    for (view, expected) in [(&whole, 0), (&part, 1)] {
        let mut deeds = Vec::new();
        for (row, columns) in view {
            deeds.push(Deed::Insert { row: row.clone(), scope: shape::tenant_scope() });
            deeds.extend(columns.iter().map(|(column, value)| Deed::Write {
                cell: (row.clone(), column.clone()),
                value: match value {
                    ColumnValue::Scalar(value) => value.clone(),
                    other => panic!("{other:?}"),
                },
                over: None,
            }));
        }
        let made = history([(Fate::Accepted, deeds)]);
        assert_eq!(kinds(&made, view), vec!["torn"; expected]);
    }
}

#[test]
fn copies_of_one_scope_show_the_same() {
    let shape = Shape { collections: vec![flat()], ..shape() };
    let (schema, scopes) = (shape.schema(2), [shape::tenant_scope()]);
    let differences = |one: &View, other: &View| {
        compare(&shape, ("one", "other"), one, other, (&scopes, &schema)).len()
    };
    let (here, there) = (view([text("here")]), view([text("there")]));
    assert_eq!(differences(&here, &here.clone()), 0);
    assert_eq!(differences(&here, &there), 1);
    assert_eq!(differences(&here, &View::new()), 1);
    assert_eq!(only_granted(&shape, "one", &here, &scopes), []);
    assert_eq!(only_granted(&shape, "one", &here, &[]).len(), 1);
}

/// A collection in the tenant's scope.
fn flat() -> crate::shape::CollectionShape {
    let kind = ColumnType::Text;
    let column =
        crate::shape::ColumnShape { name: "text".to_owned(), kind, group: None, added: false };
    crate::shape::CollectionShape {
        name: "c0".to_owned(),
        role: Role::Any,
        by_site: false,
        columns: vec![column],
    }
}

#[test]
fn a_counter_that_goes_back_is_seen_unless_there_is_a_reason() {
    let shown = |value: i64| watch::Counters::from([((0, 0, vec![1]), value)]);
    let status = Status { filled: true, ..Status::default() };
    let mut watch = Watch::default();
    assert_eq!(watch.monotonic(shown(5), &status, vec![7]), []);
    assert_eq!(watch.monotonic(shown(5), &status, vec![7]), []);
    assert_eq!(watch.monotonic(shown(4), &status, vec![7]).len(), 1);
    assert_eq!(watch.monotonic(shown(3), &status, vec![8]), [], "a transaction was refused");
}

#[test]
fn a_frame_with_the_word_of_another_tenant_is_a_leak() {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let network = Network::new(Timeline::begin(), 1, (0, 0));
        for canary in ["alpha-word", "bravo-word"] {
            network.watch_for(canary);
        }
        network.belongs(0, 0);
        let (_client, mut server) = network.connect(0);
        for (frame, expected) in [("of alpha-word", 0), ("of bravo-word and more", 1)] {
            let sealed = farshore_api::envelope::seal(frame.as_bytes());
            let message = axum::extract::ws::Message::Binary(Bytes::from(sealed));
            server.send(message).await.unwrap();
            assert_eq!(leaks(&network.leaks()).len(), expected, "{frame}");
        }
        assert_eq!(network.sent().scanned_frames, 2);
    });
}

#[test]
fn a_log_line_a_metric_or_a_refusal_with_the_word_of_another_tenant_is_a_leak() {
    let config = Config::from_settings(&Settings::defaults()).unwrap();
    let sinks = Sinks::default();
    for canary in ["word-one", "word-two"] {
        sinks.watch_for(canary);
    }
    let found = || leaks(&sinks.leaks()).len();
    {
        let _logging = sinks.log_here(&config);
        tracing::info!(tenant = TENANTS[0], scope = "word-one", "its own");
        tracing::info!("nobody's");
        assert_eq!(found(), 0);
        tracing::info!(tenant = TENANTS[0], scope = "word-two", "another's");
        assert_eq!(found(), 1);
        tracing::warn!(value = "word-one", "whose it is nobody knows");
        assert_eq!((found(), sinks.lines()), (2, 4));
    }
    sinks.search("a refusal", b"word-two", &[1]);
    assert_eq!(found(), 2);
    sinks.search("a refusal", b"word-one", &[1]);
    sinks.search("the metrics", b"label=word-one", &[]);
    assert_eq!(found(), 4);
}

#[test]
fn rows_for_a_suspended_device_are_seen_once_it_had_time_to_hear_of_it() {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let network = Network::new(Timeline::begin(), 1, (0, 0));
        let (_client, mut server) = network.connect(0);
        let row = RowEntry {
            scope: 0,
            collection: CollectionId(1),
            row: RowId::from_bytes([1; 16]),
            payload: RowPayload::Departed,
        };
        let page = ServerFrame::Page(Page { rows: vec![row], ..Page::default() });
        network.suspend(0, true);
        for (passes_ms, expected) in [(SUSPENSION_LIMIT_MS, 0), (1, 1)] {
            tokio::time::sleep(Duration::from_millis(passes_ms)).await;
            let sealed = Bytes::from(farshore_api::envelope::seal(&page.to_bytes()));
            server.send(axum::extract::ws::Message::Binary(sealed)).await.unwrap();
            assert_eq!(unwarranted(&network.unwarranted()).len(), expected);
        }
    });
}

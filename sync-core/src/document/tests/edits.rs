//! Edits, paths and positions; opening and adding changes; nothing half done.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use super::super::{AccessError, ChangeHash, DocumentError, genesis};
use super::{
    ALICE, BOB, Change, Document, DocumentEdit, DocumentPath, FieldKind, NewValue, Scalar, change,
    fields, int, open, path, put, splice,
};

fn empty(kind: FieldKind) -> NewValue {
    NewValue::Empty(kind)
}

fn text(document: &dyn Document) -> String {
    document.text(&path("text")).unwrap()
}

#[test]
fn the_first_change_is_the_same_everywhere_for_ever() {
    let first = genesis(&fields()).unwrap();
    assert_eq!(
        first.hash.to_string(),
        "f4983469472380033a79d1a06e11840038e3c1af7d45eb729dd2d99d3cb2a1b9"
    );
    assert_eq!((first.deps.len(), first.sequence, first.operations), (0, 1, 3));
    assert_eq!(genesis(&fields()), Some(first));
    assert_eq!(genesis(&std::collections::BTreeMap::new()), None);
}

#[test]
fn devices_that_create_a_document_offline_share_its_fields() {
    let (mut alice, mut bob) = (open(ALICE, &[]), open(BOB, &[]));
    let from_alice = change(&mut *alice, &[splice(0, 0, "Hello ")]);
    let from_bob = change(&mut *bob, &[put("k", int(1))]);
    assert_eq!(alice.apply(&[from_bob]).unwrap(), 1);
    assert_eq!(bob.apply(&[from_alice]).unwrap(), 1);
    let expected = json!({ "list": [], "map": { "k": 1 }, "text": "Hello " });
    assert_eq!(alice.to_json().unwrap(), expected);
    assert_eq!(bob.to_json().unwrap(), expected);
    assert_eq!(alice.heads(), bob.heads());
}

#[test]
fn every_edit_does_what_it_says() {
    let mut document = open(ALICE, &[]);
    let list = path("list");
    let insert = |index, value| DocumentEdit::InsertItem { path: list.clone(), index, value };
    let inner = list.clone().then(1).then("inner");
    let edits = [
        splice(0, 0, "Grüße"),
        splice(2, 2, "🦀"),
        put("none", NewValue::Scalar(Scalar::Null)),
        put("yes", NewValue::Scalar(Scalar::Bool(true))),
        put("pi", NewValue::Scalar(Scalar::Real(3.5))),
        put("name", NewValue::Scalar(Scalar::Text("n".to_owned()))),
        put("bytes", NewValue::Scalar(Scalar::Bytes(vec![0, 255]))),
        put("gone", int(1)),
        DocumentEdit::Delete { path: path("map"), key: "gone".to_owned() },
        insert(0, int(1)),
        insert(1, empty(FieldKind::Map)),
        insert(2, int(3)),
        insert(3, int(4)),
        DocumentEdit::DeleteItems { path: list.clone(), index: 2, count: 2 },
        DocumentEdit::Put {
            path: list.clone().then(1),
            key: "inner".to_owned(),
            value: empty(FieldKind::Text),
        },
        DocumentEdit::SpliceText {
            path: inner.clone(),
            position: 0,
            delete: 0,
            insert: "i".to_owned(),
        },
    ];
    let made = change(&mut *document, &edits);
    let expected = json!({
        "list": [1, { "inner": "i" }],
        "map": { "bytes": [0, 255], "name": "n", "none": null, "pi": 3.5, "yes": true },
        "text": "Gr🦀e",
    });
    assert_eq!(document.to_json().unwrap(), expected);
    assert_eq!(document.text(&inner).unwrap(), "i");
    assert_eq!((document.change_count(), document.approximate_bytes()), (1, made.bytes.len()));
    assert_eq!(document.heads(), [made.hash]);
    assert_eq!(made.deps, [genesis(&fields()).unwrap().hash]);
    assert_eq!((made.actor.as_slice(), made.sequence), (ALICE.as_slice(), 1));
    assert_eq!(open(BOB, &[made]).to_json().unwrap(), expected);
}

#[test]
fn edits_that_alter_nothing_make_no_change() {
    let mut document = open(ALICE, &[]);
    let absent = DocumentEdit::Delete { path: path("map"), key: "absent".to_owned() };
    assert_eq!(document.edit(&[]).unwrap(), None);
    assert_eq!(document.edit(&[splice(0, 0, ""), absent]).unwrap(), None);
    assert_eq!(document.change_count(), 0);
}

#[test]
fn a_refused_edit_takes_the_edits_before_it_back() {
    let check = |bad: DocumentEdit, expected: AccessError| {
        let mut document = open(ALICE, &[]);
        change(&mut *document, &[splice(0, 0, "abc"), put("k", int(1))]);
        let (before, heads) = (document.to_json().unwrap(), document.heads());
        assert_eq!(document.edit(&[splice(1, 1, "XYZ"), put("k", int(2)), bad]), Err(expected));
        assert_eq!((document.to_json().unwrap(), document.heads()), (before, heads));
        assert_eq!(change(&mut *document, &[splice(3, 0, "d")]).sequence, 2);
        assert_eq!(text(&*document), "abcd");
    };
    let in_list = |index, count| DocumentEdit::DeleteItems { path: path("list"), index, count };
    let at = |path, key: &str, value| DocumentEdit::Put { path, key: key.to_owned(), value };
    check(splice(6, 0, "x"), AccessError::OutOfRange { position: 6, end: 6, length: 5 });
    check(splice(4, 2, ""), AccessError::OutOfRange { position: 4, end: 6, length: 5 });
    check(
        splice(1, usize::MAX, ""),
        AccessError::OutOfRange { position: 1, end: usize::MAX, length: 5 },
    );
    check(in_list(0, 1), AccessError::OutOfRange { position: 0, end: 1, length: 0 });
    check(
        DocumentEdit::InsertItem { path: path("list"), index: 1, value: int(1) },
        AccessError::OutOfRange { position: 1, end: 1, length: 0 },
    );
    check(
        at(path("nowhere"), "k", int(1)),
        AccessError::NoSuchField { path: "/nowhere".to_owned() },
    );
    check(
        at(path("list").then("key"), "k", int(1)),
        AccessError::NoSuchField { path: "/list/key".to_owned() },
    );
    check(
        at(path("list"), "k", int(1)),
        AccessError::WrongKind { path: "/list".to_owned(), expected: FieldKind::Map },
    );
    check(
        at(path("map").then("k"), "k", int(1)),
        AccessError::WrongKind { path: "/map/k".to_owned(), expected: FieldKind::Map },
    );
}

#[test]
fn nesting_ends_at_its_limit() {
    let mut document = open(ALICE, &[]);
    let mut deep = path("map");
    let nest = |path: &DocumentPath| DocumentEdit::Put {
        path: path.clone(),
        key: "m".to_owned(),
        value: empty(FieldKind::Map),
    };
    while deep.0.len() < super::super::MAX_DOCUMENT_DEPTH {
        change(&mut *document, &[nest(&deep)]);
        deep = deep.then("m");
    }
    assert_eq!(document.edit(&[nest(&deep)]), Err(AccessError::TooDeep));
    assert_eq!(document.edit(&[nest(&deep.clone().then("m"))]), Err(AccessError::TooDeep));
    assert!(document.to_json().is_ok());
}

#[test]
fn an_edit_that_peers_would_refuse_is_taken_back() {
    let check = |edit: DocumentEdit, expected: &str| {
        let mut document = open(ALICE, &[]);
        change(&mut *document, &[splice(0, 0, "abc")]);
        let before = document.to_json().unwrap();
        assert_eq!(document.edit(&[edit]).unwrap_err().to_string(), expected);
        assert_eq!((document.to_json().unwrap(), document.change_count()), (before, 1));
        assert_eq!(change(&mut *document, &[splice(0, 0, ">")]).sequence, 2);
        assert_eq!(text(&*document), ">abc");
    };
    check(
        splice(1, 0, &"x".repeat(300_000)),
        "the edits make no valid change: the change has 300000 operations, the limit is 262144",
    );
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    let bytes: Vec<u8> = (0..1_100_000).map(|_| noise()).collect();
    let mut document = open(ALICE, &[]);
    let refused = document.edit(&[put("k", NewValue::Scalar(Scalar::Bytes(bytes)))]);
    assert!(matches!(
        refused,
        Err(AccessError::Refused(DocumentError::ChangeTooLarge { bytes: 1_048_577.. }))
    ));
    assert_eq!(document.heads(), [genesis(&fields()).unwrap().hash]);
}

#[test]
fn an_editor_may_lag_behind_what_arrives() {
    let (mut alice, mut bob) = (open(ALICE, &[]), open(BOB, &[]));
    let base = change(&mut *alice, &[splice(0, 0, "one two three")]);
    bob.apply(std::slice::from_ref(&base)).unwrap();
    let view = bob.heads();
    bob.apply(&[change(&mut *alice, &[splice(0, 4, "")])]).unwrap();
    assert_eq!(text(&*bob), "two three");

    let late = bob.edit_at(&view, &[splice(4, 3, "2")]).unwrap().unwrap();
    assert_eq!(text(&*bob), "2 three");
    assert_eq!((late.deps.as_slice(), late.actor.as_slice()), (view.as_slice(), BOB.as_slice()));
    // The editor has seen its own edit, but still not the other's.
    let later = bob.edit_at(&[late.hash], &[splice(13 - 2, 0, "!")]).unwrap().unwrap();
    assert_eq!((later.deps, later.sequence), (vec![late.hash], 2));
    assert_eq!(text(&*bob), "2 three!");
}

#[test]
fn a_branch_off_ones_own_past_has_an_actor_of_its_own() {
    let mut document = open(ALICE, &[]);
    let base = change(&mut *document, &[splice(0, 0, "abc")]);
    let next = change(&mut *document, &[splice(3, 0, "d")]);
    assert!(document.edit_at(&[base.hash], &[splice(0, 0, "x"), splice(9, 0, "x")]).is_err());
    let branches: Vec<Change> = ["1", "2"]
        .map(|insert| document.edit_at(&[base.hash], &[splice(0, 0, insert)]).unwrap().unwrap())
        .into();
    assert!(branches.iter().all(|branch| branch.actor.ends_with(&ALICE) && branch.actor != ALICE));
    assert_ne!(branches[0].actor, branches[1].actor);
    let merged = change(&mut *document, &[splice(0, 0, ">")]);
    assert_eq!((merged.actor.as_slice(), merged.sequence, merged.deps.len()), (&ALICE[..], 3, 3));
    let all = [merged, branches[1].clone(), branches[0].clone(), next, base];
    assert_eq!(text(&*open(BOB, &all)), text(&*document));
}

#[test]
fn unknown_heads_are_named() {
    let mut document = open(ALICE, &[]);
    let unknown = ChangeHash([7; 32]);
    let refused = document.edit_at(&[unknown], &[splice(0, 0, "x")]);
    assert_eq!(refused, Err(AccessError::UnknownHead(unknown)));
    assert_eq!(document.missing(&[unknown, document.heads()[0]]), [unknown]);
}

#[test]
fn changes_are_added_once_in_any_order_all_or_none() {
    let mut alice = open(ALICE, &[]);
    let changes: Vec<Change> = (0..5)
        .map(|i| change(&mut *alice, &[splice(i, 0, "x"), put("i", int(i as i64))]))
        .collect();
    let reversed: Vec<Change> = changes.iter().rev().cloned().collect();

    let mut bob = open(BOB, &[]);
    let gap = bob.apply(&reversed[..4]);
    let (change, dependency) = (changes[1].hash, changes[0].hash);
    assert_eq!(gap, Err(DocumentError::MissingDependency { change, dependency }));
    assert_eq!(bob.change_count(), 0);
    assert_eq!(bob.apply(&reversed).unwrap(), 5);
    assert_eq!(bob.apply(&reversed).unwrap(), 0);
    assert_eq!(bob.apply(&[changes[0].clone(), changes[0].clone()]).unwrap(), 0);
    assert_eq!(bob.to_json().unwrap(), alice.to_json().unwrap());
    assert_eq!(bob.approximate_bytes(), alice.approximate_bytes());
}

#[test]
fn opening_names_the_chunk_or_the_dependency_that_is_wrong() {
    let mut alice = open(ALICE, &[]);
    let first = change(&mut *alice, &[splice(0, 0, "a")]);
    let second = change(&mut *alice, &[splice(1, 0, "b")]);
    let open = |chunks: &[&[u8]]| {
        let genesis = genesis(&fields());
        super::super::open(BOB, genesis.as_ref(), chunks.iter().copied()).unwrap_err()
    };
    let expected = DocumentError::Chunk {
        index: 1,
        source: Box::new(DocumentError::NotAChange("it does not begin like one")),
    };
    assert_eq!(open(&[&first.bytes, b"nonsense"]), expected);
    let (change, dependency) = (second.hash, first.hash);
    assert_eq!(open(&[&second.bytes]), DocumentError::MissingDependency { change, dependency });
    let without_genesis = super::super::open(BOB, None, [first.bytes.as_slice()].into_iter());
    let (change, dependency) = (first.hash, genesis(&fields()).unwrap().hash);
    assert_eq!(
        without_genesis.unwrap_err(),
        DocumentError::MissingDependency { change, dependency }
    );
}

#[test]
fn the_other_half_of_a_cloned_device_is_named() {
    let (mut device, mut clone) = (open(ALICE, &[]), open(ALICE, &[]));
    let kept = change(&mut *device, &[splice(0, 0, "kept")]);
    let forked = change(&mut *clone, &[splice(0, 0, "forked")]);
    let beyond = change(&mut *clone, &[splice(0, 0, "on")]);
    let mut bob = open(BOB, &[]);
    let honest = change(&mut *bob, &[put("k", int(1))]);
    device.apply(std::slice::from_ref(&honest)).unwrap();
    for changes in [vec![forked.clone()], vec![honest, beyond, forked.clone()]] {
        let refused = device.apply(&changes).unwrap_err();
        assert!(matches!(refused, DocumentError::Unfit { change, .. } if change == forked.hash));
    }
    assert_eq!(text(&*device), "kept");
    bob.apply(&[kept]).unwrap();
    assert_eq!(device.to_json().unwrap(), bob.to_json().unwrap());
}

#[test]
fn edits_of_several_texts_in_turns_reach_each_its_own() {
    let mut document = open(ALICE, &[]);
    let second = path("map").then("second");
    let of_second = |position, delete, insert: &str| DocumentEdit::SpliceText {
        path: second.clone(),
        position,
        delete,
        insert: insert.to_owned(),
    };
    let edits = [
        put("second", empty(FieldKind::Text)),
        splice(0, 0, "first"),
        of_second(0, 0, "old"),
        put("second", empty(FieldKind::Text)),
        of_second(0, 0, "grün"),
        of_second(4, 0, "er"),
        splice(5, 0, "!"),
        of_second(1, 3, ""),
        of_second(3, 0, "z"),
    ];
    change(&mut *document, &edits);
    assert_eq!(text(&*document), "first!");
    assert_eq!(document.text(&second).unwrap(), "gerz");
    let beyond = [of_second(4, 0, "t"), of_second(5, 1, "")];
    let error = document.edit(&beyond).unwrap_err();
    assert_eq!(error, AccessError::OutOfRange { position: 5, end: 6, length: 5 });
}

/// How somebody types: at the cursor, back or forward from it, or somewhere else.
fn typing() -> impl Strategy<Value = Vec<DocumentEdit>> {
    let stroke = (0..5_u8, any::<Index>(), 0..3_usize, "[a-c🦀]{0,2}");
    proptest::collection::vec(stroke, 1..40).prop_map(|strokes| {
        let (mut cursor, mut length) = (0, 0);
        let edit = |(kind, place, count, insert): (u8, Index, usize, String)| {
            let (position, delete, insert) = match kind {
                0 | 1 => (cursor, 0, insert),
                2 => (cursor - count.min(cursor), count.min(cursor), String::new()),
                3 => (cursor, count.min(length - cursor), String::new()),
                _ => {
                    let position = place.index(length + 1);
                    (position, count.min(length - position), insert)
                }
            };
            let inserted = insert.chars().count();
            (cursor, length) = (position + inserted, length - delete + inserted);
            splice(position, delete, &insert)
        };
        strokes.into_iter().map(edit).collect()
    })
}

proptest! {
    #[test]
    fn edits_of_one_change_come_to_what_they_do_one_by_one(edits in typing()) {
        let (mut at_once, mut one_by_one) = (open(ALICE, &[]), open(ALICE, &[]));
        at_once.edit(&edits).unwrap();
        for edit in &edits {
            one_by_one.edit(std::slice::from_ref(edit)).unwrap();
        }
        prop_assert_eq!(text(&*at_once), text(&*one_by_one));
    }
}

#[test]
fn edits_that_go_on_from_one_another_are_made_as_one() {
    let same = |many: &[DocumentEdit], one: DocumentEdit| {
        let made = |edits: &[DocumentEdit]| {
            let mut document = open(ALICE, &[]);
            change(&mut *document, &[splice(0, 0, "0123456789")]);
            change(&mut *document, edits)
        };
        assert_eq!(made(many), made(&[one]));
    };
    same(&[splice(2, 1, "a🦀"), splice(4, 0, "b"), splice(5, 0, "c")], splice(2, 1, "a🦀bc"));
    same(&[splice(5, 1, ""), splice(4, 1, ""), splice(2, 2, "")], splice(2, 4, ""));
    same(&[splice(5, 1, ""), splice(5, 2, ""), splice(4, 1, "")], splice(4, 4, ""));
}

#[test]
fn json_that_is_too_long_is_known_before_it_is_written() {
    let mut document = open(ALICE, &[]);
    let list = path("list");
    let item = NewValue::Scalar(Scalar::Text("12345".to_owned()));
    let insert = DocumentEdit::InsertItem { path: list, index: 0, value: item };
    change(&mut *document, &[splice(0, 0, "1234567890"), insert, put("bytes", int(1))]);
    let whole = document.to_json().unwrap();
    let length = whole.to_string().len();
    assert_eq!(document.to_json_within(length).unwrap(), Some(whole.clone()));
    // The keys list, map, bytes and text, the two texts and the number.
    let at_least = 4 + 3 + 5 + 4 + 10 + 5 + 1;
    assert_eq!(document.to_json_within(at_least).unwrap(), Some(whole));
    for too_few in [0, 9, at_least - 1] {
        assert_eq!(document.to_json_within(too_few).unwrap(), None, "{too_few}");
    }
}

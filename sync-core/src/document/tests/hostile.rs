//! What peers might send: damaged, oversized and lying chunks. Each is refused, and the document stays as it was.

use std::path::Path;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use proptest::prelude::*;

use super::super::{Change, DocumentError, inspect};
use super::{ALICE, BOB, change, int, open, put, splice};

const HEADER: [u8; 8] = [0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0];

fn leb128(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn chunk(kind: u8, data: &[u8]) -> Vec<u8> {
    [&HEADER[..], &[kind], &leb128(data.len() as u64), data].concat()
}

/// A change chunk with a right checksum, whatever its body says.
fn sealed(body: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = chunk(1, body);
    super::super::chunk::check_bounds(&bytes).ok()?;
    let hash = ::automerge::Change::try_from(bytes.as_slice()).ok()?.hash();
    bytes[4..8].copy_from_slice(&hash.0[..4]);
    Some(bytes)
}

/// What follows the header of the change's uncompressed chunk.
fn body(change: &Change) -> Vec<u8> {
    let raw = ::automerge::Change::try_from(change.bytes.as_slice()).unwrap().raw_bytes().to_vec();
    let length = raw[9..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
    raw[9 + length..].to_vec()
}

/// A body with these columns: no dependency, an actor, sequence and first operation 1, no time and message.
fn with_columns(columns: &[(u8, &[u8])]) -> Vec<u8> {
    let mut body = vec![0, 2, 7, 7, 1, 1, 0, 0, 0, columns.len() as u8];
    columns.iter().for_each(|(column, data)| body.extend([*column, data.len() as u8]));
    columns.iter().for_each(|(_, data)| body.extend(*data));
    body
}

fn refusal(bytes: &[u8]) -> String {
    inspect(bytes).unwrap_err().to_string()
}

/// Some changes of every kind of operation.
fn samples() -> Vec<Change> {
    let (mut alice, mut bob) = (open(ALICE, &[]), open(BOB, &[]));
    let mut all = vec![change(&mut *alice, &[splice(0, 0, "hello world"), put("k", int(1))])];
    bob.apply(&all).unwrap();
    all.push(change(&mut *alice, &[splice(2, 3, "XY"), put("k", int(2)), put("l", int(3))]));
    all.push(change(&mut *bob, &[splice(1, 6, "xyz"), put("k", int(4))]));
    alice.apply(&all[2..]).unwrap();
    all.push(change(&mut *alice, &[splice(0, 4, "end"), put("k", int(5))]));
    all
}

#[test]
fn only_exactly_one_change_passes() {
    let good = samples().remove(0).bytes;
    assert_eq!(inspect(&good).unwrap().bytes, good);
    assert_eq!(refusal(b""), "not one change: it does not begin like one");
    assert_eq!(refusal(&good[..good.len() - 1]), "the change is damaged: it ends too early");
    assert_eq!(refusal(&[&good[..], &[0]].concat()), "not one change: bytes follow it");
    assert_eq!(refusal(&[&good[..], &good[..]].concat()), "not one change: bytes follow it");
    assert_eq!(refusal(&chunk(0, b"")), "not one change: it is a whole document");
    assert_eq!(refusal(&chunk(3, b"")), "not one change: it is a chunk of another type");
    assert_eq!(
        refusal(&vec![0; (1 << 20) + 1]),
        "the change is 1048577 bytes long, the limit is 1048576"
    );
}

#[test]
fn every_flipped_bit_is_found() {
    for change in samples() {
        let bytes = sealed(&body(&change)).unwrap();
        assert_eq!(inspect(&bytes).unwrap().hash, change.hash);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(inspect(&flipped).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn nothing_expands_beyond_its_bound() {
    let huge = leb128(1 << 61);
    let run = |value: u8| [&huge[..], &[value]].concat();
    let check = |columns: &[(u8, &[u8])], expected: &str| {
        assert_eq!(refusal(&chunk(1, &with_columns(columns))), expected);
    };
    let count = 1_u64 << 61;
    check(&[(0x42, &run(1))], &format!("the change has {count} operations, the limit is 262144"));
    check(
        &[(0x70, &[1, 0x80, 0x80, 0x80, 0x80, 1])],
        "the change has 268435456 predecessors, the limit is 262144",
    );
    let keys = [&[0x80, 0x80, 0x80, 0x80, 1, 2][..], b"ab"].concat();
    check(&[(0x15, &keys)], "the change has 536870912 bytes of keys, the limit is 16777216");
    // The smallest count there is, in a column that is walked and in one that only the engine reads.
    let smallest = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f];
    check(&[(0x42, &smallest)], "the change is damaged: it ends too early");
    assert!(inspect(&chunk(1, &with_columns(&[(1, &smallest), (0x42, &[1, 1])]))).is_err());

    let many_dependencies = [leb128(257), vec![0; 257 * 32]].concat();
    assert_eq!(
        refusal(&chunk(1, &many_dependencies)),
        "the change has 257 dependencies, the limit is 256"
    );
    let last_number =
        [&[0, 2, 7, 7, 1][..], &leb128(1 << 40), &[0, 0, 0, 1, 0x42, 2, 1, 1]].concat();
    assert_eq!(
        refusal(&chunk(1, &last_number)),
        "the change has 1099511627777 operations before it, the limit is 4194304"
    );
}

#[test]
fn a_bomb_is_not_inflated() {
    use std::io::Write as _;
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; 17 << 20]).unwrap();
    let bomb = chunk(2, &encoder.finish().unwrap());
    assert!(bomb.len() < 20_000);
    assert_eq!(refusal(&bomb), "the change inflates to more than 16777216 bytes");
}

#[test]
fn the_actor_of_the_first_change_is_reserved() {
    let mut impostor = open([0; 16], &[]);
    let refused = impostor.edit(&[splice(0, 0, "x")]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the edits make no valid change: the change uses the actor of the first change"
    );
}

/// Files with which the engine was once crashed, and the odd ones of its own tests.
#[test]
fn known_crashers_are_refused_or_harmless() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/automerge-crashers");
    let check = |folder: &str, expected: &[(&str, &str)]| {
        assert_eq!(data.join(folder).read_dir().unwrap().count(), expected.len());
        for (name, expected) in expected {
            let bytes = std::fs::read(data.join(folder).join(name)).unwrap();
            let document = super::super::open(ALICE, None, [bytes.as_slice()].into_iter());
            let found = match (inspect(&bytes), document) {
                (Ok(_), Ok(document)) => document.to_json().unwrap().to_string(),
                (Err(why), Err(DocumentError::Chunk { index: 0, source })) if *source == why => {
                    why.to_string()
                }
                (_, document) => panic!("{name} is inspected otherwise than opened: {document:?}"),
            };
            assert_eq!(found, *expected, "{name}");
        }
    };
    let document = "not one change: it is a whole document";
    check(
        "fuzz-crashers",
        &[
            (
                "action-is-48.automerge",
                "the change is damaged: unable to parse change: unrecognized action index 48",
            ),
            ("crash-da39a3ee5e6b4b0d3255bfef95601890afd80709", document),
            ("incorrect_max_op.automerge", document),
            ("invalid_deflate_stream.automerge", document),
            ("missing_actor.automerge", document),
            ("overflow_in_length.automerge", document),
            ("too_many_deps.automerge", document),
            ("too_many_ops.automerge", document),
        ],
    );
    let two = "not one change: bytes follow it";
    let invalid =
        "the change is damaged: unable to parse change: invalid value in column value:value: ";
    check(
        "fixtures",
        &[
            (
                "64bit_obj_id_change.automerge",
                "the change has 4398046511105 operations before it, the limit is 4194304",
            ),
            ("64bit_obj_id_doc.automerge", document),
            ("broken_zero_width_mark.automerge", document),
            ("counter_value_has_incorrect_meta.automerge", &format!("{invalid}extra bytes")),
            ("counter_value_is_ok.automerge", r#"{"a":2000}"#),
            (
                "counter_value_is_overlong.automerge",
                &format!("{invalid}leb128 was improperly encoded"),
            ),
            ("two_change_chunks.automerge", two),
            ("two_change_chunks_compressed.automerge", two),
            ("two_change_chunks_out_of_order.automerge", two),
        ],
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Changes with right checksums that point at things that are not there.
    #[test]
    fn a_lying_change_is_refused_or_harmless(
        sample in 0..4_usize,
        lies in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let samples = samples();
        let mut body = body(&samples[sample]);
        for (place, byte) in lies {
            let place = place.index(body.len());
            body[place] = if byte < 128 { byte % 8 } else { byte };
        }
        let Some(Ok(lie)) = sealed(&body).map(|bytes| inspect(&bytes)) else { return Ok(()) };
        let mut document = open([0xcc; 16], &samples[..sample]);
        let before = document.to_json().unwrap();
        match document.apply(std::slice::from_ref(&lie)) {
            Ok(added) => prop_assert_eq!(added, 1),
            Err(error) => {
                let named = matches!(
                    &error,
                    DocumentError::Unfit { change, .. } | DocumentError::MissingDependency { change, .. }
                        if *change == lie.hash
                );
                prop_assert!(named, "{error}");
                prop_assert_eq!(document.to_json().unwrap(), before);
            }
        }
        let after = document.to_json().unwrap();
        document.edit(&[put("k", int(9))]).unwrap();
        prop_assert_eq!(document.to_json().unwrap()["map"]["k"].as_i64(), Some(9), "{}", after);
    }
}

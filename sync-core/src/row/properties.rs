//! The merge laws, over every column type.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::{Cell, CounterTotal, DocumentSummary, Life, RowState, SetEntry};
use crate::hlc::{Hlc, Stamp};
use crate::ids::{ColumnId, DeviceId};
use crate::mutation::{Cells, Op};
use crate::value::Value;

/// Cases of each law; the four laws and the codec together pass 100,000.
const CASES: u32 = 25_000;

pub(crate) fn device() -> impl Strategy<Value = DeviceId> {
    (0..4u8).prop_map(|n| DeviceId::from_bytes([n; 16]))
}

/// Few distinct stamps, so that equal and neighbouring ones are common.
pub(crate) fn stamp() -> impl Strategy<Value = Stamp> {
    (1..12u64, device()).prop_map(|(hlc, device)| Stamp { hlc: Hlc(hlc), device })
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::from),
        "[a-zé]{0,6}".prop_map(Value::from),
        vec(any::<u8>(), 0..6).prop_map(Value::Bytes),
        any::<i64>().prop_map(Value::Timestamp),
        any::<[u8; 16]>().prop_map(Value::Uuid),
        Just(Value::Json("[1, null]".into())),
    ]
}

fn columns() -> impl Strategy<Value = ColumnId> {
    (1..5u16).prop_map(ColumnId)
}

pub(crate) fn row() -> impl Strategy<Value = RowState> {
    let cells = btree_map(columns(), (value(), stamp()), 0..4);
    let total = (0..5u64, 0..5u64).prop_map(|(added, taken)| CounterTotal { added, taken });
    let counters = btree_map(columns(), btree_map(device(), total, 1..3), 0..2);
    let entry = (1..9u64, any::<bool>()).prop_map(|(hlc, alive)| SetEntry { hlc: Hlc(hlc), alive });
    let sets =
        btree_map(columns(), btree_map(value(), btree_map(device(), entry, 1..3), 1..3), 0..2);
    let summary = (1..3u32, 0..3u128).prop_map(|(changes, sum)| DocumentSummary { changes, sum });
    let documents = btree_map(columns(), summary, 0..2);
    let life = proptest::option::of(
        (stamp(), any::<bool>()).prop_map(|(stamp, deleted)| Life { stamp, deleted }),
    );
    (life, cells, counters, sets, documents).prop_map(|(life, cells, counters, sets, documents)| {
        let cells = cells
            .into_iter()
            .map(|(column, (value, stamp))| Cell { column, value, stamp })
            .collect();
        RowState { life, cells, counters, sets, documents }
    })
}

fn op() -> impl Strategy<Value = Op> {
    let cells = || vec((columns(), value()), 0..3).prop_map(Cells::new);
    let element = || (0..3i64).prop_map(Value::Int);
    prop_oneof![
        cells().prop_map(|cells| Op::Insert { cells }),
        cells().prop_map(|cells| Op::Update { cells }),
        Just(Op::Delete),
        Just(Op::Restore),
        (columns(), any::<i64>()).prop_map(|(column, delta)| Op::Increment { column, delta }),
        (columns(), element()).prop_map(|(column, element)| Op::SetAdd { column, element }),
        (columns(), element(), vec(stamp(), 0..3))
            .prop_map(|(column, element, observed)| Op::SetRemove { column, element, observed }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, ..ProptestConfig::default() })]

    #[test]
    fn merging_is_commutative(a in row(), b in row()) {
        prop_assert_eq!(a.merge(&b).encode(), b.merge(&a).encode());
    }

    #[test]
    fn merging_is_associative(a in row(), b in row(), c in row()) {
        prop_assert_eq!(a.merge(&b).merge(&c), a.merge(&b.merge(&c)));
    }

    #[test]
    fn merging_is_idempotent_and_grows(a in row(), b in row()) {
        let merged = a.merge(&b);
        prop_assert_eq!(a.merge(&a), a);
        prop_assert_eq!(merged.merge(&b), merged);
    }

    #[test]
    fn a_row_has_one_encoding(a in row(), b in row()) {
        let bytes = a.encode();
        prop_assert_eq!(&RowState::decode(&bytes).unwrap(), &a);
        prop_assert_eq!(a == b, bytes == b.encode());
    }

    #[test]
    fn mutations_with_rising_stamps_only_ever_add_to_what_is_known(ops in vec(op(), 1..8)) {
        let mut row: Option<RowState> = None;
        for (n, op) in (1..).zip(&ops) {
            let stamp = Stamp { hlc: Hlc(n), device: DeviceId::from_bytes([1; 16]) };
            let Ok(next) = RowState::apply(row.clone(), op.clone(), stamp, None) else { continue };
            if let Some(before) = &row {
                prop_assert_eq!(before.merge(&next), next.clone(), "a step back by {:?}", op);
            }
            row = Some(next);
        }
    }
}

proptest! {
    #[test]
    fn hostile_bytes_are_an_error_or_a_row_with_that_encoding(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(row) = RowState::decode(&bytes) {
            prop_assert_eq!(row.encode(), bytes);
        }
    }

    #[test]
    fn a_row_with_another_byte_is_an_error_or_has_that_encoding(
        row in row(), at in any::<prop::sample::Index>(), to: u8,
    ) {
        let mut bytes = row.encode();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(row) = RowState::decode(&bytes) {
            prop_assert_eq!(row.encode(), bytes);
        }
    }

    #[test]
    fn a_row_with_a_longer_head_is_an_error(row in row(), at in any::<prop::sample::Index>()) {
        let bytes = row.encode();
        let at = at.index(bytes.len());
        // The shortest head there is, written one step longer; elsewhere it makes bytes that are no row.
        let mut longer = bytes[..at].to_vec();
        longer.extend([bytes[at] & 0xe0 | 24, bytes[at] & 0x1f]);
        longer.extend(&bytes[at + 1..]);
        if let Ok(row) = RowState::decode(&longer) {
            prop_assert_eq!(row.encode(), longer);
        }
    }

    #[test]
    fn cut_rows_are_an_error(row in row(), cut in any::<prop::sample::Index>()) {
        let bytes = row.encode();
        prop_assert!(RowState::decode(&bytes[..cut.index(bytes.len())]).is_err());
    }
}

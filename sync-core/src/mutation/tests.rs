//! Transactions come out as they went in, and say once what their mutations have in common.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::row::properties::{row, stamp, value};

fn columns() -> impl Strategy<Value = Vec<u16>> {
    prop_oneof![Just(vec![1, 2, 300]), Just(vec![]), vec(1..5u16, 0..3)]
}

fn cells() -> impl Strategy<Value = Cells> {
    (columns(), vec(value(), 3)).prop_map(|(columns, values)| {
        Cells::new(columns.into_iter().map(ColumnId).zip(values).collect())
    })
}

fn op() -> impl Strategy<Value = Op> {
    let column = || (1..400u16).prop_map(ColumnId);
    prop_oneof![
        4 => cells().prop_map(|cells| Op::Insert { cells }),
        4 => cells().prop_map(|cells| Op::Update { cells }),
        1 => Just(Op::Delete),
        1 => Just(Op::Restore),
        1 => (column(), any::<i64>()).prop_map(|(column, delta)| Op::Increment { column, delta }),
        1 => (column(), value()).prop_map(|(column, element)| Op::SetAdd { column, element }),
        1 => (column(), value(), vec(stamp(), 0..3))
            .prop_map(|(column, element, observed)| Op::SetRemove { column, element, observed }),
        1 => (column(), vec(any::<u8>(), 0..9))
            .prop_map(|(column, change)| Op::Document { column, change }),
        1 => row().prop_map(|state| Op::Offer { state: Box::new(state) }),
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let id = vec(0..2u8, 16).prop_map(|bytes| RowId::from_bytes(bytes.try_into().unwrap()));
    (0..300u16, id, op()).prop_map(|(collection, row, op)| Mutation {
        collection: CollectionId(collection),
        row,
        op,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn transactions_come_out_as_they_went_in(
        number: u64, stamp: u64, mutations in vec(mutation(), 0..20),
    ) {
        let transaction = Transaction { number, stamp: Hlc(stamp), mutations };
        let bytes = transaction.encode();
        prop_assert_eq!(Transaction::peek_number(&bytes), Some(number));
        prop_assert_eq!(Transaction::decode(&bytes).unwrap(), transaction);
    }

    #[test]
    fn what_is_cut_or_flipped_is_an_error_or_another_transaction(
        mutations in vec(mutation(), 1..6), at: prop::sample::Index, to: u8,
    ) {
        let transaction = Transaction { number: 1, stamp: Hlc(5), mutations };
        let mut bytes = transaction.encode();
        let at = at.index(bytes.len());
        prop_assert!(Transaction::decode(&bytes[..at]).is_err());
        bytes[at] = to;
        if let Ok(other) = Transaction::decode(&bytes) {
            prop_assert_eq!(Transaction::decode(&other.encode()).unwrap(), other);
        }
    }
}

#[test]
fn rows_of_one_transaction_cost_little_more_than_their_identities() {
    const ROWS: u64 = 100;
    let values: Vec<Value> = (1..=19).map(Value::Int).collect();
    let cells = || (1..).map(ColumnId).zip(values.iter().cloned()).collect();
    let mutations = (0..ROWS).map(|row| {
        let mut id = [0x01; 16];
        id[8..].copy_from_slice(&row.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        let op = Op::Insert { cells: Cells::new(cells()) };
        Mutation { collection: CollectionId(4), row: RowId::from_bytes(id), op }
    });
    let transaction =
        Transaction { number: 7, stamp: Hlc(1 << 60), mutations: mutations.collect() };
    let of_values: usize = values.iter().map(|value| minicbor::to_vec(value).unwrap().len()).sum();
    let beyond = transaction.encode().len() as f64 / ROWS as f64 - of_values as f64;
    assert!(beyond <= 17.0, "{beyond} bytes a row");
}

#[test]
fn too_many_mutations_are_refused_before_they_are_read() {
    let mut bytes = Vec::new();
    codec::write_head(&mut bytes, 1, Hlc(1), MAX_MUTATIONS_PER_TRANSACTION + 1);
    let error = Transaction::decode(&bytes).unwrap_err();
    assert!(matches!(error, TransactionError::TooMany { mutations: 10_001 }), "{error}");
    bytes.clear();
    codec::write_head(&mut bytes, 1, Hlc(1), MAX_MUTATIONS_PER_TRANSACTION);
    let error = Transaction::decode(&bytes).unwrap_err();
    assert!(matches!(error, TransactionError::Malformed(_)), "{error}");
}

#[test]
fn values_without_columns_are_an_error() {
    // An insert of one value in a transaction that named no columns yet.
    let bytes = [0x83, 1, 1, 0x81, 0x83, 4, 0x41, 9, 0x82, 0, 0x81, 0x81, 5];
    assert!(Transaction::decode(&bytes).is_err());
}

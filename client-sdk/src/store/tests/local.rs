//! Local transactions: what they do is visible, durable, bounded, and whole or not at all.

use farshore_sync_core::mutation::Transaction;
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::value::Value;
use farshore_sync_core::wire::limits::MAX_MUTATIONS_PER_TRANSACTION;

use super::super::{ColumnValue, SqlValue, WriteError, WriteTransaction};
use super::harness::{Device, NOW, row};

#[test]
fn every_type_reads_back_through_sql_and_through_typed_reads() {
    let mut device = Device::new(1);
    let values = [
        ("title", Value::from("grüße\0'")),
        ("size", Value::Int(7)),
        ("weight", Value::from(1.0)),
        ("done", Value::Bool(true)),
        ("photo", Value::Bytes(vec![0, 255])),
        ("seen_at", Value::Timestamp(-1)),
        ("owner", Value::Uuid([9; 16])),
        ("extra", Value::Json("{\"a\": 1}".into())),
    ];
    let id = device.write(|tx| tx.insert("items", None, &values));
    device.write(|tx| {
        tx.increment("items", id, "stock", 5)?;
        tx.increment("items", id, "stock", -2)?;
        tx.set_add("items", id, "tags", "b".into())?;
        tx.set_add("items", id, "tags", "a".into())?;
        tx.set_remove("items", id, "tags", "b".into())
    });
    for _ in 0..2 {
        for (name, value) in &values {
            assert_eq!(
                device.column("items", id, name),
                ColumnValue::Scalar(value.clone()),
                "{name}"
            );
        }
        assert_eq!(device.stock(id), 3);
        assert_eq!(device.column("items", id, "tags"), ColumnValue::Set(vec!["a".into()]));
        let row = device.sql("SELECT title, size, weight, done, photo, seen_at, owner, extra, stock, tags FROM items");
        let expected = vec![
            SqlValue::Text("grüße\0'".into()),
            SqlValue::Int(7),
            SqlValue::Real(1.0),
            SqlValue::Int(1),
            SqlValue::Bytes(vec![0, 255]),
            SqlValue::Int(-1),
            SqlValue::Bytes(vec![9; 16]),
            SqlValue::Text("{\"a\": 1}".into()),
            SqlValue::Int(3),
            SqlValue::Text("[\"a\"]".into()),
        ];
        assert_eq!(row, [expected]);
        device.reopen();
    }
}

#[test]
fn values_that_sql_would_change_stay_what_they_are() {
    let device = Device::new(1);
    for float in [f64::NAN, -0.0, f64::INFINITY, f64::MIN_POSITIVE, 1e300] {
        let id = device.write(|tx| tx.insert("items", None, &[("weight", float.into())]));
        assert_eq!(device.column("items", id, "weight"), ColumnValue::Scalar(float.into()));
        let id = device.write(|tx| {
            tx.update("items", id, &[("title", "again".into())])?;
            Ok(id)
        });
        assert_eq!(device.column("items", id, "weight"), ColumnValue::Scalar(float.into()));
    }
}

#[test]
fn columns_left_out_have_their_defaults() {
    let device = Device::new(1);
    let id = device.write(|tx| tx.insert("items", None, &[]));
    assert_eq!(device.column("items", id, "done"), ColumnValue::Scalar(false.into()));
    assert_eq!(device.column("items", id, "title"), ColumnValue::Scalar(Value::Null));
    assert_eq!(device.column("items", id, "stock"), ColumnValue::Counter(0));
    let visit = device.write(|tx| tx.insert("visits", None, &[("site", "a".into())]));
    assert_eq!(device.text("visits", visit, "purpose"), "inspection");
    assert_eq!(
        device.sql("SELECT done, stock, tags FROM items")[0][1..],
        [SqlValue::Int(0), SqlValue::Text("[]".into())]
    );
}

#[test]
fn rows_come_and_go_and_come_back() {
    let device = Device::new(1);
    let id = device.insert_item("here");
    device.write(|tx| tx.update("items", id, &[("size", 3.into())]));
    device.write(|tx| tx.delete("items", id));
    assert!(!device.exists("items", id));
    assert!(device.sql("SELECT id FROM items").is_empty());
    let error =
        device.store.write(NOW, |tx| tx.update("items", id, &[("size", 4.into())])).unwrap_err();
    assert!(matches!(error, WriteError::RowDeleted { row, .. } if row == id), "{error}");
    device.write(|tx| tx.restore("items", id));
    assert_eq!(device.text("items", id, "title"), "here");
    assert_eq!(device.column("items", id, "size"), ColumnValue::Scalar(3.into()));
}

#[test]
fn put_writes_or_creates_and_insert_refuses_what_is_there() {
    let device = Device::new(1);
    let id = row(5);
    device.write(|tx| tx.put("items", Some(id), &[("title", "first".into()), ("size", 1.into())]));
    device.write(|tx| tx.put("items", Some(id), &[("title", "second".into())]));
    assert_eq!(device.text("items", id, "title"), "second");
    assert_eq!(device.column("items", id, "size"), ColumnValue::Scalar(1.into()));
    let error = device.store.write(NOW, |tx| tx.insert("items", Some(id), &[])).unwrap_err();
    assert!(matches!(error, WriteError::RowExists { row, .. } if row == id));
    let error = device.store.write(NOW, |tx| tx.update("items", row(6), &[])).unwrap_err();
    assert!(matches!(error, WriteError::RowMissing { .. }));
    let error = device.store.write(NOW, |tx| tx.delete("items", row(6))).unwrap_err();
    assert!(matches!(error, WriteError::RowMissing { .. }));
}

#[test]
fn a_column_group_moves_as_one() {
    let device = Device::new(1);
    let id = device.write(|tx| {
        tx.insert("visits", None, &[("site", "a".into()), ("starts_at", Value::Timestamp(1))])
    });
    device.write(|tx| tx.update("visits", id, &[("ends_at", Value::Timestamp(9))]));
    let transactions: Vec<Transaction> =
        device.outbox().iter().map(|(_, bytes)| Transaction::decode(bytes).unwrap()).collect();
    let written: Vec<Vec<u16>> = transactions
        .iter()
        .map(|transaction| match &transaction.mutations[0].op {
            farshore_sync_core::mutation::Op::Insert { cells }
            | farshore_sync_core::mutation::Op::Update { cells } => {
                cells.as_slice().iter().map(|(column, _)| column.0).collect()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(written, [vec![1, 3, 4], vec![3, 4]]);
    assert_eq!(device.column("visits", id, "starts_at"), ColumnValue::Scalar(Value::Timestamp(1)));
    assert_eq!(device.column("visits", id, "ends_at"), ColumnValue::Scalar(Value::Timestamp(9)));
}

#[test]
fn what_does_not_fit_the_schema_is_refused_with_the_servers_code() {
    let device = Device::new(1);
    let refused = |column: &str, value: Value| {
        let error =
            device.store.write(NOW, |tx| tx.insert("items", None, &[(column, value)])).unwrap_err();
        match error {
            WriteError::Invalid { code, .. } => Some(code),
            WriteError::UnknownColumn { .. } => None,
            other => panic!("{other}"),
        }
    };
    assert_eq!(refused("size", "seven".into()), Some(ReasonCode::TypeMismatch));
    assert_eq!(refused("size", 101.into()), Some(ReasonCode::OutOfRange));
    assert_eq!(refused("stock", 1.into()), Some(ReasonCode::TypeMismatch));
    assert_eq!(refused("title", "x".repeat(1001).into()), Some(ReasonCode::TooLarge));
    assert_eq!(refused("nothing", 1.into()), None);
    let error = device.store.write(NOW, |tx| tx.insert("nothing", None, &[])).unwrap_err();
    assert!(matches!(error, WriteError::UnknownCollection { .. }));
    let error = device.store.write(NOW, |tx| tx.insert("visits", None, &[])).unwrap_err();
    assert!(matches!(error, WriteError::Invalid { code: ReasonCode::NoScope, .. }), "{error}");
    let id = device.insert_item("x");
    let error = device.store.write(NOW, |tx| tx.increment("items", id, "size", 1)).unwrap_err();
    assert!(matches!(error, WriteError::Invalid { code: ReasonCode::TypeMismatch, .. }), "{error}");
    let long = Value::from("x".repeat(1025));
    let error = device.store.write(NOW, |tx| tx.set_add("items", id, "tags", long)).unwrap_err();
    assert!(matches!(error, WriteError::Invalid { code: ReasonCode::TooLarge, .. }), "{error}");
    assert_eq!(device.store.counts().unwrap().unanswered, 1);
}

#[test]
fn a_body_that_fails_leaves_nothing_behind_and_an_operation_that_fails_changes_nothing() {
    let device = Device::new(1);
    let before = device.standing();
    let error = device.store.write(NOW, |tx| {
        tx.insert("items", None, &[("title", "gone".into())])?;
        Err::<(), _>(WriteError::Aborted("changed my mind".into()))
    });
    assert!(matches!(error, Err(WriteError::Aborted(_))));
    assert_eq!(device.standing(), before);
    assert!(device.sql("SELECT id FROM items").is_empty());
    let id = device.write(|tx| {
        let id = tx.insert("items", None, &[("title", "kept".into())])?;
        tx.update("items", id, &[("size", 1000.into())]).unwrap_err();
        tx.update("items", row(9), &[("size", 1.into())]).unwrap_err();
        Ok(id)
    });
    assert_eq!(device.text("items", id, "title"), "kept");
    let transaction = Transaction::decode(&device.outbox()[0].1).unwrap();
    assert_eq!((transaction.number, transaction.mutations.len()), (1, 1));
    device.write(|_| Ok(()));
    assert_eq!(device.standing().next_number, 2, "a transaction that writes nothing has no number");
}

#[test]
fn a_panic_in_a_body_leaves_the_store_usable() {
    let device = Device::new(1);
    let store = device.store.clone();
    let panicked = std::thread::spawn(move || {
        let body = |tx: &mut WriteTransaction<'_>| -> Result<(), WriteError> {
            tx.insert("items", None, &[("title", "gone".into())])?;
            panic!("a bug in the app")
        };
        store.write(NOW, body)
    });
    assert!(panicked.join().is_err());
    let id = device.insert_item("after");
    assert_eq!(device.text("items", id, "title"), "after");
    assert_eq!(device.sql("SELECT count(*) FROM items"), [[SqlValue::Int(1)]]);
    assert_eq!(device.standing().next_number, 2);
}

#[test]
fn a_transaction_sees_its_own_writes() {
    let device = Device::new(1);
    device.write(|tx| {
        let id = tx.insert("items", None, &[("title", "one".into())])?;
        tx.update("items", id, &[("title", "two".into())])?;
        tx.increment("items", id, "stock", 4)?;
        let seen = tx.get("items", id)?.unwrap();
        assert_eq!(seen.columns["title"], ColumnValue::Scalar("two".into()));
        assert_eq!(seen.columns["stock"], ColumnValue::Counter(4));
        tx.delete("items", id)?;
        assert_eq!(tx.get("items", id)?, None);
        Ok(())
    });
    let transaction = Transaction::decode(&device.outbox()[0].1).unwrap();
    assert_eq!(transaction.mutations.len(), 4);
    assert_eq!(transaction.encode(), device.outbox()[0].1);
}

#[test]
fn caps_of_the_protocol_hold_for_local_transactions() {
    let device = Device::new(1);
    let error = device.store.write(NOW, |tx| {
        let id = tx.insert("items", None, &[])?;
        (0..MAX_MUTATIONS_PER_TRANSACTION).try_for_each(|_| tx.increment("items", id, "stock", 1))
    });
    assert!(
        matches!(error, Err(WriteError::TooLarge { what: "mutations of the transaction", .. })),
        "{error:?}"
    );
    let photo = Value::Bytes(vec![1; 250 << 10]);
    let error = device.store.write(NOW, |tx| {
        (0..9).try_for_each(|_| tx.insert("items", None, &[("photo", photo.clone())]).map(|_| ()))
    });
    assert!(
        matches!(error, Err(WriteError::TooLarge { what: "bytes of the transaction", .. })),
        "{error:?}"
    );
    assert!(device.sql("SELECT id FROM items").is_empty());
    assert_eq!(device.store.counts().unwrap().unanswered, 0);
}

#[test]
fn stamps_rise_and_numbers_follow_across_restarts_and_clocks_set_back() {
    let mut device = Device::new(1);
    device.insert_item("a");
    device.reopen();
    device.store.write(5, |tx| tx.insert("items", None, &[])).unwrap();
    let transactions: Vec<Transaction> =
        device.outbox().iter().map(|(_, bytes)| Transaction::decode(bytes).unwrap()).collect();
    assert_eq!(transactions.iter().map(|t| t.number).collect::<Vec<_>>(), [1, 2]);
    assert!(transactions[1].stamp > transactions[0].stamp);
    let error = device.store.write(NOW, |_| Err::<(), _>(WriteError::Aborted(String::new())));
    assert!(error.is_err());
    assert_eq!(device.standing().next_number, 3);
}

#[test]
fn two_processes_share_one_file() {
    let device = Device::new(1);
    let other = device.open_beside();
    let mine = device.insert_item("mine");
    let theirs =
        other.write(NOW, |tx| tx.insert("items", None, &[("title", "theirs".into())])).unwrap();
    other.write(NOW, |tx| tx.update("items", mine, &[("size", 1.into())])).unwrap();
    device.write(|tx| tx.update("items", theirs, &[("size", 2.into())]));
    assert_eq!(device.standing().next_number, 5);
    assert_eq!(other.counts().unwrap().unanswered, 4);
    assert_eq!(device.outbox().iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn a_plain_row_costs_few_hidden_bytes() {
    let columns: Vec<String> =
        (1..=19).map(|n| format!("{{\"name\":\"c{n}\",\"type\":\"int\"}}")).collect();
    let schema = format!(
        "{{\"name\":\"wide\",\"version\":1,\"collections\":[{{\"name\":\"wide\",\"scope\":\"tenant\",\"columns\":[{}]}}]}}",
        columns.join(",")
    );
    let device = Device::with_schema(1, &schema);
    let names: Vec<String> = (1..=19).map(|n| format!("c{n}")).collect();
    let values: Vec<(&str, Value)> =
        names.iter().map(|name| (name.as_str(), Value::Int(1))).collect();
    device.write(|tx| tx.insert("wide", None, &values));
    let hidden =
        device.hidden("SELECT length(fs_meta), length(fs_pending), fs_sum FROM fs_rows_wide");
    assert_eq!(hidden, [[SqlValue::Int(13), SqlValue::Int(3), SqlValue::Null]]);
}

//! Rule 4: what the server refuses moves to the quarantine with its reason; the rest goes on, and nothing is dropped.

use farshore_sync_core::ids::{CollectionId, ColumnId, RowId};
use farshore_sync_core::mutation::{Mutation, Op};
use farshore_sync_core::value::Value;
use serde_json::json;
use system_tests::fleet::{
    FIRST, ITEMS, SECOND, VISITS, cells, count_up, delete, fresh_row, insert_item, insert_visit,
    relabel_item, text,
};
use system_tests::replica::{Replica, is_row};
use system_tests::server::{Server, ServerOptions};
use system_tests::wire::{WireClient, first_hello};

fn insert(collection: CollectionId, column: ColumnId, value: Value) -> Mutation {
    Mutation { collection, row: fresh_row(), op: Op::Insert { cells: cells([(column, value)]) } }
}

#[test]
fn each_refusal_has_its_reason_and_the_others_go_on() {
    let server = Server::start(ServerOptions::default());
    let mut device =
        WireClient::connect(server.address(), &server.token(&["tenant:rw"]).token).unwrap();
    device.catch_up(first_hello());
    let (kept, deleted): (RowId, RowId) = (fresh_row(), fresh_row());
    device.commit(1, vec![insert_item(kept, "kept", 1), insert_item(deleted, "deleted", 1)]);
    device.commit(2, vec![delete(ITEMS, deleted)]);
    let refused = [
        ("permission_denied", insert_visit(fresh_row(), "7", "not my site")),
        ("unknown_collection", insert(CollectionId(99), FIRST, text("x"))),
        ("unknown_column", insert(ITEMS, ColumnId(99), text("x"))),
        ("type_mismatch", insert(ITEMS, SECOND, text("not a number"))),
        ("type_mismatch", count_up_item(kept)),
        ("out_of_range", insert(ITEMS, SECOND, Value::Int(-1))),
        ("out_of_range", insert(ITEMS, SECOND, Value::Int(1_000_001))),
        ("too_large", insert(ITEMS, FIRST, text(&"x".repeat(300_000)))),
        ("row_missing", relabel_item(fresh_row(), "nowhere")),
        ("row_missing", delete(VISITS, fresh_row())),
        ("row_deleted", relabel_item(deleted, "too late")),
    ];
    for (number, (code, mutation)) in (3..).step_by(2).zip(refused) {
        let bystander = fresh_row();
        device.push(number, vec![insert_item(bystander, "in the same transaction", 1), mutation]);
        let refused =
            device.outcome_of(number).refused.unwrap_or_else(|| panic!("{code} was expected"));
        assert_eq!((refused.code.as_str(), refused.index), (code, 1), "{}", refused.message);
        device.push(number + 1, vec![relabel_item(bystander, "of a refused transaction")]);
        let dependant = device.outcome_of(number + 1).refused.expect("its row was never inserted");
        assert_eq!(dependant.code.as_str(), "row_missing");
    }
}

fn count_up_item(row: RowId) -> Mutation {
    Mutation { collection: ITEMS, ..count_up(row, 1) }
}

#[test]
fn a_refused_transaction_waits_in_the_quarantine_with_its_dependants_until_the_app_decides() {
    let server = Server::start(ServerOptions::default());
    let token = server.token(&["tenant:rw", "site/7:rw"]);
    server.grant(token.device, &["tenant:rw"]);
    let mut replica = Replica::create(&server.url(), &token);
    let visit = replica.insert("visits", json!({"site_id": "7", "purpose": "not yet allowed"}));
    replica.transact(json!([["put", "visits", {"id": visit, "purpose": "still not allowed"}]]));
    let doomed = replica.insert("visits", json!({"site_id": "8", "purpose": "never allowed"}));
    let item = replica.insert("items", json!({"label": "goes on", "amount": 1}));
    replica.sync();

    let quarantine = replica.quarantine();
    let codes: Vec<&str> = quarantine.iter().map(|entry| entry["code"].as_str().unwrap()).collect();
    assert_eq!(codes.len(), 3, "{quarantine:?}");
    assert_eq!((codes[0], codes[2]), ("permission_denied", "permission_denied"));
    assert!(["depends_on_refused", "row_missing"].contains(&codes[1]), "{quarantine:?}");
    assert_eq!(replica.number(&format!("SELECT count(*) FROM items WHERE {}", is_row(&item))), 1);

    let mut witness =
        Replica::create(&server.url(), &server.token(&["tenant", "site/7:rw", "site/8"]));
    witness.sync();
    assert_eq!(witness.number("SELECT count(*) FROM items WHERE label = 'goes on'"), 1);
    assert_eq!(witness.number("SELECT count(*) FROM visits"), 0);

    server.grant(token.device, &["tenant:rw", "site/7:rw"]);
    // Once it reads the scope, its session has the right to write there.
    witness.insert("visits", json!({"site_id": "7", "purpose": "of the witness"}));
    replica.wait_for_number("SELECT count(*) FROM visits WHERE purpose = 'of the witness'", 1);
    let ids: Vec<_> = quarantine.iter().map(|entry| entry["mutation"].clone()).collect();
    for id in &ids[..2] {
        replica.call(json!({"op": "resubmit", "mutation": id}));
    }
    replica.call(json!({"op": "discard", "mutation": ids[2]}));
    replica.wait_for("synced");
    assert_eq!(replica.quarantine().len(), 0);
    witness.wait_for_number("SELECT count(*) FROM visits WHERE purpose = 'still not allowed'", 1);
    assert_eq!(witness.number("SELECT count(*) FROM visits"), 2);
    assert_eq!(
        replica.number(&format!("SELECT count(*) FROM visits WHERE {}", is_row(&doomed))),
        0
    );
}

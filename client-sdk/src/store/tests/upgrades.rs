//! Apps and schemas of different ages over one file.

use farshore_sync_core::ids::{CollectionId, ColumnId};
use farshore_sync_core::mutation::{Cells, Op};
use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;

use super::super::{ColumnValue, OpenError, SqlValue};
use super::harness::{Device, NOW, device, row};
use super::server::Server;

const OLD: &str = r#"{"name":"app","version":1,"collections":[
    {"name":"items","scope":"tenant","columns":[{"name":"title","type":"text"}]}]}"#;

const NEW: &str = r#"{"name":"app","version":2,"collections":[
    {"name":"items","scope":"tenant","columns":[
        {"name":"title","type":"text"},
        {"name":"colour","type":"text","default":"it's red"},
        {"name":"stock","type":"counter"},
        {"name":"tags","type":"set"},
        {"name":"body","type":"document","root":{"text":"text"}}]},
    {"name":"places","scope":"tenant","columns":[{"name":"name","type":"text"}]}]}"#;

const ITEMS: CollectionId = CollectionId(1);

fn server_of(schema: &str) -> Server {
    let mut server = Server::new();
    server.schema = Schema::parse(schema).unwrap();
    server
}

#[test]
fn an_old_app_keeps_what_it_does_not_know_and_a_new_one_finds_it() {
    let (mut old, new, mut server) =
        (Device::with_schema(1, OLD), Device::with_schema(2, NEW), server_of(NEW));
    let id = new.write(|tx| {
        let id = tx.insert("items", None, &[("title", "t".into()), ("colour", "blue".into())])?;
        tx.increment("items", id, "stock", 3)?;
        tx.set_add("items", id, "tags", "x".into())?;
        tx.edit_text("items", id, "body", "text", 0, 0, "text")?;
        Ok(id)
    });
    let place = new.write(|tx| tx.insert("places", None, &[("name", "here".into())]));
    let gone = new.write(|tx| tx.insert("places", None, &[("name", "gone".into())]));
    new.sync_in_step(&mut server);
    old.sync_in_step(&mut server);
    new.write(|tx| tx.delete("places", gone));
    new.sync_in_step(&mut server);
    old.sync_in_step(&mut server);
    old.write(|tx| tx.update("items", id, &[("title", "by the old app".into())]));
    old.check();
    old.sync_in_step(&mut server);
    new.sync_in_step(&mut server);
    assert_eq!(new.text("items", id, "title"), "by the old app");
    assert_eq!(new.text("items", id, "colour"), "blue");
    assert_eq!(old.sql("SELECT * FROM items")[0].len(), 2);

    let before = old.standing();
    old.reopen_with(NEW).unwrap();
    assert_eq!(old.standing().next_number, before.next_number, "an upgrade sends nothing");
    assert_eq!(old.standing().schema_version, 2);
    for column in ["title", "colour", "stock", "tags", "body"] {
        assert_eq!(old.column("items", id, column), new.column("items", id, column), "{column}");
    }
    let sql = "SELECT title, colour, stock, tags, body FROM items";
    assert_eq!(old.sql(sql), new.sql(sql));
    assert_eq!(old.text("places", place, "name"), "here");
    assert!(!old.exists("places", gone));
    old.check();
    old.sync_in_step(&mut server);
    old.write(|tx| tx.edit_text("items", id, "body", "text", 4, 0, "!"));
    old.sync_in_step(&mut server);
    new.sync_in_step(&mut server);
    assert_eq!(old.column("items", id, "body"), new.column("items", id, "body"));
}

#[test]
fn a_new_column_has_its_default_in_old_rows() {
    let mut local = Device::with_schema(1, OLD);
    let id = local.write(|tx| tx.insert("items", None, &[("title", "t".into())]));
    local.reopen_with(NEW).unwrap();
    assert_eq!(local.text("items", id, "colour"), "it's red");
    let row = local.sql("SELECT colour, stock, tags, body FROM items").remove(0);
    let expected = ["it's red", "", "[]", "{\"text\":\"\"}"];
    for (value, text) in row.iter().zip(expected) {
        assert!(
            matches!(value, SqlValue::Int(0)) || *value == SqlValue::Text(text.into()),
            "{value:?}"
        );
    }
    local.check();
}

#[test]
fn an_older_app_on_a_newer_file_loses_nothing() {
    let (mut local, mut server) = (Device::with_schema(1, NEW), server_of(NEW));
    let id = local
        .write(|tx| tx.insert("items", None, &[("title", "t".into()), ("colour", "blue".into())]));
    let place = local.write(|tx| tx.insert("places", None, &[("name", "here".into())]));
    local.reopen_with(OLD).unwrap();
    assert_eq!(local.standing().schema_version, 1);
    assert_eq!(local.sql("SELECT * FROM items")[0].len(), 2);
    assert!(local.store.query("SELECT * FROM places", &[]).is_err());
    let error =
        local.store.write(NOW, |tx| tx.update("items", id, &[("colour", "x".into())])).unwrap_err();
    assert!(matches!(error, super::super::WriteError::UnknownColumn { .. }));
    local.write(|tx| tx.update("items", id, &[("title", "older".into())]));
    local.sync_in_step(&mut server);
    local.reopen_with(NEW).unwrap();
    assert_eq!(local.text("items", id, "colour"), "blue");
    assert_eq!(local.text("items", id, "title"), "older");
    assert_eq!(local.text("places", place, "name"), "here");
    local.check();
    local.sync_in_step(&mut server);
}

#[test]
fn values_of_another_type_than_the_schemas_are_kept_and_shown_as_null() {
    let (local, mut server) = (Device::with_schema(1, OLD), server_of(OLD));
    let cells =
        Cells::new(vec![(ColumnId(1), Value::Int(5)), (ColumnId(9), Value::from(f64::NAN))]);
    server.edit(device(9), NOW, ((ITEMS, row(1)), Op::Insert { cells }));
    local.sync_in_step(&mut server);
    assert_eq!(local.sql("SELECT title FROM items"), [[SqlValue::Null]]);
    assert_eq!(local.column("items", row(1), "title"), ColumnValue::Scalar(Value::Int(5)));
    local.check();
    local.write(|tx| tx.update("items", row(1), &[("title", "text".into())]));
    local.sync_in_step(&mut server);
    local.check();
}

#[test]
fn a_changed_default_shows_in_rows_that_were_written_without_the_column() {
    let with_default = |version: u32, default: &str| {
        format!(
            r#"{{"name":"app","version":{version},"collections":[{{"name":"items","scope":"tenant","columns":[
                {{"name":"title","type":"text"}},{{"name":"colour","type":"text","default":"{default}"}}]}}]}}"#
        )
    };
    let mut local = Device::with_schema(1, &with_default(1, "red"));
    let plain = local.write(|tx| tx.insert("items", None, &[("title", "t".into())]));
    let written = local.write(|tx| tx.insert("items", None, &[("colour", "red".into())]));
    local.reopen_with(&with_default(2, "\\u0000green")).unwrap();
    assert_eq!(local.text("items", plain, "colour"), "\0green");
    assert_eq!(local.text("items", written, "colour"), "red");
    local.check();
}

#[test]
fn a_schema_that_does_not_fit_is_refused_and_nothing_changes() {
    let mut local = Device::with_schema(1, NEW);
    let id = local.write(|tx| tx.insert("items", None, &[("colour", "blue".into())]));
    let conflicting = OLD.replace("\"version\":1", "\"version\":3");
    let error = local.reopen_with(&conflicting).unwrap_err();
    assert!(matches!(error, OpenError::SchemaConflict { app: 3, stored: 2, .. }), "{error}");
    let same_version = NEW.replace("colour", "color");
    assert!(matches!(local.reopen_with(&same_version), Err(OpenError::SchemaConflict { .. })));
    local.reopen_with(NEW).unwrap();
    assert_eq!(local.text("items", id, "colour"), "blue");
}

#[test]
fn a_reserved_word_may_name_a_collection_and_a_column() {
    let schema = r#"{"name":"app","version":1,"collections":[
        {"name":"order","scope":"tenant","columns":[{"name":"group","type":"int"},{"name":"select","type":"set"}]},
        {"name":"graves","scope":"tenant","columns":[{"name":"collection","type":"int"}]}]}"#;
    let local = Device::with_schema(1, schema);
    let id = local.write(|tx| tx.insert("order", None, &[("group", 1.into())]));
    local.write(|tx| tx.update("order", id, &[("group", 2.into())]));
    local.write(|tx| tx.insert("graves", None, &[("collection", 3.into())]));
    assert_eq!(local.sql("SELECT \"group\" FROM \"order\""), [[SqlValue::Int(2)]]);
    assert_eq!(local.sql("SELECT collection FROM graves"), [[SqlValue::Int(3)]]);
}

//! What people see who read with SQL.

use farshore_store::SharedTenantStore;
use farshore_store::catalog::Catalog as _;
use farshore_store::pushed::PushedTransaction;
use farshore_store::sync::{Batch, DevicePush, PushResult};
use farshore_store::sync_core::hlc::{Hlc, Stamp};
use farshore_store::sync_core::ids::{CollectionId, ColumnId, DeviceId, RowId};
use farshore_store::sync_core::mutation::{Cells, Mutation, Op, Transaction};
use farshore_store::sync_core::schema::Schema;
use farshore_store::sync_core::value::Value;
use farshore_store::sync_core::wire::{Grant, Rights};

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;
const COLUMNS: &str = r#"
    {"name": "truth", "type": "bool"}, {"name": "whole", "type": "int", "default": 7},
    {"name": "real", "type": "real"}, {"name": "words", "type": "text", "default": "it's \\ so"},
    {"name": "bytes", "type": "bytes"}, {"name": "at", "type": "timestamp"},
    {"name": "who", "type": "uuid"}, {"name": "more", "type": "json"},
    {"name": "count", "type": "counter"}, {"name": "tags", "type": "set"},
    {"name": "body", "type": "document", "root": {"text": "text"}}"#;

/// A schema whose collection is called like one of the store's tables.
fn schema(version: u32, more: &str) -> Schema {
    let json = format!(
        r#"{{"name": "s", "version": {version}, "collections": [
            {{"name": "changes", "scope": "tenant", "columns": [{COLUMNS}{more}]}}]}}"#
    );
    Schema::parse(&json).unwrap()
}

/// A device that writes rows by number.
struct Writer {
    store: SharedTenantStore,
    next: u64,
}

impl Writer {
    async fn write(&mut self, ops: Vec<(u8, Op)>) {
        let on = |(row, op)| Mutation { collection: CollectionId(1), row: row_id(row), op };
        let mutations = ops.into_iter().map(on).collect();
        let stamp = Hlc::from_wall_ms(NOW_MS + self.next);
        let bytes = Transaction { number: self.next, stamp, mutations }.encode();
        self.next += 1;
        let push = DevicePush {
            device: device(),
            epoch: self.store.head().await.unwrap().epoch,
            grants: vec![Grant { scope: "tenant".parse().unwrap(), rights: Rights::Write }],
            settled: 0,
            transactions: vec![PushedTransaction::read(&bytes).unwrap()],
        };
        let batch = Batch { now_ms: NOW_MS + 10_000, pushes: vec![push] };
        let committed = self.store.commit(batch).await.unwrap();
        let PushResult::Answered(answers) = &committed.results[0] else { panic!("{committed:?}") };
        assert_eq!(answers[0].refused, None);
    }
}

fn device() -> DeviceId {
    DeviceId::from_bytes([9; 16])
}

fn row_id(number: u8) -> RowId {
    RowId::from_bytes([number; 16])
}

fn cells(values: Vec<(u16, Value)>) -> Cells {
    Cells::new(values.into_iter().map(|(column, value)| (ColumnId(column), value)).collect())
}

async fn tenant(server: &Server, schema: &Schema) -> Writer {
    let (catalog, authority) = server.catalog().await;
    let store = catalog.create(&scope(&authority, "demo"), NOW_MS).await.unwrap();
    store.apply_schema(schema, NOW_MS).await.unwrap();
    Writer { store, next: 1 }
}

impl Server {
    /// Lets somebody in who may read the tenant `demo` and nothing else, as the manual says; returns the role.
    fn let_analyst_in(&self) -> String {
        let (owner, key) = (self.roles().owner(), self.names("demo").key);
        let analyst = format!("{}_analyst", self.database.name());
        let manual = include_str!("../../../../docs/server.md");
        let (_, script) = manual.split_once("```sql\n-- A reader").expect("the manual has it");
        let script = script.split_once('\n').unwrap().1.split_once("```").unwrap().0;
        let script = script
            .replace("\"farshore_1a2b3c4d\"", &owner)
            .replace("9f86d081884c7d65", key.as_str())
            .replace("analyst", &analyst)
            .replace("'...'", "'secret'");
        self.run(&script);
        analyst
    }

    /// What that one sees.
    fn read_as_analyst(&self, query: &str) -> String {
        let analyst = self.let_analyst_in();
        let read = format!("SET SESSION AUTHORIZATION {analyst};\n");
        // Settings of a role take effect when it signs in.
        let key = self.names("demo").key;
        let settings = format!("SET farshore.tenant = '{key}';\nSET search_path = rows_demo;\n");
        let seen = self.run(&format!("{read}{settings}{query}"));
        self.run(&format!("DROP OWNED BY {analyst}; DROP ROLE {analyst}"));
        seen
    }
}

#[tokio::test]
async fn every_type_is_read_as_itself() {
    let server = Server::new();
    let mut writer = tenant(&server, &schema(1, "")).await;
    let all = cells(vec![
        (1, Value::Bool(true)),
        (2, Value::Int(i64::MIN)),
        (3, Value::from(-1.5e-300)),
        (4, Value::from("caf\u{e9} 'quoted' \0 and on")),
        (5, Value::Bytes(vec![0, 255])),
        (6, Value::Timestamp(1_800_000_000_000_001)),
        (7, Value::Uuid([0xab; 16])),
        (8, Value::Json("{\"a\": 1}".to_owned())),
    ]);
    let column = ColumnId;
    writer
        .write(vec![
            (1, Op::Insert { cells: all }),
            (1, Op::Increment { column: column(9), delta: 10 }),
            (1, Op::SetAdd { column: column(10), element: Value::from("kept") }),
            (1, Op::SetAdd { column: column(10), element: Value::from("gone") }),
            (1, Op::SetAdd { column: column(10), element: Value::Int(3) }),
        ])
        .await;
    let seen = Stamp { hlc: Hlc::from_wall_ms(NOW_MS + 1), device: device() };
    let element = Value::from("gone");
    writer
        .write(vec![
            (1, Op::Increment { column: column(9), delta: -3 }),
            (1, Op::SetRemove { column: column(10), element, observed: vec![seen] }),
            (2, Op::Insert { cells: cells(vec![(1, Value::Null), (4, Value::Null)]) }),
            (3, Op::Insert { cells: cells(vec![(2, Value::Int(-1))]) }),
        ])
        .await;
    writer.write(vec![(3, Op::Delete)]).await;
    let query = "SET timezone = 'UTC'; SET bytea_output = 'hex'; \
        SELECT id, truth, whole, real, words, bytes, at, who, more, count, tags \
        FROM changes ORDER BY id";
    let expected = "01010101-0101-0101-0101-010101010101|t|-9223372036854775808|-1.5e-300|\
        caf\u{e9} 'quoted'  and on|\\x00ff|2027-01-15 08:00:00.000001+00|\
        abababab-abab-abab-abab-abababababab|{\"a\": 1}|7|{3,kept}\n\
        02020202-0202-0202-0202-020202020202||7|||||||0|{}";
    assert_eq!(server.read_as_analyst(query), expected);
    let types = "SELECT string_agg(format_type(atttypid, -1), ',' ORDER BY attnum) \
        FROM pg_attribute WHERE attrelid = 'rows_demo.changes'::regclass AND attnum > 0";
    assert_eq!(
        server.run(types),
        "uuid,boolean,bigint,double precision,text,bytea,timestamp with time zone,uuid,text,bigint,text[]"
    );
}

#[tokio::test]
async fn floats_keep_their_value() {
    let server = Server::new();
    let mut writer = tenant(&server, &schema(1, "")).await;
    let floats = [
        0.1,
        f64::MAX,
        f64::MIN_POSITIVE,
        f64::from_bits(1),
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        -12_345.678_9,
    ];
    let inserts = (1..).zip(floats);
    let inserts = inserts
        .map(|(row, float)| (row, Op::Insert { cells: cells(vec![(3, Value::from(float))]) }));
    writer.write(inserts.collect()).await;
    let seen = server.read_as_analyst("SELECT real FROM changes ORDER BY id");
    let seen: Vec<f64> = seen.lines().map(|line| line.parse().unwrap()).collect();
    let bits = |float: &f64| if float.is_nan() { 0 } else { float.to_bits() };
    assert_eq!(seen.iter().map(bits).collect::<Vec<_>>(), floats.map(|float| bits(&float)));
}

#[tokio::test]
async fn a_reader_reads_one_tenant_and_writes_nothing() {
    let server = Server::new();
    let mut writer = tenant(&server, &schema(1, "")).await;
    writer.write(vec![(1, Op::Insert { cells: cells(vec![]) })]).await;
    let (catalog, authority) = server.catalog().await;
    let other = catalog.create(&scope(&authority, "other"), NOW_MS).await.unwrap();
    other.apply_schema(&schema(1, ""), NOW_MS).await.unwrap();
    Writer { store: other, next: 1 }.write(vec![(2, Op::Insert { cells: cells(vec![]) })]).await;
    assert_eq!(server.read_as_analyst("SELECT count(*) FROM changes"), "1", "the control");
    let refused = |statement: &str| {
        let caught = format!(
            "DO $$ BEGIN EXECUTE '{statement}'; RAISE EXCEPTION 'it was let through'; \
             EXCEPTION WHEN insufficient_privilege THEN NULL; END $$; SELECT 'refused'"
        );
        assert_eq!(server.read_as_analyst(&caught), "refused", "{statement}");
    };
    refused("SELECT * FROM rows_other.changes");
    refused("SELECT * FROM tenant_other.changes");
    refused("SELECT * FROM tenant_demo.signing_keys");
    refused("DELETE FROM tenant_demo.changes");
    refused("CREATE TABLE rows_demo.mine (x int)");
    let other = server.names("other").key;
    let another = format!("SET farshore.tenant = '{other}'; SELECT count(*) FROM changes");
    assert_eq!(server.read_as_analyst(&another), "0");
}

#[tokio::test]
async fn a_tenant_with_a_reader_is_erased_all_the_same() {
    let server = Server::new();
    tenant(&server, &schema(1, "")).await;
    let analyst = server.let_analyst_in();
    let (catalog, authority) = server.catalog().await;
    catalog.erase(&scope(&authority, "demo")).await.unwrap();
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname IN ('tenant_demo', 'rows_demo')";
    assert_eq!(server.run(left), "0");
    server.run(&format!("DROP ROLE {analyst}"));
}

#[tokio::test]
async fn views_follow_the_schema() {
    let server = Server::new();
    let writer = tenant(&server, &schema(1, "")).await;
    let appended = r#", {"name": "later", "type": "int", "default": 5}"#;
    writer.store.apply_schema(&schema(2, appended), NOW_MS).await.unwrap();
    assert_eq!(server.run("SELECT views FROM tenant_demo.standing"), "2");
    server.run("SELECT later FROM rows_demo.changes");

    // A column that comes between others, and an interruption, after which the next opening does it.
    let between = r#", {"name": "later", "type": "int", "default": 5},
        {"id": 400, "name": "last", "type": "int"}"#;
    writer.store.apply_schema(&schema(3, between), NOW_MS).await.unwrap();
    let between = format!(r#"{between}, {{"id": 300, "name": "between", "type": "int"}}"#);
    writer.store.apply_schema(&schema(4, &between), NOW_MS).await.unwrap();
    server.run("SELECT last, between FROM rows_demo.changes");
    server.run("UPDATE tenant_demo.standing SET views = 3; DROP VIEW rows_demo.changes");
    let (catalog, authority) = server.catalog().await;
    catalog.open(&scope(&authority, "demo")).await.unwrap();
    assert_eq!(server.run("SELECT views FROM tenant_demo.standing"), "4");
    server.run("SELECT last, between FROM rows_demo.changes");
}

#[tokio::test]
async fn a_view_of_somebody_else_keeps_no_schema_back() {
    let server = Server::new();
    let writer = tenant(&server, &schema(1, "")).await;
    server.run(
        "CREATE VIEW public.theirs AS SELECT words FROM rows_demo.changes; \
         ALTER VIEW rows_demo.changes RENAME COLUMN words TO renamed",
    );
    let more = r#", {"name": "later", "type": "int"}"#;
    writer.store.apply_schema(&schema(2, more), NOW_MS).await.unwrap();
    assert_eq!(writer.store.schema().await.unwrap().unwrap().version, 2);
    assert_eq!(server.run("SELECT views FROM tenant_demo.standing"), "1");
    server.run("DROP VIEW public.theirs");
    let (catalog, authority) = server.catalog().await;
    catalog.open(&scope(&authority, "demo")).await.unwrap();
    server.run("SELECT words, later FROM rows_demo.changes");
}

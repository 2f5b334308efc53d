//! Opening stores in a directory that goes away, and syncing them with the small server.

use std::sync::Arc;

use farshore_sync_core::ids::{DeviceId, RowId, Scope};
use farshore_sync_core::replica::{Checked, Standing, StoreReply, StoreRequest};
use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;
use farshore_sync_core::wire::{Page, PushOutcome, Welcome};
use tempfile::TempDir;

use super::super::readers::Reader;
use super::super::{
    ColumnValue, CreateMode, OpenError, SqlValue, Store, StoreError, StoreOptions, WriteTransaction,
};
use super::server::Server;
use crate::store::WriteError;
use crate::vault::MemoryVault;

/// A moment in 2023, in milliseconds.
pub const NOW: u64 = 1_700_000_000_000;

/// The schema of the tests: one collection for each kind of merge, and one with scopes by row.
pub const SCHEMA: &str = r#"{"name":"tests","version":1,"collections":[
    {"name":"items","scope":"tenant","columns":[
        {"name":"title","type":"text","max_bytes":1000},
        {"name":"size","type":"int","min":0,"max":100},
        {"name":"weight","type":"real"},
        {"name":"done","type":"bool","default":false},
        {"name":"photo","type":"bytes"},
        {"name":"seen_at","type":"timestamp"},
        {"name":"owner","type":"uuid"},
        {"name":"extra","type":"json"},
        {"name":"stock","type":"counter"},
        {"name":"tags","type":"set"}]},
    {"name":"notes","scope":"tenant","columns":[
        {"name":"title","type":"text"},
        {"name":"body","type":"document","root":{"text":"text","list":"list"}}]},
    {"name":"visits","scope":"site/{site}","columns":[
        {"name":"site","type":"text"},
        {"name":"purpose","type":"text","default":"inspection"},
        {"name":"starts_at","type":"timestamp","group":"period"},
        {"name":"ends_at","type":"timestamp","group":"period"},
        {"name":"report","type":"document","root":{"text":"text"}}]}]}"#;

/// A store with what it takes to open it again.
pub struct Device {
    pub store: Store,
    pub id: DeviceId,
    pub schema: Arc<Schema>,
    pub dir: Arc<TempDir>,
    vault: Arc<MemoryVault>,
}

impl Device {
    pub fn new(number: u8) -> Self {
        Self::with_schema(number, SCHEMA)
    }

    pub fn with_schema(number: u8, schema: &str) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let (vault, id) = (Arc::new(MemoryVault::new()), device(number));
        let schema = Arc::new(Schema::parse(schema).unwrap());
        let store = Store::open(options(&dir, id, &schema, &vault)).unwrap();
        Self { store, id, schema, dir, vault }
    }

    /// Closes the store and opens it again, as another process would.
    pub fn reopen(&mut self) {
        self.store.close().unwrap();
        let options = options(&self.dir, self.id, &self.schema, &self.vault);
        self.store = Store::open(options).unwrap();
    }

    /// Opens the store again with another version of the app.
    pub fn reopen_with(&mut self, schema: &str) -> Result<(), OpenError> {
        self.store.close().unwrap();
        let schema = Arc::new(Schema::parse(schema).unwrap());
        self.store = Store::open(options(&self.dir, self.id, &schema, &self.vault))?;
        self.schema = schema;
        Ok(())
    }

    /// Opens the same file once more, as another process would.
    pub fn open_beside(&self) -> Store {
        Store::open(options(&self.dir, self.id, &self.schema, &self.vault)).unwrap()
    }

    /// The options with which it was opened.
    pub fn options(&self) -> StoreOptions {
        options(&self.dir, self.id, &self.schema, &self.vault)
    }

    pub fn write<T>(
        &self,
        body: impl FnOnce(&mut WriteTransaction<'_>) -> Result<T, WriteError>,
    ) -> T {
        self.store.write(NOW, body).unwrap()
    }

    pub fn handle(&self, request: StoreRequest) -> StoreReply {
        self.store.handle(request, NOW).unwrap()
    }

    pub fn standing(&self) -> Standing {
        match self.handle(StoreRequest::Load) {
            StoreReply::Loaded(standing) => standing,
            other => panic!("{other:?}"),
        }
    }

    pub fn outbox(&self) -> Vec<(u64, Vec<u8>)> {
        let after = self.standing().settled;
        match self.handle(StoreRequest::Outbox {
            after,
            max_bytes: usize::MAX,
            max_transactions: 10_000,
        }) {
            StoreReply::Outbox(transactions) => transactions,
            other => panic!("{other:?}"),
        }
    }

    pub fn adopt(&self, welcome: Welcome) -> StoreReply {
        self.handle(StoreRequest::Adopt(welcome))
    }

    pub fn outcomes(&self, outcomes: Vec<PushOutcome>) -> u64 {
        match self.handle(StoreRequest::Outcomes(outcomes)) {
            StoreReply::Settled { settled } => settled,
            other => panic!("{other:?}"),
        }
    }

    pub fn page(&self, page: Page) -> Option<Checked> {
        match self.handle(StoreRequest::Page(page)) {
            StoreReply::PageStored { checkpoint, .. } => checkpoint,
            other => panic!("{other:?}"),
        }
    }

    pub fn pages(&self, pages: Vec<Page>) -> Option<Checked> {
        pages.into_iter().fold(None, |_, page| self.page(page))
    }

    /// Greets the server: what it says is adopted.
    pub fn greet(&self, server: &Server) {
        let welcome = server.welcome(self.id, &self.standing());
        assert!(matches!(self.adopt(welcome), StoreReply::Adopted { .. }));
    }

    /// One whole exchange: greeting, push, answers, everything up to the next checkpoint.
    pub fn sync(&self, server: &mut Server) -> Checked {
        self.greet(server);
        let outcomes = server.push(self.id, &self.outbox());
        self.outcomes(outcomes);
        self.pull(server)
    }

    /// Everything up to the next checkpoint.
    pub fn pull(&self, server: &Server) -> Checked {
        let pages = server.pages(&self.standing());
        self.pages(pages).expect("the last page has a checkpoint")
    }

    /// Syncs and insists that the digests agree.
    pub fn sync_in_step(&self, server: &mut Server) {
        let checked = self.sync(server);
        assert!(checked.in_step, "{:?} is out of step", self.id);
    }

    pub fn column(&self, collection: &str, row: RowId, column: &str) -> ColumnValue {
        let found = self.store.row(collection, row).unwrap();
        found.unwrap_or_else(|| panic!("no row {row}")).columns.remove(column).unwrap()
    }

    pub fn text(&self, collection: &str, row: RowId, column: &str) -> String {
        match self.column(collection, row, column) {
            ColumnValue::Scalar(Value::Text(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    pub fn stock(&self, row: RowId) -> i64 {
        match self.column("items", row, "stock") {
            ColumnValue::Counter(sum) => sum,
            other => panic!("{other:?}"),
        }
    }

    pub fn exists(&self, collection: &str, row: RowId) -> bool {
        self.store.row(collection, row).unwrap().is_some()
    }

    /// The values of a query, row after row.
    pub fn sql(&self, sql: &str) -> Vec<Vec<SqlValue>> {
        self.store.query(sql, &[]).unwrap().rows
    }

    /// The values of a query over hidden tables.
    pub fn hidden(&self, sql: &str) -> Vec<Vec<SqlValue>> {
        let read = |reader: &Reader| -> Result<_, StoreError> {
            let mut statement = reader.connection.prepare(sql).unwrap();
            let width = statement.column_count();
            let mut rows = statement.query([]).unwrap();
            let mut found = Vec::new();
            while let Some(row) = rows.next().unwrap() {
                let values =
                    (0..width).map(|at| SqlValue::try_from(row.get_ref(at).unwrap()).unwrap());
                found.push(values.collect());
            }
            Ok(found)
        };
        self.store.shared.readers.with(read).unwrap()
    }

    /// Checks what has to hold of a store at any time: its counts are those of its tables, and its digests those
    /// of its rows.
    pub fn check(&self) {
        let one = |sql: &str| match self.hidden(sql)[..] {
            [ref row] => match row[..] {
                [SqlValue::Int(count)] => count as u64,
                ref other => panic!("{other:?}"),
            },
            ref other => panic!("{other:?}"),
        };
        let counts = self.store.counts().unwrap();
        assert_eq!(counts.unanswered, one("SELECT count(*) FROM fs_outbox WHERE answered IS NULL"));
        assert_eq!(counts.unconfirmed, one("SELECT count(*) FROM fs_outbox"));
        assert_eq!(counts.quarantined, one("SELECT count(*) FROM fs_quarantine"));
        assert_eq!(one("SELECT count(*) FROM fs_seen"), 0);
        let digests = self.store.digests().unwrap();
        let rehashed: Result<_, StoreError> = self.store.transact(|mut tx| {
            tx.rehash().unwrap();
            tx.save_digests().unwrap();
            let recomputed = tx.totals();
            Ok((recomputed, tx))
        });
        assert_eq!(rehashed.unwrap(), digests);
    }

    pub fn insert_item(&self, title: &str) -> RowId {
        self.write(|tx| tx.insert("items", None, &[("title", title.into())]))
    }
}

fn options(
    dir: &Arc<TempDir>,
    device: DeviceId,
    schema: &Arc<Schema>,
    vault: &Arc<MemoryVault>,
) -> StoreOptions {
    StoreOptions {
        dir: dir.path().to_owned(),
        name: "store".to_owned(),
        device,
        schema: Arc::clone(schema),
        vault: Arc::clone(vault) as _,
        create: CreateMode::CreateIfMissing,
    }
}

pub fn device(number: u8) -> DeviceId {
    DeviceId::from_bytes([number; 16])
}

pub fn row(number: u8) -> RowId {
    RowId::from_bytes([number; 16])
}

pub fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

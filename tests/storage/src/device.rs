//! The device's encrypted store, with an app that writes and a server that it syncs with.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use farshore_client::encrypted_file;
use farshore_client::store::{
    CreateMode, OpenError, QueryError, Store, StoreError, StoreOptions, WriteError,
    WriteTransaction,
};
use farshore_client::vault::MemoryVault;
use farshore_sync_core::ids::DeviceId;
use farshore_sync_core::replica::{Standing, StoreReply, StoreRequest};
use farshore_sync_core::value::Value;
use test_chance::Chance;

use crate::hub::{Hub, Versions};
use crate::shape::{self, NOW_MS, SITES};
use crate::subject::{Observation, Problem, Subject};

/// The number of the device.
const NUMBER: u8 = 1;
/// Rows of each collection that the app writes.
const ROWS: u64 = 24;
/// Local transactions between two exchanges.
const WRITES_BETWEEN: u64 = 6;
/// Exchanges after which a device has nothing left to send or to take.
const EXCHANGES_AT_MOST: usize = 4;
/// Pages of one exchange.
const PAGES_AT_MOST: usize = 200;

/// A device.
pub struct Device {
    id: DeviceId,
    vault: Arc<MemoryVault>,
    seed: u64,
    hub: Hub,
    versions: Versions,
    todo: VecDeque<Todo>,
    writes: u64,
}

/// What is left of an exchange.
#[derive(Debug, Clone, Copy)]
enum Todo {
    Greet,
    Push,
    Pull,
}

impl Subject for Device {
    const NAME: &'static str = "device";
    type Store = Store;

    fn create(folder: &Path, seed: u64) -> Result<Self, Problem> {
        let hub = Hub::new(seed)?;
        let mut versions = Versions::default();
        versions.keep(0, &hub);
        let device = Self {
            id: shape::device(NUMBER),
            vault: Arc::new(MemoryVault::new()),
            seed,
            hub,
            versions,
            todo: VecDeque::new(),
            writes: 0,
        };
        let store = Store::open(device.options(folder, CreateMode::MustCreate)).map_err(of_open)?;
        device.close(store)?;
        Ok(device)
    }

    fn open(&self, folder: &Path) -> Result<Store, Problem> {
        Store::open(self.options(folder, CreateMode::MustExist)).map_err(of_open)
    }

    fn close(&self, store: Store) -> Result<(), Problem> {
        store.close().map_err(of_store)
    }

    fn tidy(&self, store: &Store) -> Result<(), Problem> {
        store.checkpoint_wal().map_err(of_store)
    }

    fn step(&mut self, store: &Store, step: u64) -> Result<(), Problem> {
        let done = self.work(store, step);
        if done.is_err() {
            // What an exchange has begun is worth nothing any more: the next one begins with a greeting.
            self.todo.clear();
        }
        done
    }

    fn observe(&self, store: &Store) -> Result<Observation, Problem> {
        let mut lines = Vec::new();
        for sql in ["SELECT * FROM notes ORDER BY id", "SELECT * FROM visits ORDER BY id"] {
            let found = store.query(sql, &[]).map_err(of_query)?;
            lines.extend(found.rows.iter().map(|row| format!("{row:?}")));
        }
        for number in 0..ROWS {
            let row = shape::row(NUMBER, number);
            let body = store.document_json("notes", row, "body").map_err(of_query)?;
            lines.push(format!("{number}: {body:?}"));
        }
        let outbox = store.outbox(usize::MAX >> 1).map_err(of_query)?;
        lines.extend(outbox.iter().map(|entry| format!("{entry:?}")));
        lines.push(format!("{:?}", store.counts().map_err(of_query)?));
        lines.push(format!("{:?}", store.quarantine().map_err(of_query)?));
        lines.push(format!("{:?}", store.digests().map_err(of_query)?));
        lines.push(format!("{:?}", standing(store)?));
        Ok(Observation(lines))
    }

    fn goes_on(&self, store: &Store, _found: u64, begun: u64) -> Result<(), Problem> {
        let version = self.versions.at(begun).expect("the first version is of step 0");
        let hub = Hub::of(version)?;
        let mut chance = Chance::apart(self.seed, u64::MAX);
        store.write(NOW_MS, |tx| change(tx, u64::MAX, &mut chance)).map_err(of_write)?;
        for _ in 0..EXCHANGES_AT_MOST {
            let in_step = exchange(&hub, self.id, store)?;
            let counts = store.counts().map_err(of_query)?;
            if in_step && counts.unconfirmed == 0 {
                return Ok(());
            }
        }
        Err(Problem::Unsound("it does not come into step with the server".to_owned()))
    }
}

impl Device {
    fn options(&self, folder: &Path, create: CreateMode) -> StoreOptions {
        StoreOptions {
            dir: folder.to_owned(),
            name: "store".to_owned(),
            device: self.id,
            schema: shape::schema(1),
            vault: Arc::clone(&self.vault) as _,
            create,
        }
    }

    /// What is left of an exchange, or a local transaction.
    fn work(&mut self, store: &Store, step: u64) -> Result<(), Problem> {
        match self.todo.pop_front() {
            None => self.write(store, step),
            Some(Todo::Greet) => {
                let welcome = self.hub.welcome(self.id, &standing(store)?)?;
                handle(store, StoreRequest::Adopt(welcome)).map(drop)
            }
            Some(Todo::Push) => {
                let outcomes = push(&self.hub, self.id, store)?;
                self.versions.keep(step, &self.hub);
                handle(store, StoreRequest::Outcomes(outcomes)).map(drop)
            }
            Some(Todo::Pull) => {
                let page = self.hub.page(&standing(store)?)?;
                if page.checkpoint.is_none() {
                    self.todo.push_front(Todo::Pull);
                }
                handle(store, StoreRequest::Page(page)).map(drop)
            }
        }
    }

    /// A local transaction; after some of them an exchange is due, and another device has written too.
    fn write(&mut self, store: &Store, step: u64) -> Result<(), Problem> {
        let mut chance = Chance::apart(self.seed, step);
        store.write(NOW_MS + step, |tx| change(tx, step, &mut chance)).map_err(of_write)?;
        self.writes += 1;
        if self.writes.is_multiple_of(WRITES_BETWEEN) {
            self.hub.foreign(1 + chance.below(10))?;
            self.versions.keep(step + 1, &self.hub);
            self.todo.extend([Todo::Greet, Todo::Push, Todo::Pull]);
        }
        Ok(())
    }
}

/// Some operations on some rows; sometimes one that the server will refuse.
fn change(tx: &mut WriteTransaction<'_>, step: u64, chance: &mut Chance) -> Result<(), WriteError> {
    for _ in 0..=chance.below(3) {
        let number = chance.below(ROWS);
        let row = shape::row(NUMBER, number);
        if chance.once_in(5) {
            let sites = if chance.once_in(6) { 3 } else { 2 };
            let site = SITES[usize::try_from(chance.below(sites)).unwrap_or_default()];
            let purpose = Value::from(format!("step {step}").as_str());
            tx.put("visits", Some(row), &[("site", site.into()), ("purpose", purpose)])?;
            continue;
        }
        if tx.get("notes", row)?.is_none() {
            let title = Value::from(format!("note {number} of step {step}").as_str());
            match tx.insert("notes", Some(row), &[("title", title)]) {
                Ok(_) => {}
                Err(WriteError::RowDeleted { .. }) => tx.restore("notes", row)?,
                Err(other) => return Err(other),
            }
        }
        let tag = Value::from(format!("tag {}", chance.below(3)).as_str());
        match chance.below(7) {
            0 => tx.update("notes", row, &[("title", format!("step {step}").as_str().into())])?,
            1 | 2 => tx.increment("notes", row, "likes", 1)?,
            3 => tx.set_add("notes", row, "tags", tag)?,
            4 => tx.set_remove("notes", row, "tags", tag)?,
            5 => tx.edit_text("notes", row, "body", "text", 0, 0, &format!("{step} "))?,
            _ if chance.once_in(3) => tx.delete("notes", row)?,
            _ => tx.increment("notes", row, "likes", -1)?,
        }
    }
    Ok(())
}

fn handle(store: &Store, request: StoreRequest) -> Result<StoreReply, Problem> {
    match store.handle(request, NOW_MS).map_err(of_store)? {
        StoreReply::Forked => Err(Problem::Unsound("the server saw numbers of the future".into())),
        reply => Ok(reply),
    }
}

fn standing(store: &Store) -> Result<Standing, Problem> {
    match handle(store, StoreRequest::Load)? {
        StoreReply::Loaded(standing) => Ok(standing),
        other => Err(Problem::Unsound(format!("{other:?} where it stands"))),
    }
}

/// Sends what is unanswered.
fn push(
    hub: &Hub,
    device: DeviceId,
    store: &Store,
) -> Result<Vec<farshore_sync_core::wire::PushOutcome>, Problem> {
    let settled = standing(store)?.settled;
    let request =
        StoreRequest::Outbox { after: settled, max_bytes: usize::MAX, max_transactions: 10_000 };
    match handle(store, request)? {
        StoreReply::Outbox(transactions) => hub.push(device, settled, &transactions),
        other => Err(Problem::Unsound(format!("{other:?} for the outbox"))),
    }
}

/// One whole exchange; whether the digests agreed at its end.
fn exchange(hub: &Hub, device: DeviceId, store: &Store) -> Result<bool, Problem> {
    let welcome = hub.welcome(device, &standing(store)?)?;
    handle(store, StoreRequest::Adopt(welcome))?;
    let outcomes = push(hub, device, store)?;
    handle(store, StoreRequest::Outcomes(outcomes))?;
    for _ in 0..PAGES_AT_MOST {
        let page = hub.page(&standing(store)?)?;
        if let StoreReply::PageStored { checkpoint: Some(checked), .. } =
            handle(store, StoreRequest::Page(page))?
        {
            return Ok(checked.in_step);
        }
    }
    Err(Problem::Unsound("a catch-up without end".to_owned()))
}

fn of_open(error: OpenError) -> Problem {
    match error {
        OpenError::File(error) => of_file(error),
        OpenError::Store(error) => of_store(error),
        error @ OpenError::StoredSchema { .. } => Problem::Damaged(error.to_string()),
        other => Problem::Other(other.to_string()),
    }
}

fn of_file(error: encrypted_file::OpenError) -> Problem {
    use encrypted_file::OpenError as E;
    let text = error.to_string();
    match error {
        E::Damaged { .. } => Problem::Damaged(text),
        E::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            Problem::Full(text)
        }
        E::Io { .. } => Problem::Device(text),
        _ => Problem::Other(text),
    }
}

fn of_store(error: StoreError) -> Problem {
    let text = error.to_string();
    match error {
        StoreError::Damaged { .. } => Problem::Damaged(text),
        StoreError::Full { .. } => Problem::Full(text),
        StoreError::Open { source } => of_file(*source),
        StoreError::Sqlite { .. } if text.contains("I/O") => Problem::Device(text),
        _ => Problem::Other(text),
    }
}

fn of_query(error: QueryError) -> Problem {
    match error {
        QueryError::Store(error) => of_store(error),
        other => Problem::Other(other.to_string()),
    }
}

fn of_write(error: WriteError) -> Problem {
    match error {
        WriteError::Store(error) => of_store(error),
        other => Problem::Other(other.to_string()),
    }
}

//! A device of a run: the SDK as apps use it, on files that outlive its power.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use farshore_client::environment::Environment as _;
use farshore_client::store::{
    ColumnValue, OutboxEntry, QueryError, SqlValue, WriteError, WriteTransaction,
};
use farshore_client::sync::{SocketFuture, StoreCalls, Transport};
use farshore_client::vault::MemoryVault;
use farshore_client::{Client, Status, TokenSource};
use farshore_server::auth::authenticator::DeviceToken;
use farshore_sync_core::ids::{DeviceId, RowId, UserId};
use farshore_sync_core::schema::{ColumnType, Schema};
use farshore_sync_core::value::Value;
use farshore_sync_core::wire::{Grant, Rights};
use test_chance::Chance;
use tokio::runtime::Handle;
use tokio_tungstenite::tungstenite::Error;

use crate::causal::{self, Read, Seen};
use crate::history::{Cell, Deed, RowKey, View};
use crate::network::{Dialling, Network};
use crate::plan::{Op, OpKind};
use crate::platform::Platform;
use crate::shape::{
    self, CollectionShape, ColumnShape, Role, SITE_COLUMN, Shape, TEXT_FIELD, VALUES_COLUMN,
};
use crate::time::{DeviceEnvironment, Timeline};

/// The name of a device's files.
const NAME: &str = "device";
/// What a copy of a device's files leaves out: the index of the log, which is made anew.
const NOT_ON_DISK: &str = "-shm";
/// Rows of a collection among which a transaction chooses.
const ROWS_TO_CHOOSE_FROM: u64 = 40;
/// Registers that a device makes which sees none.
const REGISTERS_MADE: usize = 4;
/// Transactions that a listing of the outbox is asked for.
pub const OUTBOX_LIMIT: usize = 100_000;

/// A device.
pub struct Device {
    /// Its number in the run.
    pub index: usize,
    /// Its tenant.
    pub tenant: usize,
    /// Its id.
    pub id: DeviceId,
    /// What it may do now.
    pub grants: Vec<Grant>,
    /// Whether it is suspended.
    pub suspended: bool,
    /// The version of the schema that its app was built with.
    pub version: u32,
    /// Its clocks.
    pub environment: Arc<DeviceEnvironment>,
    user: UserId,
    directory: PathBuf,
    power_cycles: u32,
    vault: Arc<MemoryVault>,
    wire: Arc<Wire>,
    schemas: [Arc<Schema>; 2],
    client: Option<Client>,
    chance: Chance,
}

/// What a device is made of.
pub struct Parts<'a> {
    /// The network.
    pub network: &'a Network,
    /// The server.
    pub platform: &'a Platform,
    /// The timeline.
    pub timeline: Timeline,
    /// The directory of the run.
    pub directory: &'a Path,
    /// The seed of the run.
    pub seed: u64,
}

/// The way of one device to the server.
struct Wire {
    device: usize,
    tenant: usize,
    network: Network,
    platform: Platform,
    chance: Mutex<Chance>,
}

impl Transport for Wire {
    fn open(&self, token: &str) -> SocketFuture {
        let (network, platform) = (self.network.clone(), self.platform.clone());
        let (device, tenant, token) = (self.device, self.tenant, token.to_owned());
        let (there, back) = {
            let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
            (network.latency(&mut chance), network.latency(&mut chance))
        };
        Box::pin(async move {
            let refused = || Error::Io(std::io::ErrorKind::ConnectionRefused.into());
            match network.dialling(device) {
                Dialling::Works => {}
                Dialling::Refused => return Err(refused()),
                Dialling::Silent => std::future::pending().await,
            }
            let (client, server) = network.connect(device);
            tokio::time::sleep(there).await;
            let answer = platform.accept(tenant, token, server).await;
            tokio::time::sleep(back).await;
            match answer {
                Some(Ok(())) => Ok(Box::pin(client) as _),
                Some(Err(response)) => Err(Error::Http(response)),
                None => Err(refused()),
            }
        })
    }
}

impl Device {
    /// A device that is off.
    #[must_use]
    pub fn new(index: usize, tenant: usize, shape: &Shape, parts: &Parts<'_>) -> Self {
        let mut chance = Chance::apart(parts.seed, 0x00de_71ce_0000 + index as u64);
        let wire = Wire {
            device: index,
            tenant,
            network: parts.network.clone(),
            platform: parts.platform.clone(),
            chance: Mutex::new(Chance::of(chance.next())),
        };
        let entropy = Chance::of(chance.next());
        Self {
            index,
            tenant,
            id: DeviceId::from_bytes(chance.bytes()),
            grants: Vec::new(),
            suspended: false,
            version: 1,
            environment: Arc::new(DeviceEnvironment::new(parts.timeline, entropy)),
            user: UserId::from_bytes(chance.bytes()),
            directory: parts.directory.join(format!("device-{index}")),
            power_cycles: 0,
            vault: Arc::new(MemoryVault::new()),
            wire: Arc::new(wire),
            schemas: [Arc::new(shape.schema(1)), Arc::new(shape.schema(2))],
            client: None,
            chance,
        }
    }

    /// Whose it is.
    #[must_use]
    pub const fn user(&self) -> UserId {
        self.user
    }

    /// The app, while the device is on.
    #[must_use]
    pub const fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// Switches it on: the app opens its store and wants a connection.
    ///
    /// # Errors
    /// Where the SDK does not open the store.
    pub fn start(&mut self, every_scope: &[Grant], token_life_ms: u64) -> Result<(), String> {
        if self.client.is_some() {
            return Ok(());
        }
        let schema = Arc::clone(&self.schemas[usize::from(self.version > 1)]);
        let client = Client::builder()
            .dir(self.files())
            .name(NAME)
            .schema(schema)
            .vault(Arc::clone(&self.vault) as _)
            .device(self.id)
            .token(self.tokens(every_scope, token_life_ms))
            .transport(Arc::clone(&self.wire) as _)
            .store_calls(StoreCalls::InPlace)
            .environment(Arc::clone(&self.environment) as _)
            .runtime(Handle::current())
            .build()
            .map_err(|error| error.to_string())?;
        client.connect().map_err(|error| error.to_string())?;
        self.client = Some(client);
        Ok(())
    }

    /// Tokens name every scope, so that the record of the device alone says what it may do.
    fn tokens(&self, every_scope: &[Grant], lifetime_ms: u64) -> TokenSource {
        let (platform, tenant) = (self.wire.platform.clone(), self.tenant);
        let (device, user, grants) = (self.id, self.user, every_scope.to_vec());
        TokenSource::callback(move |_| {
            let grants = grants.clone();
            let token = platform.mint(tenant, &DeviceToken { device, user, grants, lifetime_ms });
            async move { Ok(token) }
        })
    }

    /// Takes its power away. What was committed is on disk, and nothing else.
    ///
    /// # Errors
    /// Where its files cannot be copied.
    pub fn crash(&mut self) -> Result<(), String> {
        let Some(client) = self.client.take() else { return Ok(()) };
        let from = self.files();
        self.power_cycles += 1;
        let copied = copy(&from, &self.files());
        drop(client);
        copied.map_err(|error| error.to_string())
    }

    fn files(&self) -> PathBuf {
        self.directory.join(self.power_cycles.to_string())
    }

    /// The schema of its app.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schemas[usize::from(self.version > 1)]
    }

    /// Where it stands, while it is on.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.client.as_ref().map(Client::status)
    }

    /// Every live row as the app reads it.
    ///
    /// # Errors
    /// Where the SDK does not read.
    pub fn view(&self) -> Result<View, QueryError> {
        let Some(client) = &self.client else { return Ok(View::new()) };
        let mut view = View::new();
        for collection in &self.schema().collections {
            let sql = format!("SELECT id FROM {}", collection.name);
            for row in ids(client, &sql)? {
                if let Some(found) = client.row(&collection.name, row)? {
                    view.insert((collection.name.clone(), row), found.columns);
                }
            }
        }
        Ok(view)
    }

    /// Makes a transaction; what it did, or nothing where the SDK refused it.
    ///
    /// # Errors
    /// Where the SDK failed although the app made no mistake.
    pub fn write(
        &mut self,
        shape: &Shape,
        deleted: &[RowKey],
        ops: &[Op],
        numbers: &mut u64,
    ) -> Result<Option<Written>, String> {
        let Some(client) = self.client.clone() else { return Ok(None) };
        let fail = |error: QueryError| error.to_string();
        let mut rows = BTreeMap::new();
        for collection in shape.collections_of(self.version) {
            let sql = format!(
                "SELECT id FROM {} ORDER BY id DESC LIMIT {ROWS_TO_CHOOSE_FROM}",
                collection.name
            );
            rows.insert(collection.name.clone(), ids(&client, &sql).map_err(fail)?);
        }
        let before = last_entry(&client).map_err(fail)?.number;
        let sites = self.writable_sites(shape);
        let now_ms = self.environment.wall_ms();
        let (mut deeds, mut read) = (Vec::new(), None);
        let filling = !client.status().filled;
        let written = client.write(|transaction| {
            let mut author = Author {
                shape,
                version: self.version,
                sites: &sites,
                rows: &rows,
                deleted,
                now_ms,
                numbers,
                transaction,
                deeds: &mut deeds,
                read: &mut read,
            };
            ops.iter().try_for_each(|op| author.carry_out(op))
        });
        match written {
            Ok(()) => {}
            Err(
                WriteError::RowMissing { .. }
                | WriteError::RowDeleted { .. }
                | WriteError::RowExists { .. },
            ) => return Ok(None),
            Err(error) => return Err(format!("{error:?}")),
        }
        let LastEntry { number, written_at_ms } = last_entry(&client).map_err(fail)?;
        let number = (number != before).then_some(number);
        let read = read.map(|seen| Read { seen, filling });
        Ok((number.is_some() || read.is_some()).then_some(Written {
            number,
            written_at_ms,
            deeds,
            read,
        }))
    }

    /// The sites in which it may write, or all of them once in a while: then the server has to refuse.
    fn writable_sites(&mut self, shape: &Shape) -> Vec<String> {
        if self.chance.once_in(20) {
            return shape.sites.clone();
        }
        let may = |site: &String| {
            let scope = shape::site_scope(site);
            self.grants.iter().any(|grant| grant.scope == scope && grant.rights == Rights::Write)
        };
        shape.sites.iter().filter(|site| may(site)).cloned().collect()
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().ends_with(NOT_ON_DISK) {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The newest transaction of an outbox; zeros where it is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LastEntry {
    /// Its number.
    pub number: u64,
    /// When it was written, by the clock of its device, in milliseconds since 1970.
    pub written_at_ms: u64,
}

/// The newest transaction of a device's outbox.
///
/// # Errors
/// Where the SDK does not read.
pub fn last_entry(client: &Client) -> Result<LastEntry, QueryError> {
    let last = client.outbox(OUTBOX_LIMIT)?.pop();
    let of =
        |entry: OutboxEntry| LastEntry { number: entry.number, written_at_ms: entry.written_at_ms };
    Ok(last.map(of).unwrap_or_default())
}

fn ids(client: &Client, sql: &str) -> Result<Vec<RowId>, QueryError> {
    let rows = client.query(sql, &[])?.rows.into_iter().filter_map(|row| match row.first() {
        Some(SqlValue::Bytes(bytes)) => Some(RowId::from_bytes(*bytes.first_chunk()?)),
        _ => None,
    });
    Ok(rows.collect())
}

/// What a transaction did.
#[derive(Debug)]
pub struct Written {
    /// Its number; `None` where it only read.
    pub number: Option<u64>,
    /// When it was written, by the clock of its device, in milliseconds since 1970; 0 where it only read.
    pub written_at_ms: u64,
    /// What it wrote.
    pub deeds: Vec<Deed>,
    /// What it read of registers.
    pub read: Option<Read>,
}

/// Writes one transaction, and writes down what it did.
struct Author<'a, 'b> {
    shape: &'a Shape,
    version: u32,
    sites: &'a [String],
    rows: &'a BTreeMap<String, Vec<RowId>>,
    deleted: &'a [RowKey],
    now_ms: u64,
    /// Numbers that nothing in the run has yet.
    numbers: &'a mut u64,
    transaction: &'a mut WriteTransaction<'b>,
    deeds: &'a mut Vec<Deed>,
    read: &'a mut Option<Seen>,
}

impl Author<'_, '_> {
    fn carry_out(&mut self, op: &Op) -> Result<(), WriteError> {
        let chance = &mut Chance::of(op.pick);
        match op.kind {
            OpKind::Insert => self.insert(chance),
            OpKind::Batch => self.batch(chance),
            OpKind::Update => self.update(chance),
            OpKind::Increment => self.increment(chance),
            OpKind::SetAdd => self.set_add(chance),
            OpKind::SetRemove => self.set_remove(chance),
            OpKind::Type => self.type_word(chance),
            OpKind::Move => self.move_row(chance),
            OpKind::Delete => match self.a_row(chance) {
                Some((collection, row)) => {
                    self.transaction.delete(&collection.name, row)?;
                    self.deeds.push(Deed::Delete { row: (collection.name.clone(), row) });
                    Ok(())
                }
                None => Ok(()),
            },
            OpKind::Restore => self.restore(chance),
            OpKind::Registers => self.registers(chance),
        }
    }

    fn number(&mut self) -> u64 {
        *self.numbers += 1;
        *self.numbers
    }

    fn a_collection(&self, chance: &mut Chance) -> Option<CollectionShape> {
        let known = self.shape.collections_of(self.version);
        let some: Vec<_> = known.iter().filter(|known| known.role == Role::Any).collect();
        chance.pick(&some).map(|found| (*found).clone())
    }

    fn a_row(&self, chance: &mut Chance) -> Option<(CollectionShape, RowId)> {
        let collection = self.a_collection(chance)?;
        let row = *chance.pick(self.rows.get(&collection.name)?)?;
        Some((collection, row))
    }

    fn a_column(
        &self,
        chance: &mut Chance,
        kind: ColumnType,
    ) -> Option<(CollectionShape, RowId, ColumnShape)> {
        let (collection, row) = self.a_row(chance)?;
        let some: Vec<_> = self.columns(&collection).filter(|column| column.kind == kind).collect();
        let column = (*chance.pick(&some)?).clone();
        Some((collection, row, column))
    }

    fn columns<'s>(
        &self,
        collection: &'s CollectionShape,
    ) -> impl Iterator<Item = &'s ColumnShape> + use<'s> {
        let newest = self.version > 1;
        collection.columns.iter().filter(move |column| newest || !column.added)
    }

    fn scope_of(
        &self,
        collection: &CollectionShape,
        chance: &mut Chance,
    ) -> Option<Option<String>> {
        if collection.by_site {
            chance.pick(self.sites).map(|site| Some(site.clone()))
        } else {
            Some(None)
        }
    }

    fn visible(&mut self, row: &RowKey) -> Result<BTreeMap<String, ColumnValue>, WriteError> {
        Ok(self.transaction.get(&row.0, row.1)?.map(|row| row.columns).unwrap_or_default())
    }

    fn insert(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let Some(collection) = self.a_collection(chance) else { return Ok(()) };
        let Some(site) = self.scope_of(&collection, chance) else { return Ok(()) };
        let row = shape::draw_row(self.now_ms, chance);
        let columns = self.columns(&collection).cloned().collect::<Vec<_>>();
        let mut values = Vec::new();
        for column in &columns {
            if column.kind.is_scalar() && (column.group.is_some() || !chance.once_in(3)) {
                let number = self.number();
                values.push((column.name.clone(), self.shape.value(column.kind, number)));
            }
        }
        self.put_new(&collection, row, site, values)
    }

    fn put_new(
        &mut self,
        collection: &CollectionShape,
        row: RowId,
        site: Option<String>,
        mut values: Vec<(String, Value)>,
    ) -> Result<(), WriteError> {
        let scope = site.as_deref().map_or_else(shape::tenant_scope, shape::site_scope);
        values.extend(site.map(|site| (SITE_COLUMN.to_owned(), Value::Text(site))));
        let cells: Vec<(&str, Value)> =
            values.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        self.transaction.insert(&collection.name, Some(row), &cells)?;
        let row = (collection.name.clone(), row);
        self.deeds.push(Deed::Insert { row: row.clone(), scope });
        self.deeds.extend(values.into_iter().map(|(column, value)| Deed::Write {
            cell: (row.clone(), column),
            value,
            over: None,
        }));
        Ok(())
    }

    fn batch(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let batches = self.shape.collections.iter().find(|known| known.role == Role::Batches);
        let Some(collection) = batches.cloned() else { return Ok(()) };
        let Some(site) = self.scope_of(&collection, chance) else { return Ok(()) };
        let (batch, size) = (self.number(), chance.between(2, 6));
        for _ in 0..size {
            let row = shape::draw_row(self.now_ms, chance);
            let number = self.number();
            let values = vec![
                ("batch".to_owned(), self.shape.value(ColumnType::Int, batch)),
                ("size".to_owned(), self.shape.value(ColumnType::Int, size)),
                ("word".to_owned(), self.shape.value(ColumnType::Text, number)),
            ];
            self.put_new(&collection, row, site.clone(), values)?;
        }
        Ok(())
    }

    fn update(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let Some((collection, row)) = self.a_row(chance) else { return Ok(()) };
        let scalars: Vec<_> =
            self.columns(&collection).filter(|column| column.kind.is_scalar()).cloned().collect();
        let mut values = Vec::new();
        for column in &scalars {
            if chance.once_in(2) {
                let number = self.number();
                let null = chance.once_in(12);
                let value = if null { Value::Null } else { self.shape.value(column.kind, number) };
                values.push((column.clone(), value));
            }
        }
        if values.is_empty() {
            return Ok(());
        }
        let key = (collection.name.clone(), row);
        let before = self.visible(&key)?;
        let cells: Vec<(&str, Value)> =
            values.iter().map(|(column, value)| (column.name.as_str(), value.clone())).collect();
        self.transaction.update(&collection.name, row, &cells)?;
        let groups: Vec<u64> = values.iter().filter_map(|(column, _)| column.group).collect();
        let scalar = |name: &str| match before.get(name) {
            Some(ColumnValue::Scalar(value)) => Some(value.clone()),
            _ => None,
        };
        for column in &scalars {
            let over = scalar(&column.name);
            let written = values.iter().find(|(written, _)| written.name == column.name);
            let value = match written {
                Some((_, value)) => Some(value.clone()),
                // What moves together with a written column is written again as it was.
                None if column.group.is_some_and(|group| groups.contains(&group)) => over.clone(),
                None => None,
            };
            if let Some(value) = value {
                let cell: Cell = (key.clone(), column.name.clone());
                self.deeds.push(Deed::Write { cell, value, over });
            }
        }
        Ok(())
    }

    fn increment(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let counter = self.a_column(chance, ColumnType::Counter);
        let Some((collection, row, column)) = counter else { return Ok(()) };
        let delta = i64::try_from(chance.between(1, 9)).unwrap_or(1);
        self.transaction.increment(&collection.name, row, &column.name, delta)?;
        self.deeds.push(Deed::Add { cell: ((collection.name, row), column.name), delta });
        Ok(())
    }

    fn set_add(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let set = self.a_column(chance, ColumnType::Set);
        let Some((collection, row, column)) = set else { return Ok(()) };
        let number = self.number();
        let element = self.shape.value(ColumnType::Text, number);
        self.transaction.set_add(&collection.name, row, &column.name, element.clone())?;
        self.deeds.push(Deed::SetAdd { cell: ((collection.name, row), column.name), element });
        Ok(())
    }

    /// Reads every register, and writes to some. Who sees none makes some.
    fn registers(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let known = self.shape.collections.iter().find(|known| known.role == Role::Registers);
        let Some(collection) = known.cloned() else { return Ok(()) };
        let rows = self.rows.get(&collection.name).cloned().unwrap_or_default();
        let mut seen = Seen::new();
        for row in &rows {
            let columns = self.visible(&(collection.name.clone(), *row))?;
            if let Some(ColumnValue::Set(values)) = columns.get(VALUES_COLUMN) {
                seen.insert(*row, values.iter().filter_map(causal::int).collect());
            }
        }
        *self.read = Some(seen);
        if rows.is_empty() {
            for _ in 0..REGISTERS_MADE {
                let row = shape::draw_row(self.now_ms, chance);
                self.put_new(&collection, row, None, Vec::new())?;
            }
            return Ok(());
        }
        for _ in 0..chance.below(4) {
            let Some(row) = chance.pick(&rows).copied() else { return Ok(()) };
            let element = Value::Int(i64::try_from(self.number()).unwrap_or(i64::MAX));
            self.transaction.set_add(&collection.name, row, VALUES_COLUMN, element.clone())?;
            let cell = ((collection.name.clone(), row), VALUES_COLUMN.to_owned());
            self.deeds.push(Deed::SetAdd { cell, element });
        }
        Ok(())
    }

    fn set_remove(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let set = self.a_column(chance, ColumnType::Set);
        let Some((collection, row, column)) = set else { return Ok(()) };
        let key = (collection.name.clone(), row);
        let before = self.visible(&key)?;
        let Some(ColumnValue::Set(elements)) = before.get(&column.name) else { return Ok(()) };
        let Some(element) = chance.pick(elements).cloned() else { return Ok(()) };
        self.transaction.set_remove(&collection.name, row, &column.name, element.clone())?;
        self.deeds.push(Deed::SetRemove { cell: (key, column.name), element });
        Ok(())
    }

    fn type_word(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let document = self.a_column(chance, ColumnType::Document);
        let Some((collection, row, column)) = document else { return Ok(()) };
        let word = format!("<{}:{}>", self.shape.canary, self.number());
        let transaction = &mut *self.transaction;
        transaction.edit_text(&collection.name, row, &column.name, TEXT_FIELD, 0, 0, &word)?;
        self.deeds.push(Deed::Type { cell: ((collection.name, row), column.name), word });
        Ok(())
    }

    fn move_row(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let Some((collection, row)) = self.a_row(chance) else { return Ok(()) };
        let site = chance.pick(self.sites).cloned();
        let Some(site) = site.filter(|_| collection.by_site) else { return Ok(()) };
        let value = Value::Text(site);
        let cells = [(SITE_COLUMN, value.clone())];
        self.transaction.update(&collection.name, row, &cells)?;
        let cell = ((collection.name, row), SITE_COLUMN.to_owned());
        self.deeds.push(Deed::Write { cell, value, over: None });
        Ok(())
    }

    fn restore(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let known = self.shape.collections_of(self.version);
        let is_known = |row: &&RowKey| known.iter().any(|collection| collection.name == row.0);
        let some: Vec<_> = self.deleted.iter().filter(is_known).collect();
        let Some(row) = chance.pick(&some).map(|row| (*row).clone()) else { return Ok(()) };
        self.transaction.restore(&row.0, row.1)?;
        self.deeds.push(Deed::Restore { row });
        Ok(())
    }
}

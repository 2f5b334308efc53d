//! A device of a run: the SDK as apps use it, on files that outlive its power.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use farshore_client::environment::Environment as _;
use farshore_client::store::{OutboxEntry, QueryError, SqlValue, WriteError};
use farshore_client::sync::{SocketFuture, StoreCalls, Transport};
use farshore_client::vault::MemoryVault;
use farshore_client::{Client, Status, TokenSource};
use farshore_server::auth::authenticator::DeviceToken;
use farshore_sync_core::ids::{DeviceId, RowId, UserId};
use farshore_sync_core::schema::Schema;
use farshore_sync_core::wire::{Grant, Rights};
use test_chance::Chance;
use tokio::runtime::Handle;
use tokio_tungstenite::tungstenite::Error;

use self::author::Author;
use crate::causal::Read;
use crate::history::{Deed, RowKey, View};
use crate::network::{Dialling, Network};
use crate::plan::Op;
use crate::platform::Platform;
use crate::shape::{self, Shape};
use crate::time::{DeviceEnvironment, Timeline};

mod author;

/// The name of a device's files.
const NAME: &str = "device";
/// What a copy of a device's files leaves out: the index of the log, which is made anew.
const NOT_ON_DISK: &str = "-shm";
/// Rows of a collection among which a transaction chooses.
const ROWS_TO_CHOOSE_FROM: u64 = 40;
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
        let shown = shown(&client, &deeds).map_err(fail)?;
        Ok((number.is_some() || read.is_some()).then_some(Written {
            number,
            written_at_ms,
            deeds,
            shown,
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

/// The rows of a transaction as the app reads them.
fn shown(client: &Client, deeds: &[Deed]) -> Result<View, QueryError> {
    let mut view = View::new();
    for key in deeds.iter().map(Deed::row).collect::<BTreeSet<_>>() {
        if let Some(found) = client.row(&key.0, key.1)? {
            view.insert(key.clone(), found.columns);
        }
    }
    Ok(view)
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
    /// Its rows, right after it was made.
    pub shown: View,
    /// What it read of registers.
    pub read: Option<Read>,
}

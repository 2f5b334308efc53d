//! A device of ours: the SDK with an encrypted store in a directory of its own.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farshore_client::encrypted_file::{self, OpenMode};
use farshore_client::store::SqlValue;
use farshore_client::vault::{SealedFile, VaultLabel};
use farshore_client::{Client, TokenSource};
use rusqlite::Connection;

use crate::flights::SCHEMA;
use crate::outcome::Outcome;

/// How long to wait for what must come.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Opens a device that knows no server.
pub fn offline(dir: &Path) -> Outcome<Client> {
    let keys = dir.join("keys");
    fs::create_dir_all(&keys)?;
    Ok(Client::builder().dir(dir).schema(SCHEMA).vault(Arc::new(SealedFile::new(keys))).build()?)
}

/// Opens a device of a tenant; it does not connect.
pub fn of_tenant(dir: &Path, url: &str, token: &str) -> Outcome<Client> {
    let keys = dir.join("keys");
    fs::create_dir_all(&keys)?;
    let builder = Client::builder().dir(dir).schema(SCHEMA).vault(Arc::new(SealedFile::new(keys)));
    Ok(builder.server(url).token(TokenSource::fixed(token)?).build()?)
}

/// Opens the database of a device that is not running, with its own key.
pub fn behind_the_sdk(dir: &Path) -> Outcome<Connection> {
    let mut files = fs::read_dir(dir)?.flatten().map(|entry| entry.path());
    let database = files.find(|path| path.extension().is_some_and(|ending| ending == "db"));
    let database = database.ok_or("the device has no database")?;
    let label = database.file_stem().and_then(|stem| stem.to_str()).ok_or("no name")?.to_owned();
    let key = encrypted_file::unlock(
        &database,
        &SealedFile::new(dir.join("keys")),
        &VaultLabel::new(&label)?,
    )?;
    Ok(encrypted_file::open(&database, &key, OpenMode::ReadWrite)?)
}

/// The integer that a SELECT gives.
pub fn integer(client: &Client, select: &str) -> Outcome<i64> {
    let found = client.query(select, &[])?;
    match found.rows.first().and_then(|row| row.first()) {
        Some(SqlValue::Int(int)) => Ok(*int),
        other => Err(format!("`{select}` gave {other:?}").into()),
    }
}

/// The wall clock, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

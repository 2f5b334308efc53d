//! Opening a store.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farshore_sync_core::ids::DeviceId;
use farshore_sync_core::schema::Schema;
use rusqlite::Connection;
use uuid::Uuid;

use super::documents::OpenDocuments;
use super::error::{Failure, OpenError, StoreError};
use super::functions;
use super::layout::Layout;
use super::progress::Progress;
use super::readers::Readers;
use super::tables;
use super::transaction::{Known, Tx};
use super::upgrade::{self, Misfit, Relation};
use crate::encrypted_file::{self, OnClose, OpenMode, StoreKey};
use crate::vault::{KeyVault, VaultLabel};

/// The ending of a database's file name.
const FILE_ENDING: &str = "db";

/// Statements that the writer keeps prepared: some for each collection, and those of the store itself.
const WRITER_STATEMENTS: usize = 512;

/// Whether a store may, must or must not be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CreateMode {
    /// Open the store; create it where there is none.
    #[default]
    CreateIfMissing,
    /// Open the store; [`encrypted_file::OpenError::NotCreated`] where there is none.
    MustExist,
    /// Create the store; [`encrypted_file::OpenError::AlreadyExists`] where there is one.
    MustCreate,
}

/// What a store is opened with.
#[derive(Clone)]
pub struct StoreOptions {
    /// The directory of the database; it is made where it is missing and the store may be created.
    pub dir: PathBuf,
    /// The name of the database's file, without its ending, and of its entry in the vault.
    pub name: String,
    /// The device whose store it is; a store that exists belongs to one device for good.
    pub device: DeviceId,
    /// The app's schema.
    pub schema: Arc<Schema>,
    /// Where the key of the database is kept.
    pub vault: Arc<dyn KeyVault>,
    /// Whether the store may be created.
    pub create: CreateMode,
}

/// A store that is open.
pub(super) struct Opened {
    pub path: PathBuf,
    pub layout: Layout,
    pub connection: Connection,
    pub known: Known,
    pub readers: Readers,
}

/// Opens or creates a store, and brings its tables up to the app's schema.
pub(super) fn open(options: &StoreOptions) -> Result<Opened, OpenError> {
    let label = VaultLabel::new(options.name.clone())?;
    let path = options.dir.join(format!("{}.{FILE_ENDING}", options.name));
    let key = unlock(options, &path, &label)?;
    let connection = connect_writer(&path, &key)?;
    let fail = |failure| OpenError::Store(StoreError::new(&path, failure));
    if has_tables(&connection).map_err(fail)? {
        let found = Progress::load(&connection).map_err(fail)?.device;
        if found != options.device {
            return Err(OpenError::OtherDevice { path, expected: options.device, found });
        }
    } else {
        create_store(&connection, options).map_err(fail)?;
    }
    let layout = fit(&connection, options, &path)?;
    let known = Known::load(&connection).map_err(fail)?;
    settle(&connection, &path).map_err(fail)?;
    Ok(Opened { readers: Readers::new(path.clone(), key), path, layout, connection, known })
}

/// A connection that writes. Until it is settled, closing it leaves the files as they are.
pub(super) fn connect_writer(path: &Path, key: &StoreKey) -> Result<Connection, OpenError> {
    let connection = encrypted_file::open(path, key, OpenMode::ReadWrite)?;
    connection.set_prepared_statement_cache_capacity(WRITER_STATEMENTS);
    let fail = |error: rusqlite::Error| OpenError::Store(StoreError::new(path, error.into()));
    encrypted_file::on_close(&connection, OnClose::LeaveFiles).map_err(fail)?;
    functions::register(&connection).map_err(fail)?;
    Ok(connection)
}

/// What was read of the store is sound and durable: from here on it may acknowledge, and closing it tidies up.
pub(super) fn settle(connection: &Connection, path: &Path) -> Result<(), Failure> {
    require_sound(connection)?;
    in_transaction(connection, || {
        // A sync that failed in an earlier life may have left in memory what is not on the disk.
        farshore_log_check::make_durable(path).map_err(Failure::Device)
    })?;
    Ok(encrypted_file::on_close(connection, OnClose::TidyLog)?)
}

/// An error where the connection has read what is not authentic.
pub(super) fn require_sound(connection: &Connection) -> Result<(), Failure> {
    if encrypted_file::is_sound(connection)? {
        Ok(())
    } else {
        Err(Failure::damaged("a page that was read is not what was written"))
    }
}

fn unlock(options: &StoreOptions, path: &Path, label: &VaultLabel) -> Result<StoreKey, OpenError> {
    let vault = options.vault.as_ref();
    if options.create == CreateMode::MustExist {
        if !options.dir.exists() {
            let path = path.to_owned();
            return Err(OpenError::File(encrypted_file::OpenError::NotCreated { path }));
        }
        return Ok(encrypted_file::unlock(path, vault, label)?);
    }
    fs::create_dir_all(&options.dir).map_err(|source| {
        OpenError::File(encrypted_file::OpenError::Io { path: options.dir.clone(), source })
    })?;
    if options.create == CreateMode::CreateIfMissing {
        match encrypted_file::unlock(path, vault, label) {
            Err(encrypted_file::OpenError::NotCreated { .. }) => {}
            found => return Ok(found?),
        }
    }
    let store_id = Uuid::from_bytes(*options.device.as_bytes());
    Ok(encrypted_file::create(path, vault, label, store_id)?)
}

fn has_tables(connection: &Connection) -> Result<bool, Failure> {
    let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'fs_state')";
    Ok(connection.query_row(exists, [], |row| row.get(0))?)
}

/// Creates every table in one transaction; a crash leaves an empty database, which is taken up where it is.
fn create_store(connection: &Connection, options: &StoreOptions) -> Result<(), Failure> {
    let layout = Layout::new(&options.schema, Arc::clone(&options.schema));
    in_transaction(connection, || {
        tables::create_tables(connection)?;
        Progress::new(options.device).save(connection)?;
        upgrade::create_collections(connection, &layout)?;
        upgrade::save_schemas(connection, &options.schema, &layout)
    })
}

/// Brings the tables up to the app's schema, in one transaction.
fn fit(connection: &Connection, options: &StoreOptions, path: &Path) -> Result<Layout, OpenError> {
    let fail = |failure| OpenError::Store(StoreError::new(path, failure));
    let app = &options.schema;
    match upgrade::relate(connection, app).map_err(fail)? {
        Ok(Relation::Covered { newest, views_differ }) => {
            let layout = Layout::new(&newest, Arc::clone(app));
            if views_differ {
                let save = || upgrade::save_schemas(connection, &newest, &layout);
                in_transaction(connection, save).map_err(fail)?;
            }
            Ok(layout)
        }
        Ok(Relation::Newer { before }) => {
            let layout = Layout::new(app, Arc::clone(app));
            extend(connection, &before, &layout, path).map_err(fail)?;
            Ok(layout)
        }
        Err(Misfit::Unreadable(source)) => {
            Err(OpenError::StoredSchema { path: path.to_owned(), source })
        }
        Err(Misfit::Conflict { stored, source }) => {
            let (path, app) = (path.to_owned(), app.version);
            Err(OpenError::SchemaConflict { path, app, stored, source })
        }
    }
}

fn extend(
    connection: &Connection,
    before: &Schema,
    layout: &Layout,
    path: &Path,
) -> Result<(), Failure> {
    let mut known = Known::load(connection)?;
    let mut open_documents = OpenDocuments::default();
    let mut tx = Tx::begin(connection, layout, &mut known, &mut open_documents, path)?;
    upgrade::extend_tables(connection, before, layout)?;
    tx.adopt_untyped(before)?;
    upgrade::save_schemas(connection, &layout.app, layout)?;
    tx.commit().map(|_| ())
}

fn in_transaction(
    connection: &Connection,
    work: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let done = work().and_then(|()| Ok(connection.execute_batch("COMMIT")?));
    if done.is_err() && !connection.is_autocommit() {
        // The first error is the one to tell.
        let _ = connection.execute_batch("ROLLBACK");
    }
    done
}

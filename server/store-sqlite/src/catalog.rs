//! Creating, opening and erasing tenants.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use farshore_store::catalog::{Catalog, CatalogError};
use farshore_store::copy::{Arrival, Arriving};
use farshore_store::scope::{ScopeAuthority, TenantScope};
use farshore_store::sealing::{MasterKey, SEALING_OVERHEAD_BYTES, UnsealError};
use farshore_store::sync_core::ids::TenantId;
use farshore_store::{SharedTenantStore, StoreError};
use rusqlite::params;

use crate::arrival::Arrivals;
use crate::config::{JournalMode, SqliteConfig};
use crate::connection::{self, Role};
use crate::data_key::DataKey;
use crate::durable;
use crate::failure::{Failure, file_error};
use crate::files::{self, Existence, TenantFiles};
use crate::journal::{self, Journal};
use crate::journalled::OwnJournal;
use crate::migrations;
use crate::open_tenants::{OpenTenants, Passage};
use crate::tenant::{Ending, OpenTenant, SqliteTenant, blocking};

const TENANTS_FOLDER: &str = "tenants";
const CLUSTERS_FOLDER: &str = "clusters";
/// An empty secret under the master key: it tells at the start whether the key is the right one.
const MASTER_KEY_CHECK: &str = "master-key.check";
const MASTER_KEY_CHECK_PURPOSE: &str = "master-key-check";

/// The tenants of a data directory.
#[derive(Debug, Clone)]
pub struct SqliteCatalog(pub(crate) Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub config: Arc<SqliteConfig>,
    /// `None` where each commit syncs the file of its tenant, and nothing is left of when that was otherwise.
    pub journal: Option<Arc<Journal>>,
    pub folder: PathBuf,
    pub clusters: PathBuf,
    pub master: MasterKey,
    pub tenants: OpenTenants,
    pub arrivals: Arrivals,
}

impl SqliteCatalog {
    /// Opens a data directory, which is made where it is missing, and finishes what a crash interrupted. Blocks.
    ///
    /// # Errors
    /// [`CatalogError::WrongMasterKey`] where the directory was made with another key, or what is wrong with
    /// the directory or with the SQLite in this program.
    pub fn open(
        config: SqliteConfig,
        master: MasterKey,
    ) -> Result<(Self, ScopeAuthority), CatalogError> {
        connection::check_library()?;
        let folder = config.data_dir.join(TENANTS_FOLDER);
        let clusters = config.data_dir.join(CLUSTERS_FOLDER);
        for folder in [&folder, &clusters] {
            make_folder(folder).map_err(file_error("make the data directory", folder))?;
        }
        check_master_key(&config.data_dir.join(MASTER_KEY_CHECK), &master)?;
        files::clear_arrivals(&folder).map_err(file_error("clear a copy away", &folder))?;
        files::finish_moves(&folder).map_err(file_error("finish a move", &folder))?;
        files::finish_erasures(&folder).map_err(file_error("finish an erasure", &folder))?;
        let tenants = OpenTenants::new(config.max_open_tenants);
        let config = Arc::new(config);
        let journal = open_journal(&config, &master, &folder)?;
        let shared = Shared {
            config,
            journal,
            folder,
            clusters,
            master,
            tenants,
            arrivals: Arrivals::default(),
        };
        Ok((Self(Arc::new(shared)), ScopeAuthority::for_new_catalog()))
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        scope: &TenantScope,
        work: impl FnOnce(&Shared, TenantId) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let (shared, tenant) = (Arc::clone(&self.0), scope.tenant().clone());
        blocking(operation, move || work(&shared, tenant)).await?
    }
}

#[async_trait]
impl Catalog for SqliteCatalog {
    async fn create(
        &self,
        scope: &TenantScope,
        now_ms: u64,
    ) -> Result<SharedTenantStore, CatalogError> {
        let open =
            self.run("create a tenant", scope, move |shared, tenant| shared.create(tenant, now_ms));
        Ok(Arc::new(SqliteTenant(open.await?)))
    }

    async fn open(&self, scope: &TenantScope) -> Result<SharedTenantStore, CatalogError> {
        let open = match self.0.tenants.recent(scope.tenant()) {
            Some(open) => open,
            None => self.run("open a tenant", scope, Shared::open).await?,
        };
        Ok(Arc::new(SqliteTenant(open)))
    }

    async fn erase(&self, scope: &TenantScope) -> Result<(), CatalogError> {
        self.run("erase a tenant", scope, Shared::erase).await
    }

    async fn receive(
        &self,
        scope: &TenantScope,
        arriving: Arriving,
    ) -> Result<Box<dyn Arrival>, CatalogError> {
        let (shared, tenant) = (Arc::clone(&self.0), scope.tenant().clone());
        blocking("receive a copy", move || shared.receive(tenant, arriving)).await?
    }

    async fn release(&self, scope: &TenantScope) -> Result<(), CatalogError> {
        self.run("release a tenant", scope, Shared::release).await
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, CatalogError> {
        let (operation, shared) = ("list the tenants", Arc::clone(&self.0));
        let listed = blocking(operation, move || {
            files::tenants_in(&shared.folder).map_err(file_error(operation, &shared.folder))
        });
        Ok(listed.await??)
    }
}

impl Shared {
    fn open(&self, tenant: TenantId) -> Result<Arc<OpenTenant>, CatalogError> {
        let gate = self.tenants.gate(&tenant);
        let mut passage = gate.pass();
        let files = self.files(&tenant);
        let open = match self.existence(&files)? {
            Existence::Unknown => return Err(CatalogError::UnknownTenant { tenant }),
            Existence::Erased => return Err(CatalogError::Erased { tenant }),
            Existence::Elsewhere(cluster) => {
                return Err(CatalogError::Elsewhere { tenant, cluster });
            }
            Existence::Present => match passage.open() {
                Some(open) => open,
                None => self.open_files(&files, &tenant, &mut passage)?,
            },
        };
        drop(passage);
        self.tenants.keep(tenant, Arc::clone(&open));
        Ok(open)
    }

    pub fn open_files(
        &self,
        files: &TenantFiles,
        tenant: &TenantId,
        passage: &mut Passage<'_>,
    ) -> Result<Arc<OpenTenant>, CatalogError> {
        files.finish_creation().map_err(file_error("finish a creation", &self.folder))?;
        let key = self.data_key(files, tenant)?;
        let journal = self.journal.as_ref();
        let journal = journal.map(|of_all| OwnJournal::new(of_all, &self.config, tenant, &key));
        let open = OpenTenant::open(files.database(), key, Arc::clone(&self.config), journal)?;
        let open = Arc::new(open);
        passage.set(&open);
        Ok(open)
    }

    /// The key of a tenant that is there.
    pub fn data_key(
        &self,
        files: &TenantFiles,
        tenant: &TenantId,
    ) -> Result<DataKey, CatalogError> {
        let key = DataKey::load(&files.key(), &self.master, tenant)?;
        key.ok_or_else(|| CatalogError::UnknownTenant { tenant: tenant.clone() })
    }

    /// Makes the database of a new tenant, complete and closed.
    pub fn make_database(&self, path: &Path, key: &DataKey, now_ms: u64) -> Result<(), Failure> {
        make_database(path, key, &self.config, now_ms)
    }

    fn create(&self, tenant: TenantId, now_ms: u64) -> Result<Arc<OpenTenant>, CatalogError> {
        let operation = "create a tenant";
        let gate = self.tenants.gate(&tenant);
        let mut passage = gate.pass();
        let files = self.files(&tenant);
        match self.existence(&files)? {
            Existence::Present | Existence::Elsewhere(_) => {
                return Err(CatalogError::TenantExists { tenant });
            }
            Existence::Erased => return Err(CatalogError::Erased { tenant }),
            Existence::Unknown => {}
        }
        let database = files.database();
        if database.try_exists().map_err(file_error(operation, &database))? {
            let detail = format!("{} is there without its key", database.display());
            return Err(StoreError::Damaged { operation, detail }.into());
        }
        files.clear_creation().map_err(file_error(operation, &self.folder))?;
        let key = DataKey::generate().map_err(|error| StoreError::database(operation, error))?;
        self.make_database(&files.creating(), &key, now_ms)
            .map_err(|failure| failure.during(operation))?;
        key.store(&files.key(), &self.master, &tenant)?;
        let open = self.open_files(&files, &tenant, &mut passage)?;
        drop(passage);
        self.tenants.keep(tenant, Arc::clone(&open));
        Ok(open)
    }

    fn erase(&self, tenant: TenantId) -> Result<(), CatalogError> {
        let gate = self.tenants.gate(&tenant);
        let passage = gate.pass();
        let files = self.files(&tenant);
        match self.existence(&files)? {
            Existence::Unknown => return Err(CatalogError::UnknownTenant { tenant }),
            Existence::Present | Existence::Elsewhere(_) | Existence::Erased => {}
        }
        if let Some(open) = passage.open() {
            open.end(Ending::Erased);
        }
        self.tenants.forget(&tenant);
        files.erase().map_err(file_error("erase a tenant", &self.folder))?;
        self.forget_records(&tenant);
        Ok(())
    }

    /// Removes what is here of a tenant that is elsewhere.
    fn release(&self, tenant: TenantId) -> Result<(), CatalogError> {
        let gate = self.tenants.gate(&tenant);
        let passage = gate.pass();
        let files = self.files(&tenant);
        match self.existence(&files)? {
            Existence::Unknown => return Err(CatalogError::UnknownTenant { tenant }),
            Existence::Erased => return Err(CatalogError::Erased { tenant }),
            Existence::Present => return Err(CatalogError::TenantExists { tenant }),
            Existence::Elsewhere(_) => {}
        }
        if let Some(open) = passage.open() {
            open.wait_for_readers();
            open.end(Ending::BegunAnew);
        }
        self.tenants.forget(&tenant);
        files.remove_data().map_err(file_error("release a tenant", &self.folder))?;
        self.forget_records(&tenant);
        Ok(())
    }

    /// Forgets what the shared journal has of files that a tenant had.
    pub fn forget_records(&self, tenant: &TenantId) {
        if let Some(journal) = &self.journal {
            journal.forget(tenant, None);
        }
    }

    pub fn files(&self, tenant: &TenantId) -> TenantFiles {
        TenantFiles::new(self.folder.clone(), tenant.clone())
    }

    pub fn existence(&self, files: &TenantFiles) -> Result<Existence, StoreError> {
        files.existence().map_err(file_error("look for a tenant", &self.folder))
    }
}

/// Opens the shared journal, where there is one or is to be one, and forgets what it has of tenants that are gone.
fn open_journal(
    config: &Arc<SqliteConfig>,
    master: &MasterKey,
    folder: &Path,
) -> Result<Option<Arc<Journal>>, StoreError> {
    let path = config.data_dir.join(journal::FILE_NAME);
    let is_there = path.try_exists().map_err(file_error("look for the journal", &path))?;
    if config.journal == JournalMode::Off && !is_there {
        return Ok(None);
    }
    let journal = Journal::open(Arc::clone(config), master)?;
    for tenant in journal.tenants() {
        let files = TenantFiles::new(folder.to_owned(), tenant);
        let existence = files.existence().map_err(file_error("look for a tenant", folder))?;
        if existence != Existence::Present {
            journal.forget(files.tenant(), None);
        }
    }
    let is_of_use = config.journal == JournalMode::Shared || !journal.tenants().is_empty();
    Ok(is_of_use.then(|| Arc::new(journal)))
}

/// Makes the database of a new tenant, complete and closed.
fn make_database(
    path: &Path,
    key: &DataKey,
    config: &SqliteConfig,
    now_ms: u64,
) -> Result<(), Failure> {
    let mut random = [0; 32 + 8];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|error| StoreError::database("create a tenant", error))?;
    let (digest_key, epoch) = random.split_at(32);
    let epoch = u64::from_le_bytes(epoch.try_into().expect("8 bytes are left")).max(1);
    let mut database = connection::open(path, key, Role::Creator, config)?;
    migrations::migrate(&mut database)?;
    database.execute(
        "INSERT INTO standing (only, seq, horizon, epoch, digest_key, created_at_ms, file) \
         VALUES (1, 0, 0, ?1, ?2, ?3, randomblob(16))",
        params![epoch.cast_signed(), digest_key, now_ms.cast_signed()],
    )?;
    connection::close_whole(database)
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn check_master_key(path: &Path, master: &MasterKey) -> Result<(), CatalogError> {
    let operation = "check the master key";
    let sealed = match durable::read_within(path, SEALING_OVERHEAD_BYTES as u64) {
        Ok(sealed) => sealed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let sealed = master.seal(MASTER_KEY_CHECK_PURPOSE, b"");
            let sealed = sealed.map_err(|error| StoreError::database(operation, error))?;
            return Ok(durable::create(path, &sealed).map_err(file_error(operation, path))?);
        }
        Err(error) => return Err(file_error(operation, path)(error).into()),
    };
    match master.open(MASTER_KEY_CHECK_PURPOSE, &sealed) {
        Ok(_) => Ok(()),
        Err(UnsealError::WrongMasterKey) => {
            let what = path.parent().unwrap_or(path).display().to_string();
            Err(CatalogError::WrongMasterKey { what })
        }
        Err(error @ UnsealError::Damaged) => {
            let detail = format!("{}: {error}", path.display());
            Err(StoreError::Damaged { operation, detail }.into())
        }
    }
}

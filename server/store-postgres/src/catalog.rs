//! Creating, opening and erasing tenants.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use farshore_store::catalog::{Catalog, CatalogError};
use farshore_store::copy::{Arrival, Arriving};
use farshore_store::placement::ClusterName;
use farshore_store::schemas::SchemaStore as _;
use farshore_store::scope::{ScopeAuthority, TenantScope};
use farshore_store::sealing::MasterKey;
use farshore_store::sync_core::ids::TenantId;
use farshore_store::{SharedTenantStore, StoreError};
use lru::LruCache;
use sqlx::Row as _;

use crate::arrival;
use crate::config::PostgresConfig;
use crate::connections::PoolFigures;
use crate::database::{Database, Pace, Transaction};
use crate::failure::Failure;
use crate::migrations::{self, STEPS, Step};
use crate::names::{Names, Roles, TenantKey};
use crate::platform::{self, OpenError};
use crate::query::Query;
use crate::tenant::{Ending, OpenTenant, PostgresTenant};
use crate::version::ServerVersion;

pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// The tenants of a database.
#[derive(Debug, Clone)]
pub struct PostgresCatalog(pub(crate) Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub database: Arc<Database>,
    pub roles: Roles,
    version: ServerVersion,
    steps: &'static [Step],
    recent: Mutex<LruCache<TenantId, Arc<OpenTenant>>>,
}

/// What the platform knows of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Registered {
    /// There is none.
    No,
    /// It is there, under this key.
    Present(TenantKey),
    /// It is in a cluster of databases; what is here under this key does not count.
    Elsewhere {
        /// The cluster.
        cluster: ClusterName,
        /// The key.
        key: TenantKey,
    },
    /// It was erased.
    Erased,
}

/// Whether the views on a tenant's collections show its newest schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Views {
    Newest,
    Behind,
}

impl PostgresCatalog {
    /// Checks the database, and prepares it where that was not done yet.
    ///
    /// # Errors
    /// What is wrong with the database, see [`OpenError`].
    pub async fn open(
        config: PostgresConfig,
        master: &MasterKey,
    ) -> Result<(Self, ScopeAuthority), OpenError> {
        Self::open_with_steps(config, master, STEPS).await
    }

    /// How its connections are used now.
    #[must_use]
    pub fn pool_figures(&self) -> PoolFigures {
        self.0.database.figures()
    }

    pub(crate) async fn open_with_steps(
        config: PostgresConfig,
        master: &MasterKey,
        steps: &'static [Step],
    ) -> Result<(Self, ScopeAuthority), OpenError> {
        let platform = platform::prepare(&config, master).await?;
        let most: NonZeroUsize = config.limits.max_open_tenants;
        let shared = Shared {
            database: Database::new(config),
            roles: platform.roles,
            version: platform.version,
            steps,
            recent: Mutex::new(LruCache::new(most)),
        };
        Ok((Self(Arc::new(shared)), ScopeAuthority::for_new_catalog()))
    }
}

#[async_trait]
impl Catalog for PostgresCatalog {
    async fn create(
        &self,
        scope: &TenantScope,
        now_ms: u64,
    ) -> Result<SharedTenantStore, CatalogError> {
        let operation = "create a tenant";
        let key = TenantKey::random().map_err(|error| StoreError::database(operation, error))?;
        let names = Names::new(scope.tenant().clone(), key);
        let created = self.0.create(&names, now_ms).await;
        let tenant = scope.tenant().clone();
        match created.map_err(|failure| failure.during(operation))? {
            Registered::No => Ok(self.0.opened(names)),
            Registered::Present(_) | Registered::Elsewhere { .. } => {
                Err(CatalogError::TenantExists { tenant })
            }
            Registered::Erased => Err(CatalogError::Erased { tenant }),
        }
    }

    async fn open(&self, scope: &TenantScope) -> Result<SharedTenantStore, CatalogError> {
        let tenant = scope.tenant().clone();
        if let Some(open) = self.0.recent(&tenant) {
            return Ok(Arc::new(PostgresTenant(open)));
        }
        let operation = "open a tenant";
        let registered = self.0.database.registered(&tenant).await;
        match registered.map_err(|failure| failure.during(operation))? {
            Registered::No => Err(CatalogError::UnknownTenant { tenant }),
            Registered::Erased => Err(CatalogError::Erased { tenant }),
            Registered::Elsewhere { cluster, .. } => {
                Err(CatalogError::Elsewhere { tenant, cluster })
            }
            Registered::Present(key) => {
                let names = Names::new(tenant, key);
                match self.0.migrate(&names).await {
                    Ok(views) => {
                        let store = self.0.opened(names);
                        if views == Views::Behind
                            && let Some(schema) = store.schema().await?
                        {
                            store.0.follow_schema(&schema).await;
                        }
                        Ok(store)
                    }
                    Err(failure) if failure.is_missing_tenant() => {
                        let (tenant, schema) = (&names.tenant, names.schema());
                        let detail = format!(
                            "the schema {schema} of {tenant} is not as it was made: {failure}"
                        );
                        Err(StoreError::Damaged { operation, detail }.into())
                    }
                    Err(failure) => Err(failure.during(operation).into()),
                }
            }
        }
    }

    async fn erase(&self, scope: &TenantScope) -> Result<(), CatalogError> {
        let tenant = scope.tenant().clone();
        let erased = self.0.erase(&tenant).await;
        match erased.map_err(|failure| failure.during("erase a tenant"))? {
            Registered::No => Err(CatalogError::UnknownTenant { tenant }),
            Registered::Present(_) | Registered::Elsewhere { .. } | Registered::Erased => Ok(()),
        }
    }

    async fn receive(
        &self,
        scope: &TenantScope,
        arriving: Arriving,
    ) -> Result<Box<dyn Arrival>, CatalogError> {
        Arc::clone(&self.0).receive(scope.tenant().clone(), arriving).await
    }

    async fn release(&self, scope: &TenantScope) -> Result<(), CatalogError> {
        let tenant = scope.tenant().clone();
        let released = self.0.release(&tenant).await;
        match released.map_err(|failure| failure.during("release a tenant"))? {
            Registered::No => Err(CatalogError::UnknownTenant { tenant }),
            Registered::Erased => Err(CatalogError::Erased { tenant }),
            Registered::Present(_) | Registered::Elsewhere { .. } => Ok(()),
        }
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, CatalogError> {
        let listed = self.0.tenants().await;
        Ok(listed.map_err(|failure| failure.during("list the tenants"))?)
    }
}

impl Shared {
    fn recent(&self, tenant: &TenantId) -> Option<Arc<OpenTenant>> {
        let open = self.lock().get(tenant).cloned();
        open.filter(|open| !open.has_ended())
    }

    pub fn opened(&self, names: Names) -> Arc<PostgresTenant> {
        let (tenant, roles) = (names.tenant.clone(), self.roles.clone());
        let open = Arc::new(OpenTenant::new(Arc::clone(&self.database), names, roles));
        self.lock().put(tenant, Arc::clone(&open));
        Arc::new(PostgresTenant(open))
    }

    /// Creates a tenant in one transaction; returns how it was registered before.
    async fn create(&self, names: &Names, now_ms: u64) -> Result<Registered, Failure> {
        let (mut transaction, _) = self.database.begin(BEGIN, Pace::Hot, "").await?;
        let created = self.create_in(&mut transaction, names, now_ms).await;
        transaction.end(created).await
    }

    async fn create_in(
        &self,
        transaction: &mut Transaction,
        names: &Names,
        now_ms: u64,
    ) -> Result<Registered, Failure> {
        let found = register(transaction, names, now_ms).await?;
        if found == Registered::No {
            self.make(transaction, names, now_ms).await?;
        }
        Ok(found)
    }

    /// Makes the role and the schemas of a tenant, with empty tables.
    pub async fn make(
        &self,
        transaction: &mut Transaction,
        names: &Names,
        now_ms: u64,
    ) -> Result<(), Failure> {
        let (role, owner) = (self.roles.of(&names.key), self.roles.owner());
        let (schema, views) = (names.schema(), names.views());
        let mut script = format!(
            "CREATE ROLE {role} NOLOGIN;\n{};\n\
             CREATE SCHEMA {schema} AUTHORIZATION {owner};\n\
             CREATE SCHEMA {views} AUTHORIZATION {owner};\n{};\n\
             GRANT USAGE ON SCHEMA {schema}, {views} TO {role};\n",
            platform::grant_to_us(&role, self.version),
            self.as_owner(names),
        );
        for step in self.steps {
            script.push_str(&migrations::script(step, names, &self.roles));
        }
        transaction.script(script).await?;
        transaction.execute(self.first_standing(names, now_ms)?).await.map(drop)
    }

    /// What drops the schemas and the role of a tenant, run as the one who signed in.
    pub fn unmake(&self, names: &Names) -> String {
        let (owner, role) = (self.roles.owner(), self.roles.of(&names.key));
        format!(
            "SET LOCAL ROLE {owner};\nDROP SCHEMA IF EXISTS {}, {} CASCADE;\n\
             SET LOCAL ROLE NONE;\nDROP ROLE IF EXISTS {role}",
            names.schema(),
            names.views(),
        )
    }

    fn first_standing(&self, names: &Names, now_ms: u64) -> Result<Query, Failure> {
        let mut random = [0; 32 + 8];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|error| StoreError::database("create a tenant", error))?;
        let (digest_key, epoch) = random.split_at(32);
        let epoch = u64::from_le_bytes(epoch.try_into().expect("8 bytes are left")).max(1);
        let insert = "INSERT INTO main.standing \
            (only_row, format, seq, horizon, epoch, lineage, digest_key, created_at_ms) \
            VALUES (true, $1, 0, 0, $2, farshore.lineage(), $3, $4)";
        Ok(Query::new(names.qualify(insert))
            .bind(self.newest_format())
            .bind(epoch.cast_signed())
            .bind(digest_key)
            .bind(now_ms.cast_signed()))
    }

    /// Brings a tenant to the newest format, one step after another. Of several nodes one does it while the others
    /// wait.
    async fn migrate(&self, names: &Names) -> Result<Views, Failure> {
        let look = names.qualify(
            "SELECT format, views < coalesce((SELECT max(version) FROM main.schemas), 0) \
             FROM main.standing",
        );
        let look = format!("{};{look}", self.as_owner(names));
        loop {
            let (mut transaction, rows) =
                self.database.begin(BEGIN, Pace::Maintenance, &look).await?;
            let stepped = self.step_in(&mut transaction, names, format_in(&rows)).await;
            if !transaction.end(stepped).await? {
                let behind = rows.first().is_some_and(|row| row.try_get(1).unwrap_or(false));
                return Ok(if behind { Views::Behind } else { Views::Newest });
            }
        }
    }

    /// Goes one step; returns whether there was one to go.
    async fn step_in(
        &self,
        transaction: &mut Transaction,
        names: &Names,
        seen: Result<i32, Failure>,
    ) -> Result<bool, Failure> {
        if seen? == self.newest_format() {
            return Ok(false);
        }
        let lock = names.qualify("SELECT format FROM main.standing FOR UPDATE");
        let format = format_in(&transaction.script(lock).await?)?;
        let newest = self.newest_format();
        if format > newest {
            let (found, newest) = (format.unsigned_abs(), newest.unsigned_abs());
            return Err(StoreError::NewerFormat { found, newest }.into());
        }
        let Some(step) = usize::try_from(format).ok().and_then(|done| self.steps.get(done)) else {
            return Ok(false);
        };
        tracing::info!(tenant = %names.tenant, from = format, "migrating");
        let mut script = migrations::script(step, names, &self.roles);
        script
            .push_str(&names.qualify(&format!("UPDATE main.standing SET format = {}", format + 1)));
        transaction.script(script).await?;
        Ok(true)
    }

    /// Erases a tenant in one transaction; returns how it was registered before.
    async fn erase(&self, tenant: &TenantId) -> Result<Registered, Failure> {
        let (mut transaction, _) = self.database.begin(BEGIN, Pace::Maintenance, "").await?;
        let erased = self.erase_in(&mut transaction, tenant).await;
        let before = transaction.end(erased).await?;
        if let Some(open) = self.lock().pop(tenant) {
            open.end(Ending::Erased);
        }
        Ok(before)
    }

    /// Drops what is here of a tenant that was moved away; returns how it was registered before. Where it is registered
    /// as one that is elsewhere, it stays so.
    async fn release(&self, tenant: &TenantId) -> Result<Registered, Failure> {
        let (mut transaction, _) = self.database.begin(BEGIN, Pace::Maintenance, "").await?;
        let released = async {
            let found = registered(&mut transaction, tenant).await?;
            let key = match &found {
                Registered::No | Registered::Erased => return Ok(found),
                Registered::Elsewhere { key, .. } => key.clone(),
                Registered::Present(key) => {
                    let forget = Query::new("DELETE FROM farshore.tenants WHERE id = $1");
                    transaction.execute(forget.bind(tenant.as_str())).await?;
                    key.clone()
                }
            };
            transaction.script(self.unmake(&Names::new(tenant.clone(), key))).await?;
            Ok(found)
        };
        let released = released.await;
        let before = transaction.end(released).await?;
        if let Some(open) = self.lock().pop(tenant) {
            open.end(Ending::BegunAnew);
        }
        Ok(before)
    }

    async fn erase_in(
        &self,
        transaction: &mut Transaction,
        tenant: &TenantId,
    ) -> Result<Registered, Failure> {
        let mark =
            "UPDATE farshore.tenants SET erased = true WHERE id = $1 AND NOT erased RETURNING key";
        let marked = transaction.rows(Query::new(mark).bind(tenant.as_str())).await?;
        let Some(marked) = marked.first() else {
            return registered(transaction, tenant).await;
        };
        let names = Names::new(tenant.clone(), key_in(marked, 0)?);
        let arriving = arrival::forget(transaction, tenant).await?;
        let all = [Some(names.clone()), arriving].into_iter().flatten();
        let script: Vec<_> = all.map(|names| self.unmake(&names)).collect();
        let script = script.join(";\n");
        transaction.script(script).await?;
        Ok(Registered::Present(names.key))
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, Failure> {
        let list = "SELECT id FROM farshore.tenants WHERE NOT erased ORDER BY id";
        let (transaction, rows) = self.database.begin(BEGIN, Pace::Hot, list).await?;
        let tenants = rows.iter().map(|row| {
            let id: String = row.try_get(0)?;
            id.parse().map_err(|error| Failure::Damaged(format!("farshore.tenants: {error}")))
        });
        let tenants = tenants.collect();
        transaction.end(tenants).await
    }

    /// Takes on the role that owns the tables, for one tenant.
    pub fn as_owner(&self, names: &Names) -> String {
        format!("SET LOCAL ROLE {};SET LOCAL farshore.tenant = '{}'", self.roles.owner(), names.key)
    }

    fn newest_format(&self) -> i32 {
        i32::try_from(self.steps.len()).expect("there are a handful of steps")
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<TenantId, Arc<OpenTenant>>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Database {
    /// What the platform knows of a tenant.
    pub async fn registered(&self, tenant: &TenantId) -> Result<Registered, Failure> {
        let (mut transaction, _) = self.begin(BEGIN, Pace::Hot, "").await?;
        let found = registered(&mut transaction, tenant).await;
        transaction.end(found).await
    }
}

/// Registers a tenant unless it is; returns how it was registered before.
pub(crate) async fn register(
    transaction: &mut Transaction,
    names: &Names,
    now_ms: u64,
) -> Result<Registered, Failure> {
    let (tenant, key) = (&names.tenant, &names.key);
    let register = "INSERT INTO farshore.tenants (id, key, erased, created_at_ms) \
        VALUES ($1, $2, false, $3) ON CONFLICT (id) DO NOTHING";
    let register = Query::new(register).bind(tenant.as_str()).bind(key.as_str());
    match transaction.execute(register.bind(now_ms.cast_signed())).await? {
        0 => registered(transaction, tenant).await,
        _ => Ok(Registered::No),
    }
}

pub(crate) async fn registered(
    transaction: &mut Transaction,
    tenant: &TenantId,
) -> Result<Registered, Failure> {
    let look = Query::new("SELECT erased, key, cluster FROM farshore.tenants WHERE id = $1");
    let rows = transaction.rows(look.bind(tenant.as_str())).await?;
    let Some(row) = rows.first() else { return Ok(Registered::No) };
    if row.try_get(0)? {
        return Ok(Registered::Erased);
    }
    let key = key_in(row, 1)?;
    match row.try_get::<Option<&str>, _>(2)? {
        None => Ok(Registered::Present(key)),
        Some(cluster) => {
            let cluster = cluster.parse().map_err(|error| Failure::Damaged(format!("{error}")))?;
            Ok(Registered::Elsewhere { cluster, key })
        }
    }
}

pub(crate) fn key_in(row: &sqlx::postgres::PgRow, column: usize) -> Result<TenantKey, Failure> {
    let key: &str = row.try_get(column)?;
    key.parse().map_err(|error| Failure::Damaged(format!("farshore.tenants: {error}")))
}

fn format_in(rows: &[sqlx::postgres::PgRow]) -> Result<i32, Failure> {
    let row = rows.first().ok_or_else(|| Failure::Damaged("it stands nowhere".to_owned()))?;
    Ok(row.try_get(0)?)
}

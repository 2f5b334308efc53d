//! An open tenant: its transactions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use farshore_store::StoreError;
use farshore_store::sql::SchemaCache;
use farshore_store::sync::Head;
use farshore_store::sync_core::digest::DigestKey;
use farshore_store::sync_core::schema::Schema;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::catalog::Registered;
use crate::database::{Database, Pace, Transaction};
use crate::failure::Failure;
use crate::names::{Names, Roles};
use crate::views;

/// The store of a tenant as it is handed out. All of them share one [`OpenTenant`].
#[derive(Debug)]
pub(crate) struct PostgresTenant(pub Arc<OpenTenant>);

/// What is remembered of a tenant. It holds no connection.
#[derive(Debug)]
pub(crate) struct OpenTenant {
    database: Arc<Database>,
    pub names: Names,
    roles: Roles,
    ended: OnceLock<Ending>,
    /// The epoch in which the schemas were remembered; 0 at first.
    epoch: AtomicU64,
    pub schemas: SchemaCache,
}

/// Why what is remembered of a tenant is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It was erased.
    Erased,
    /// A copy took its place.
    BegunAnew,
}

/// The head with the digest key beside it.
#[derive(Debug)]
pub(crate) struct Standing {
    pub head: Head,
    pub digest_key: DigestKey,
}

/// A transaction of one tenant, with where the tenant stands in it.
pub(crate) struct TenantTransaction {
    pub transaction: Transaction,
    pub standing: Standing,
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// One snapshot.
    Read,
    /// The tenant's only writer, on whatever node, until it ends.
    Write,
}

impl OpenTenant {
    pub fn new(database: Arc<Database>, names: Names, roles: Roles) -> Self {
        Self {
            database,
            names,
            roles,
            ended: OnceLock::new(),
            epoch: AtomicU64::new(0),
            schemas: SchemaCache::default(),
        }
    }

    pub fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    /// From now on every operation fails for this reason, unless there was one before; returns it.
    pub fn end(&self, ending: Ending) -> StoreError {
        match self.ended.get_or_init(|| ending) {
            Ending::Erased => StoreError::Erased,
            Ending::BegunAnew => StoreError::BegunAnew,
        }
    }

    /// Begins to read one snapshot.
    pub async fn read(&self, pace: Pace) -> Result<TenantTransaction, Failure> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.begin(begin, pace, Access::Read).await
    }

    /// Begins to write, once all earlier writers of the tenant have ended. Everything that is read from here on is
    /// what they left: each statement has a snapshot of its own, taken after the lock.
    pub async fn write(&self, pace: Pace) -> Result<TenantTransaction, Failure> {
        let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
        self.begin(begin, pace, Access::Write).await
    }

    async fn begin(
        &self,
        begin: &str,
        pace: Pace,
        access: Access,
    ) -> Result<TenantTransaction, Failure> {
        if let Some(ending) = self.ended.get() {
            return Err(self.end(*ending).into());
        }
        let opening = self.opening(access);
        let (transaction, rows) = self.database.begin(begin, pace, &opening).await?;
        match rows.last().map(standing) {
            Some(Ok(standing)) => {
                self.notice(standing.head.epoch);
                Ok(TenantTransaction { transaction, standing })
            }
            Some(Err(error)) => transaction.end(Err(error.into())).await,
            None => {
                let nowhere = "the tenant stands nowhere".to_owned();
                transaction.end(Err(Failure::Damaged(nowhere))).await
            }
        }
    }

    /// A copy that took the tenant's place may have other schemas under the same versions.
    fn notice(&self, epoch: u64) {
        if self.epoch.swap(epoch, Ordering::AcqRel) != epoch {
            self.schemas.forget();
        }
    }

    /// The walls, and then where the tenant stands. A setting that lasts longer than the transaction would be somebody
    /// else's behind a pooler.
    fn opening(&self, access: Access) -> String {
        let (role, tenant) = (self.roles.of(&self.names.key), &self.names.key);
        let durable = match access {
            Access::Read => "",
            // An acknowledgement means durable; whoever asks the server for more than that gets more.
            Access::Write => {
                "SELECT set_config('synchronous_commit', 'on', true) \
                 WHERE current_setting('synchronous_commit') = 'off';"
            }
        };
        let lock = match access {
            Access::Read => "",
            Access::Write => " FOR NO KEY UPDATE",
        };
        let standing =
            self.names.qualify("SELECT seq, horizon, epoch, digest_key FROM main.standing");
        format!(
            "SET LOCAL ROLE {role};SET LOCAL farshore.tenant = '{tenant}';{durable}{standing}{lock}"
        )
    }

    /// Brings the views on collections to a version of the schema. Nothing fails for them.
    pub async fn follow_schema(&self, schema: &Schema) {
        let followed = views::follow(&self.database, &self.names, &self.roles, schema).await;
        if let Err(failure) = followed {
            let tenant = &self.names.tenant;
            tracing::warn!(%tenant, %failure, "the views on collections are as they were before");
        }
    }

    /// The error of an operation. A tenant that is missing something was perhaps erased, or has another key now: a copy
    /// took its place.
    pub async fn explain(&self, operation: &'static str, failure: Failure) -> StoreError {
        if failure.is_missing_tenant() {
            match self.database.registered(&self.names.tenant).await {
                Ok(Registered::Erased) => return self.end(Ending::Erased),
                Ok(Registered::Present(key)) if key != self.names.key => {
                    return self.end(Ending::BegunAnew);
                }
                Ok(Registered::Present(_) | Registered::No) | Err(_) => {}
            }
        }
        failure.during(operation)
    }
}

impl PostgresTenant {
    /// Names the operation of what failed.
    pub async fn during<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, StoreError> {
        match work.await {
            Ok(done) => Ok(done),
            Err(failure) => Err(self.0.explain(operation, failure).await),
        }
    }
}

fn standing(row: &PgRow) -> Result<Standing, sqlx::Error> {
    let number = |column: usize| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
    let head = Head { seq: number(0)?, horizon: number(1)?, epoch: number(2)? };
    Ok(Standing { head, digest_key: DigestKey(row.try_get(3)?) })
}

//! An open tenant: its transactions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use farshore_store::StoreError;
use farshore_store::placement::MoveToken;
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
use crate::query::Query;
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
    /// The epoch to which everything belongs that is remembered; 0 before the first transaction.
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
    /// Which history of the database the epoch belongs to, and which one this is.
    lineage: [String; 2],
    /// Whether it takes no writes.
    is_frozen: bool,
}

impl Standing {
    /// Whether the database goes on from another history: it may lack what it had.
    fn has_strayed(&self) -> bool {
        let [known, found] = &self.lineage;
        known != found
    }
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
        self.begin(pace, Access::Read).await
    }

    /// Begins to write, once all earlier writers of the tenant have ended. Everything that is read from here on is
    /// what they left: each statement has a snapshot of its own, taken after the lock.
    pub async fn write(&self, pace: Pace) -> Result<TenantTransaction, Failure> {
        self.begin(pace, Access::Write).await
    }

    async fn begin(&self, pace: Pace, access: Access) -> Result<TenantTransaction, Failure> {
        let begun = self.begin_where_it_stands(pace, access).await?;
        if access == Access::Write && begun.standing.is_frozen {
            return begun.transaction.end(Err(StoreError::Frozen.into())).await;
        }
        if !begun.standing.has_strayed() {
            return self.in_its_epoch(begun);
        }
        begun.transaction.end(Ok(())).await?;
        self.begin_epoch_of_this_lineage().await?;
        let begun = self.begin_where_it_stands(pace, access).await?;
        if begun.standing.has_strayed() {
            // The way to the database leads to two of them in turn.
            let problem = "the history of the database does not stay the same".to_owned();
            return begun.transaction.end(Err(Failure::Damaged(problem))).await;
        }
        self.in_its_epoch(begun)
    }

    /// Forgets what belongs to an epoch that is over.
    fn in_its_epoch(&self, begun: TenantTransaction) -> Result<TenantTransaction, Failure> {
        let epoch = begun.standing.head.epoch;
        if self.epoch.swap(epoch, Ordering::AcqRel) != epoch {
            self.schemas.forget();
        }
        Ok(begun)
    }

    /// Begins an epoch where the database goes on from another history, as after a standby was promoted: commits that
    /// devices know of may be missing, and in a new epoch devices offer what the server lacks. Of several nodes one
    /// does it.
    async fn begin_epoch_of_this_lineage(&self) -> Result<(), Failure> {
        let begun = self.begin_where_it_stands(Pace::Hot, Access::Write).await?;
        let TenantTransaction { mut transaction, standing } = begun;
        if !standing.has_strayed() {
            return transaction.end(Ok(())).await;
        }
        let mut entropy = [0; 8];
        aws_lc_rs::rand::fill(&mut entropy)
            .map_err(|error| StoreError::database("begin an epoch", error))?;
        let epoch = standing.head.next_epoch(u64::from_le_bytes(entropy));
        let begin = "UPDATE main.standing SET epoch = $1, lineage = $2";
        let [known, found] = standing.lineage;
        let begin = Query::new(self.names.qualify(begin)).bind(epoch.cast_signed()).bind(&*found);
        let begun = transaction.execute(begin).await.map(drop);
        transaction.end(begun).await?;
        let (tenant, seq) = (&self.names.tenant, standing.head.seq);
        tracing::warn!(
            %tenant, seq, epoch, %known, %found,
            "the database goes on from another history, as after a standby was promoted: a new epoch begins, \
             in which devices offer what it lacks"
        );
        Ok(())
    }

    async fn begin_where_it_stands(
        &self,
        pace: Pace,
        access: Access,
    ) -> Result<TenantTransaction, Failure> {
        if let Some(ending) = self.ended.get() {
            return Err(self.end(*ending).into());
        }
        let begin = match access {
            Access::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Access::Write => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        };
        let opening = self.opening(access);
        let home = self.names.key.number();
        let (transaction, rows) = self.database.begin_near(home, begin, pace, &opening).await?;
        match rows.last().map(standing) {
            Some(Ok(standing)) => Ok(TenantTransaction { transaction, standing }),
            Some(Err(error)) => transaction.end(Err(error.into())).await,
            None => {
                let nowhere = "the tenant stands nowhere".to_owned();
                transaction.end(Err(Failure::Damaged(nowhere))).await
            }
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
        let standing = self.names.qualify(
            "SELECT seq, horizon, epoch, digest_key, lineage, farshore.lineage(), \
             frozen_by IS NOT NULL FROM main.standing",
        );
        format!(
            "SET LOCAL ROLE {role};SET LOCAL farshore.tenant = '{tenant}';{durable}{standing}{lock}"
        )
    }

    /// Changes who has frozen the tenant, after the commit that is running.
    pub async fn set_frozen(&self, update: &str, by: MoveToken) -> Result<(), Failure> {
        let begun = self.begin_where_it_stands(Pace::Hot, Access::Write).await?;
        let mut transaction = begun.transaction;
        let update = Query::new(self.names.qualify(update)).bind(&by.0[..]);
        let updated = transaction.execute(update).await.map(drop);
        transaction.end(updated).await
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
                Ok(Registered::Elsewhere { .. }) => return self.end(Ending::BegunAnew),
                // A database that goes on from another history may have lost it.
                Ok(Registered::No) => return self.end(Ending::BegunAnew),
                Ok(Registered::Present(_)) | Err(_) => {}
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
    let lineage = [row.try_get(4)?, row.try_get(5)?];
    let is_frozen = row.try_get(6)?;
    Ok(Standing { head, digest_key: DigestKey(row.try_get(3)?), lineage, is_frozen })
}

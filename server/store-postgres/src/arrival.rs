//! Copies of tenants that arrive beside them: under a key of their own, which takes the place of the tenant's in one
//! transaction.

use std::sync::Arc;

use async_trait::async_trait;
use farshore_store::catalog::CatalogError;
use farshore_store::copy::{Arrival, Arriving, Record};
use farshore_store::schemas::SchemaStore as _;
use farshore_store::sync_core::ids::TenantId;
use farshore_store::{SharedTenantStore, StoreError};
use sqlx::Row as _;

use crate::catalog::{BEGIN, Registered, Shared, key_in, register, registered};
use crate::database::{Pace, Transaction};
use crate::failure::Failure;
use crate::names::{Names, TenantKey};
use crate::query::Query;
use crate::sync::reception::{self, Reception};
use crate::tenant::{OpenTenant, PostgresTenant};

struct PostgresArrival {
    shared: Arc<Shared>,
    arriving: Arriving,
    open: Arc<OpenTenant>,
    reception: Reception,
}

#[async_trait]
impl Arrival for PostgresArrival {
    async fn put(&mut self, records: Vec<Record>) -> Result<(), StoreError> {
        let (shared, names) = (&self.shared, &self.open.names);
        let put = async {
            let (mut transaction, _) = shared.database.begin(BEGIN, Pace::Maintenance, "").await?;
            let course = &mut self.reception;
            let put = async {
                is_the_last(&mut transaction, names).await?;
                transaction.script(shared.as_owner(names)).await?;
                reception::write(names, &mut transaction, records, course).await
            };
            let put = put.await;
            transaction.end(put).await
        };
        put.await.map_err(|failure: Failure| failure.during("take a copy in"))
    }

    fn store(&self) -> SharedTenantStore {
        Arc::new(PostgresTenant(Arc::clone(&self.open)))
    }

    async fn finish(self: Box<Self>) -> Result<SharedTenantStore, CatalogError> {
        let names = self.open.names.clone();
        let finished = self.shared.finish_arrival(&names, self.arriving).await;
        let found = finished.map_err(|failure| failure.during("finish a copy"))?;
        check(&names.tenant, &found, self.arriving)?;
        if self.arriving == Arriving::Returning {
            // Whoever opens it is to find out where it is.
            return Ok(Arc::new(PostgresTenant(self.open)));
        }
        let store = self.shared.opened(names);
        // The views are people's, and nothing fails for them.
        if let Ok(Some(schema)) = store.schema().await {
            store.0.follow_schema(&schema).await;
        }
        Ok(store)
    }
}

/// Whether a copy may arrive where this was found.
fn check(tenant: &TenantId, found: &Registered, arriving: Arriving) -> Result<(), CatalogError> {
    let tenant = tenant.clone();
    match (found, arriving) {
        (Registered::Erased, _) => Err(CatalogError::Erased { tenant }),
        (Registered::Present(_), Arriving::New | Arriving::Returning) => {
            Err(CatalogError::TenantExists { tenant })
        }
        (Registered::No, Arriving::Replacing | Arriving::Returning) => {
            Err(CatalogError::UnknownTenant { tenant })
        }
        (Registered::Elsewhere { cluster, .. }, Arriving::New | Arriving::Replacing) => {
            Err(CatalogError::Elsewhere { tenant, cluster: cluster.clone() })
        }
        (Registered::No, Arriving::New)
        | (Registered::Present(_), Arriving::Replacing)
        | (Registered::Elsewhere { .. }, Arriving::Returning) => Ok(()),
    }
}

/// Whether a copy is still the one of its tenant that began to arrive last; no other one begins before the transaction
/// has ended.
async fn is_the_last(transaction: &mut Transaction, names: &Names) -> Result<(), Failure> {
    let look = "SELECT FROM farshore.arrivals WHERE tenant = $1 AND key = $2 FOR SHARE";
    let look = Query::new(look).bind(names.tenant.as_str()).bind(names.key.as_str());
    match transaction.rows(look).await?.len() {
        0 => Err(StoreError::PushedAside.into()),
        _ => Ok(()),
    }
}

/// Forgets the copy of a tenant that began to arrive last, and says what it left.
pub(crate) async fn forget(
    transaction: &mut Transaction,
    tenant: &TenantId,
) -> Result<Option<Names>, Failure> {
    let forget = Query::new("DELETE FROM farshore.arrivals WHERE tenant = $1 RETURNING key");
    let forgotten = transaction.rows(forget.bind(tenant.as_str())).await?;
    let key = forgotten.first().map(|row| key_in(row, 0)).transpose()?;
    Ok(key.map(|key| Names::new(tenant.clone(), key)))
}

impl Shared {
    /// Begins to take a copy in.
    pub async fn receive(
        self: Arc<Self>,
        tenant: TenantId,
        arriving: Arriving,
    ) -> Result<Box<dyn Arrival>, CatalogError> {
        let operation = "receive a copy";
        let key = TenantKey::random().map_err(|error| StoreError::database(operation, error))?;
        let names = Names::new(tenant, key);
        let begun = async {
            let (mut transaction, _) = self.database.begin(BEGIN, Pace::Maintenance, "").await?;
            let begun = self.receive_in(&mut transaction, &names, arriving).await;
            transaction.end(begun).await
        };
        let found = begun.await.map_err(|failure: Failure| failure.during(operation))?;
        check(&names.tenant, &found, arriving)?;
        let open = OpenTenant::new(Arc::clone(&self.database), names, self.roles.clone());
        let (open, reception) = (Arc::new(open), Reception::default());
        Ok(Box::new(PostgresArrival { shared: self, arriving, open, reception }))
    }

    async fn receive_in(
        &self,
        transaction: &mut Transaction,
        names: &Names,
        arriving: Arriving,
    ) -> Result<Registered, Failure> {
        let found = registered(transaction, &names.tenant).await?;
        if check(&names.tenant, &found, arriving).is_err() {
            return Ok(found);
        }
        if let Some(earlier) = forget(transaction, &names.tenant).await? {
            transaction.script(self.unmake(&earlier)).await?;
        }
        let begin = Query::new("INSERT INTO farshore.arrivals (tenant, key) VALUES ($1, $2)");
        let begin = begin.bind(names.tenant.as_str()).bind(names.key.as_str());
        transaction.execute(begin).await?;
        self.make(transaction, names, 0).await?;
        Ok(found)
    }

    /// Gives the tenant the key of a copy that arrived, and drops what it had; returns how the tenant was registered.
    async fn finish_arrival(
        &self,
        arrived: &Names,
        arriving: Arriving,
    ) -> Result<Registered, Failure> {
        let (mut transaction, _) = self.database.begin(BEGIN, Pace::Maintenance, "").await?;
        let finished = self.finish_arrival_in(&mut transaction, arrived, arriving).await;
        transaction.end(finished).await
    }

    async fn finish_arrival_in(
        &self,
        transaction: &mut Transaction,
        arrived: &Names,
        arriving: Arriving,
    ) -> Result<Registered, Failure> {
        let tenant = &arrived.tenant;
        let found = registered(transaction, tenant).await?;
        if check(tenant, &found, arriving).is_err() {
            return Ok(found);
        }
        is_the_last(transaction, arrived).await?;
        let (Registered::Present(replaced) | Registered::Elsewhere { key: replaced, .. }) = &found
        else {
            let created_at_ms = self.created_at_ms(transaction, arrived).await?;
            let found = register(transaction, arrived, created_at_ms).await?;
            if found == Registered::No {
                forget(transaction, tenant).await?;
            }
            return Ok(found);
        };
        let replace = "UPDATE farshore.tenants SET key = $3 WHERE id = $1 AND key = $2";
        let replace = Query::new(replace).bind(tenant.as_str()).bind(replaced.as_str());
        if transaction.execute(replace.bind(arrived.key.as_str())).await? == 0 {
            return Err(StoreError::PushedAside.into());
        }
        forget(transaction, tenant).await?;
        // Whoever commits now does so before, and whoever comes later finds that it is gone.
        let replaced = Names::new(tenant.clone(), replaced.clone());
        transaction.script(self.unmake(&replaced)).await?;
        Ok(found)
    }

    /// When the tenant that arrived was created, as its copy says.
    async fn created_at_ms(
        &self,
        transaction: &mut Transaction,
        arrived: &Names,
    ) -> Result<u64, Failure> {
        let standing = arrived.qualify("SELECT created_at_ms FROM main.standing");
        let script = format!("{};{standing};SET LOCAL ROLE NONE", self.as_owner(arrived));
        let rows = transaction.script(script).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok(row.try_get::<i64, _>(0)?.cast_unsigned())
    }
}

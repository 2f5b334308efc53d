//! Copies of tenants that arrive beside them: in a schema of their own, whose tables take the place of the tenant's in
//! one transaction.

use std::sync::Arc;

use async_trait::async_trait;
use farshore_store::catalog::CatalogError;
use farshore_store::copy::{Arrival, Arriving, Record};
use farshore_store::schemas::SchemaStore as _;
use farshore_store::sync_core::ids::TenantId;
use farshore_store::{SharedTenantStore, StoreError};
use sqlx::Row as _;

use crate::catalog::{BEGIN, Registered, Shared, register, registered};
use crate::database::{Pace, Transaction};
use crate::failure::Failure;
use crate::migrations;
use crate::names::Names;
use crate::query::Query;
use crate::sync::copy::{self, Positions};
use crate::tenant::{OpenTenant, PostgresTenant};

/// What tells one arriving copy from another.
type Token = [u8; 16];

struct PostgresArrival {
    shared: Arc<Shared>,
    tenant: TenantId,
    arriving: Arriving,
    token: Token,
    open: Arc<OpenTenant>,
    positions: Positions,
}

#[async_trait]
impl Arrival for PostgresArrival {
    async fn put(&mut self, records: Vec<Record>) -> Result<(), StoreError> {
        let (shared, names) = (&self.shared, &self.open.names);
        let put = async {
            let (mut transaction, _) = shared.database.begin(BEGIN, Pace::Maintenance, "").await?;
            let positions = &mut self.positions;
            let put = async {
                is_the_last(&mut transaction, &self.tenant, self.token).await?;
                transaction.script(shared.as_owner(&self.tenant)).await?;
                copy::write(names, &mut transaction, records, positions).await
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
        let Self { shared, tenant, arriving, token, open, .. } = *self;
        let finished = shared.finish_arrival(&tenant, arriving, token, &open).await;
        let found = finished.map_err(|failure| failure.during("finish a copy"))?;
        check(tenant.clone(), found, arriving)?;
        let store = shared.opened(tenant);
        // The views were built on what is gone; they are people's, and nothing fails for them.
        if let Ok(Some(schema)) = store.schema().await {
            store.0.follow_schema(&schema).await;
        }
        Ok(store)
    }
}

/// Whether a copy may arrive where this was found.
fn check(tenant: TenantId, found: Registered, arriving: Arriving) -> Result<(), CatalogError> {
    match (found, arriving) {
        (Registered::Erased, _) => Err(CatalogError::Erased { tenant }),
        (Registered::Present, Arriving::New) => Err(CatalogError::TenantExists { tenant }),
        (Registered::No, Arriving::Replacing) => Err(CatalogError::UnknownTenant { tenant }),
        (Registered::No, Arriving::New) | (Registered::Present, Arriving::Replacing) => Ok(()),
    }
}

fn fits(found: Registered, arriving: Arriving) -> bool {
    matches!(
        (found, arriving),
        (Registered::No, Arriving::New) | (Registered::Present, Arriving::Replacing)
    )
}

async fn is_the_last(
    transaction: &mut Transaction,
    tenant: &TenantId,
    token: Token,
) -> Result<(), Failure> {
    // The lock keeps a later copy from clearing away what this one writes into.
    let look = "SELECT FROM farshore.arrivals WHERE tenant = $1 AND token = $2 FOR SHARE";
    let look = Query::new(look).bind(tenant.as_str()).bind(&token[..]);
    match transaction.rows(look).await?.len() {
        0 => Err(StoreError::PushedAside.into()),
        _ => Ok(()),
    }
}

impl Shared {
    /// Begins to take a copy in.
    pub async fn receive(
        self: Arc<Self>,
        tenant: TenantId,
        arriving: Arriving,
    ) -> Result<Box<dyn Arrival>, CatalogError> {
        let operation = "receive a copy";
        let mut token = Token::default();
        aws_lc_rs::rand::fill(&mut token)
            .map_err(|error| StoreError::database(operation, error))?;
        let names = Names::arriving(tenant.clone());
        let begun = async {
            let (mut transaction, _) = self.database.begin(BEGIN, Pace::Maintenance, "").await?;
            let begun = self.receive_in(&mut transaction, &names, arriving, token).await;
            transaction.end(begun).await
        };
        let found = begun.await.map_err(|failure: Failure| failure.during(operation))?;
        check(tenant.clone(), found, arriving)?;
        let open = OpenTenant::new(Arc::clone(&self.database), names, self.roles.clone());
        Ok(Box::new(PostgresArrival {
            shared: self,
            tenant,
            arriving,
            token,
            open: Arc::new(open),
            positions: Positions::default(),
        }))
    }

    async fn receive_in(
        &self,
        transaction: &mut Transaction,
        names: &Names,
        arriving: Arriving,
        token: Token,
    ) -> Result<Registered, Failure> {
        let tenant = &names.tenant;
        let found = registered(transaction, tenant).await?;
        if !fits(found, arriving) {
            return Ok(found);
        }
        let take = "INSERT INTO farshore.arrivals (tenant, token) VALUES ($1, $2) \
            ON CONFLICT (tenant) DO UPDATE SET token = excluded.token";
        transaction.execute(Query::new(take).bind(tenant.as_str()).bind(&token[..])).await?;
        self.make_role(transaction, tenant).await?;
        let (role, owner, schema) = (self.roles.of(tenant), self.roles.owner(), names.schema());
        let mut script = format!(
            "SET LOCAL ROLE {owner};\nDROP SCHEMA IF EXISTS {schema} CASCADE;\nSET LOCAL ROLE NONE;\n\
             CREATE SCHEMA {schema} AUTHORIZATION {owner};\n{};\n\
             GRANT USAGE ON SCHEMA {schema} TO {role};\n",
            self.as_owner(tenant),
        );
        for step in self.steps {
            script.push_str(&migrations::script(step, names, &self.roles));
        }
        transaction.script(script).await?;
        transaction.execute(self.first_standing(names, 0)?).await?;
        Ok(found)
    }

    /// Gives the tables of a copy that arrived to its tenant, whose own go; returns how the tenant was registered.
    async fn finish_arrival(
        &self,
        tenant: &TenantId,
        arriving: Arriving,
        token: Token,
        arrived: &OpenTenant,
    ) -> Result<Registered, Failure> {
        let (mut transaction, _) = self.database.begin(BEGIN, Pace::Maintenance, "").await?;
        let finished = async {
            let mut found = registered(&mut transaction, tenant).await?;
            if !fits(found, arriving) {
                return Ok(found);
            }
            is_the_last(&mut transaction, tenant, token).await?;
            if arriving == Arriving::New {
                let created_at_ms = self.created_at_ms(&mut transaction, &arrived.names).await?;
                found = register(&mut transaction, tenant, created_at_ms).await?;
            }
            if fits(found, arriving) {
                let forget = "DELETE FROM farshore.arrivals WHERE tenant = $1";
                transaction.execute(Query::new(forget).bind(tenant.as_str())).await?;
                transaction.script(self.take_the_place(&arrived.names, arriving)).await?;
            }
            Ok(found)
        };
        let finished = finished.await;
        transaction.end(finished).await
    }

    /// When the tenant that arrived was created, as its copy says.
    async fn created_at_ms(
        &self,
        transaction: &mut Transaction,
        arrived: &Names,
    ) -> Result<u64, Failure> {
        let standing = arrived.qualify("SELECT created_at_ms FROM main.standing");
        let script = format!("{};{standing};SET LOCAL ROLE NONE", self.as_owner(&arrived.tenant));
        let rows = transaction.script(script).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok(row.try_get::<i64, _>(0)?.cast_unsigned())
    }

    fn take_the_place(&self, arrived: &Names, arriving: Arriving) -> String {
        let names = Names::new(arrived.tenant.clone());
        let owner = self.roles.owner();
        let mut script = match arriving {
            Arriving::New => format!("{};\n", self.make_schemas(&names)),
            Arriving::Replacing => String::new(),
        };
        script.push_str(&format!("SET LOCAL ROLE {owner};\n"));
        if arriving == Arriving::Replacing {
            // Whoever commits now does so before, and whoever comes later finds the new tables.
            let tables: Vec<_> = self.tables().map(|table| format!("main.{table}")).collect();
            script
                .push_str(&names.qualify(&format!("DROP TABLE {} CASCADE;\n", tables.join(", "))));
        }
        let schema = names.schema();
        for table in self.tables() {
            let table = arrived.qualify(&format!("main.{table}"));
            script.push_str(&format!("ALTER TABLE {table} SET SCHEMA {schema};\n"));
        }
        script.push_str(&format!("DROP SCHEMA {} CASCADE;\n", arrived.schema()));
        script
    }

    fn tables(&self) -> impl Iterator<Item = &'static str> {
        self.steps.iter().flat_map(|step| step.tables).copied()
    }
}

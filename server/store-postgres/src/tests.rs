//! The suite of all back-ends on a real Postgres, and what only a server with roles and neighbours can do.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;

use async_trait::async_trait;
use farshore_store::catalog::Catalog;
use farshore_store::conformance::Storage;
use farshore_store::scope::{ScopeAuthority, TenantScope};
use farshore_store::sealing::MasterKey;
use test_services::postgres::{Database, Postgres};

use crate::names::{Names, Roles};
use crate::{PostgresCatalog, PostgresConfig};

mod answers;
mod canaries;
mod connections;
mod crashes;
mod insider;
mod lineage;
mod nodes;
mod plans;
mod pooler;
mod starts;
mod views;
mod walls;

/// A database of its own on the server of the tests.
struct Server {
    database: Database<'static>,
    config: PostgresConfig,
    master: MasterKey,
}

impl Server {
    fn new() -> Self {
        let database = Postgres::shared().fresh_database();
        let mut config = PostgresConfig::new(database.url().parse().unwrap());
        config.limits.max_connections = NonZeroU32::new(8).unwrap();
        Self { database, config, master: master_key(1) }
    }

    /// The least that still works: one connection, one remembered tenant.
    fn cramped() -> Self {
        let mut server = Self::new();
        server.config.limits.max_connections = NonZeroU32::MIN;
        server.config.limits.max_open_tenants = NonZeroUsize::MIN;
        server
    }

    async fn catalog(&self) -> (PostgresCatalog, ScopeAuthority) {
        PostgresCatalog::open(self.config.clone(), &self.master).await.unwrap()
    }

    /// Runs statements as the superuser; what they select. A schema that is called after its tenant (`tenant_demo`,
    /// `rows_demo`) is the one that the tenant has.
    fn run(&self, statements: &str) -> String {
        self.database.run(&self.named(statements)).trim().to_owned()
    }

    /// Statements in which every schema that is called after its tenant has its own name.
    fn named(&self, statements: &str) -> String {
        let there = self.database.run("SELECT to_regclass('farshore.tenants') IS NOT NULL");
        if there.trim() != "t" {
            return statements.to_owned();
        }
        let tenants = self.database.run("SELECT id, key FROM farshore.tenants");
        tenants.lines().filter_map(|line| line.split_once('|')).fold(
            statements.to_owned(),
            |named, (id, key)| {
                let schema = |named: String, kind: &str| {
                    named.replace(&format!("{kind}_{id}"), &format!("{kind}_{key}"))
                };
                schema(schema(named, "tenant"), "rows")
            },
        )
    }

    /// The names of a tenant.
    fn names(&self, tenant: &str) -> Names {
        let key = self.run(&format!("SELECT key FROM farshore.tenants WHERE id = '{tenant}'"));
        Names::new(tenant.parse().unwrap(), key.parse().unwrap())
    }

    /// The roles of the platform.
    fn roles(&self) -> Roles {
        Roles::new(&self.run("SELECT id FROM farshore.platform"))
    }
}

#[async_trait]
impl Storage for Server {
    async fn open(&self) -> (Arc<dyn Catalog>, ScopeAuthority) {
        let (catalog, authority) = self.catalog().await;
        (Arc::new(catalog), authority)
    }
}

fn master_key(byte: u8) -> MasterKey {
    MasterKey::from_slice(&[byte; 32]).unwrap()
}

fn scope(authority: &ScopeAuthority, name: &str) -> TenantScope {
    authority.scope(name.parse().unwrap())
}

mod by_default {
    use super::*;
    farshore_store::conformance_suite!(Server::new());
}

mod cramped {
    use super::*;
    farshore_store::conformance_suite!(Server::cramped());
}

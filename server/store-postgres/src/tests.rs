//! The suite of all back-ends on a real Postgres, and what only a server with roles and neighbours can do.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;

use async_trait::async_trait;
use farshore_store::catalog::Catalog;
use farshore_store::conformance::Storage;
use farshore_store::scope::{ScopeAuthority, TenantScope};
use farshore_store::sealing::MasterKey;
use test_services::postgres::{Database, Postgres};

use crate::{PostgresCatalog, PostgresConfig};

mod crashes;
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
        config.max_connections = NonZeroU32::new(8).unwrap();
        Self { database, config, master: master_key(1) }
    }

    /// The least that still works: one connection, one remembered tenant.
    fn cramped() -> Self {
        let mut server = Self::new();
        server.config.max_connections = NonZeroU32::MIN;
        server.config.max_open_tenants = NonZeroUsize::MIN;
        server
    }

    async fn catalog(&self) -> (PostgresCatalog, ScopeAuthority) {
        PostgresCatalog::open(self.config.clone(), &self.master).await.unwrap()
    }

    /// Runs statements as the superuser; what they select.
    fn run(&self, statements: &str) -> String {
        self.database.run(statements).trim().to_owned()
    }

    /// The part of the names of roles that tells this platform from others on the cluster.
    fn platform(&self) -> String {
        self.run("SELECT id FROM farshore.platform")
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

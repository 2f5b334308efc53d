//! The suite behind a pooler in transaction mode, where each transaction gets whatever connection is free.

use test_services::pgbouncer::PgBouncer;

use super::*;

/// A database behind a pooler.
pub(super) struct Pooled {
    _pooler: PgBouncer,
    pub server: Server,
}

impl Pooled {
    /// A pooler with this many connections.
    pub fn new(pool_size: u32) -> Self {
        let mut server = Server::new();
        let pooler = PgBouncer::start(&server.database, pool_size).unwrap();
        server.config.url = pooler.url().parse().unwrap();
        Self { _pooler: pooler, server }
    }
}

#[async_trait]
impl Storage for Pooled {
    async fn open(&self) -> (Arc<dyn Catalog>, ScopeAuthority) {
        Storage::open(&self.server).await
    }
}

mod with_two_connections {
    use super::*;
    farshore_store::conformance_suite!(Pooled::new(2));
}

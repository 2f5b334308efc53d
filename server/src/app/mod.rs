//! The use cases, one file per resource. No HTTP and no SQL here; whoever calls shows who it is by the type of an
//! argument.
//!
//! - [`tenants`], [`devices`], [`tokens`], [`keys`], [`schemas`], [`integrity`], [`archives`], [`placement`]: what operators do.
//! - [`connections`]: which devices are let in.
//! - [`health`]: whether the server can serve.
//! - [`retention`], [`restore`], [`demo`]: what the server does by itself.
//! - [`error`]: what can happen on the way to a tenant's store.

use std::fmt;
use std::sync::Arc;

use farshore_store::SharedTenantStore;
use farshore_store::catalog::Catalog;
use farshore_store::scope::TenantScope;

use crate::auth::Authenticator;
use crate::bus::Bus;
use crate::clock::SharedClock;
use crate::config::Config;
use crate::placement::PlacedCatalog;
use crate::sync::SyncService;
use crate::telemetry::metrics::Metrics;

pub mod archives;
pub mod connections;
pub mod demo;
pub mod devices;
pub mod error;
pub mod health;
pub mod integrity;
pub mod keys;
pub mod placement;
pub mod restore;
pub mod retention;
pub mod schemas;
pub mod tenants;
pub mod tokens;

use connections::Connections;
use error::AccessError;

/// What the use cases work with. Clones are the same application.
#[derive(Clone)]
pub struct App(Arc<Parts>);

struct Parts {
    catalog: Arc<dyn Catalog>,
    placement: Option<Arc<PlacedCatalog>>,
    auth: Authenticator,
    sync: SyncService,
    connections: Connections,
    metrics: Metrics,
    bus: Bus,
    clock: SharedClock,
    config: Config,
}

impl App {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        catalog: Arc<dyn Catalog>,
        auth: Authenticator,
        config: Config,
        clock: SharedClock,
        metrics: Metrics,
        bus: Bus,
    ) -> Self {
        Self::assemble(catalog, None, (auth, config, clock, metrics, bus))
    }

    /// The same over the tenants of several databases.
    #[must_use]
    pub fn placed(
        catalog: Arc<PlacedCatalog>,
        auth: Authenticator,
        config: Config,
        clock: SharedClock,
        metrics: Metrics,
        bus: Bus,
    ) -> Self {
        let placement = Some(Arc::clone(&catalog));
        Self::assemble(catalog, placement, (auth, config, clock, metrics, bus))
    }

    fn assemble(
        catalog: Arc<dyn Catalog>,
        placement: Option<Arc<PlacedCatalog>>,
        (auth, config, clock, metrics, bus): (Authenticator, Config, SharedClock, Metrics, Bus),
    ) -> Self {
        let sync = SyncService::new(
            Arc::clone(&catalog),
            auth.clone(),
            config.sync.clone(),
            metrics.clone(),
            Arc::clone(&clock),
            bus.clone(),
        );
        let connections = Connections::new(
            config.max_sync_connections,
            config.max_sync_connections_per_tenant,
            metrics.connections_open.clone(),
        );
        Self(Arc::new(Parts {
            catalog,
            placement,
            auth,
            sync,
            connections,
            metrics,
            bus,
            clock,
            config,
        }))
    }

    /// Who verifies callers.
    #[must_use]
    pub fn auth(&self) -> &Authenticator {
        &self.0.auth
    }

    /// Who serves devices.
    #[must_use]
    pub fn sync(&self) -> &SyncService {
        &self.0.sync
    }

    /// Which devices are connected.
    #[must_use]
    pub fn connections(&self) -> &Connections {
        &self.0.connections
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The clusters, where there may be any.
    #[must_use]
    pub fn placement(&self) -> Option<&Arc<PlacedCatalog>> {
        self.0.placement.as_ref()
    }

    /// The way to the other nodes.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.0.bus
    }

    /// How the server was configured.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.0.clock.now_ms()
    }

    fn catalog(&self) -> &dyn Catalog {
        &*self.0.catalog
    }

    async fn store(&self, scope: &TenantScope) -> Result<SharedTenantStore, AccessError> {
        Ok(self.catalog().open(scope).await?)
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").finish_non_exhaustive()
    }
}

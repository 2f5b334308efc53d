//! A server from its start to its end.
//!
//! - [`data_dir`]: the directory that holds everything, locked.
//! - [`master_key`]: where the master key comes from.
//! - [`store`]: the store that the configuration describes.
//! - [`server_file`]: how the command line finds a running server.
//! - [`listener`]: connections, each with its deadlines.
//! - [`signals`]: being told to stop.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farshore_store::sealing::MasterKey;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::app::demo::DemoError;
use crate::app::restore::RestoreError;
use crate::app::{App, demo, placement, restore, retention};
use crate::auth::Authenticator;
use crate::auth::operator_key::{OperatorKey, OperatorKeyError};
use crate::bus::{Bus, BusError};
use crate::clock::SharedClock;
use crate::config::Config;
use crate::http;
use crate::placement::PlacedCatalog;
use crate::telemetry::metrics::Metrics;

pub mod data_dir;
pub mod listener;
pub mod master_key;
pub mod server_file;
pub mod signals;
pub mod store;

use data_dir::DataDir;
use listener::ConnectionLimits;
use server_file::{ServerFile, ServerFileError};
use store::StoreOpenError;

/// How often it is looked for pools that nobody uses.
const BETWEEN_POOL_CHECKS: Duration = Duration::from_secs(60);

/// Why a server did not start. Each is one line that says what and where.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operators' key cannot be used.
    #[error(transparent)]
    OperatorKey(#[from] OperatorKeyError),
    /// The store did not open.
    #[error(transparent)]
    Store(#[from] StoreOpenError),
    /// The demo could not be set up.
    #[error("{}: the demo could not be set up: {source}", data_dir.display())]
    Demo {
        /// The data directory.
        data_dir: PathBuf,
        /// Why.
        source: DemoError,
    },
    /// New epochs could not begin.
    #[error("{}: a new epoch could not begin: {source}", data_dir.display())]
    Restore {
        /// The data directory.
        data_dir: PathBuf,
        /// Why.
        source: RestoreError,
    },
    /// The bus cannot be used.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The address cannot be listened on.
    #[error("server.listen: {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why: in use, not ours, not allowed.
        source: io::Error,
    },
    /// The file that leads the command line here cannot be written.
    #[error(transparent)]
    ServerFile(#[from] ServerFileError),
}

/// What a server does before it lets anybody in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Preparation {
    /// Create the tenant `demo` with the sample schema.
    pub demo: bool,
    /// Begin a new epoch for every tenant: the data directory comes from a backup.
    pub restored: bool,
}

/// A server that is running.
#[derive(Debug)]
pub struct Server {
    app: App,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    purging: JoinHandle<()>,
    placing: JoinHandle<()>,
    file: ServerFile,
    // The last to go: another server may start once everything else is over.
    _data_dir: DataDir,
}

impl Server {
    /// Starts a server and returns once it lets devices in.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start(
        config: Config,
        data_dir: DataDir,
        master_key: MasterKey,
        clock: SharedClock,
        preparation: Preparation,
    ) -> Result<Self, StartError> {
        let operator_key =
            OperatorKey::open_or_create(data_dir.path(), &master_key, clock.now_ms())?;
        let app = open(&config, master_key, operator_key, clock).await?;
        prepare(&app, &data_dir, preparation).await?;
        let listen = config.server.listen;
        let bound = |source| StartError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(bound)?;
        let address = listener.local_addr().map_err(bound)?;
        let file = ServerFile::write(data_dir.path(), address)?;

        let (stop, stopping) = watch::channel(false);
        let limits = ConnectionLimits {
            max_connections: config.server.max_connections,
            header_timeout: Duration::from_millis(config.server.header_timeout_ms),
        };
        let router = http::router(app.clone());
        let accepting = tokio::spawn(listener::serve(listener, router, limits, stopping.clone()));
        let purging = tokio::spawn(purge_at_intervals(app.clone()));
        let placing = tokio::spawn(look_after_places(app.clone()));
        tracing::info!(%address, data_dir = %data_dir.path().display(), version = crate::VERSION, "serving");
        Ok(Self { app, address, stop, accepting, purging, placing, file, _data_dir: data_dir })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is reached from this machine.
    #[must_use]
    pub fn url(&self) -> String {
        server_file::local_url(self.address)
    }

    /// Lets nobody in any more, lets devices and requests finish, and stops. What has not finished within
    /// `server.drain_timeout_ms` is cut off; nothing that was acknowledged is lost by that.
    pub async fn stop(self) {
        tracing::info!("draining");
        let Self { app, stop, accepting, purging, placing, file, .. } = self;
        let drain_timeout = Duration::from_millis(app.config().server.drain_timeout_ms);
        app.connections().close();
        file.remove();
        stop.send_replace(true);
        purging.abort();
        placing.abort();
        let abort = accepting.abort_handle();
        let drained = timeout(drain_timeout, async {
            app.sync().drain().await;
            accepting.await
        });
        if drained.await.is_err() {
            abort.abort();
            tracing::warn!(open = app.connections().count(), "not everything finished in time");
        }
        tracing::info!("stopped");
    }
}

async fn open(
    config: &Config,
    master_key: MasterKey,
    operator_key: OperatorKey,
    clock: SharedClock,
) -> Result<App, StartError> {
    let (catalog, authority) = store::open(&config.store, &master_key).await?;
    let catalog = Arc::new(catalog);
    let auth = Authenticator::new(
        Arc::<PlacedCatalog>::clone(&catalog),
        authority,
        master_key,
        operator_key,
        config.tokens.clone(),
        Arc::clone(&clock),
    );
    let metrics = Metrics::new();
    let bus = match &config.bus {
        Some(bus) => Bus::connect(bus.clone(), metrics.clone()).await?,
        None => Bus::alone(),
    };
    Ok(App::placed(catalog, auth, config.clone(), clock, metrics, bus))
}

async fn prepare(
    app: &App,
    data_dir: &DataDir,
    preparation: Preparation,
) -> Result<(), StartError> {
    let data_dir = || data_dir.path().to_owned();
    if preparation.restored {
        restore::begin_epochs(app)
            .await
            .map_err(|source| StartError::Restore { data_dir: data_dir(), source })?;
    }
    if preparation.demo {
        demo::prepare(app)
            .await
            .map_err(|source| StartError::Demo { data_dir: data_dir(), source })?;
    }
    Ok(())
}

/// Goes on with moves that an earlier process did not finish, and closes pools that nobody uses any more.
async fn look_after_places(app: App) {
    placement::resume_moves(&app).await;
    let Some(catalog) = app.placement() else { return };
    let mut ticks = interval(BETWEEN_POOL_CHECKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        catalog.clusters().close_idle();
    }
}

async fn purge_at_intervals(app: App) {
    let mut ticks = interval(Duration::from_millis(app.config().retention.purge_interval_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        retention::purge(&app).await;
    }
}

#[cfg(test)]
mod tests;

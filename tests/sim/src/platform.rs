//! The server of a run: the application of the production server, life after life, and the keys that signed its
//! devices in.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::body::to_bytes;
use axum::response::IntoResponse;
use farshore_server::app::{App, connections};
use farshore_server::auth::authenticator::DeviceToken;
use farshore_server::auth::key_id::KeyOwner;
use farshore_server::auth::operator_key::OperatorKey;
use farshore_server::auth::{Authenticator, OperatorPrincipal, signing_key};
use farshore_server::bus::Bus;
use farshore_server::config::{Config, Settings};
use farshore_server::http::error::HttpError;
use farshore_server::telemetry::metrics::Metrics;
use farshore_store::scope::ScopeAuthority;
use farshore_store::sealing::MasterKey;
use farshore_store::signing_keys::{SigningAlgorithm, SigningKeyRecord};
use farshore_sync_core::ids::TenantId;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_tungstenite::tungstenite::http::Response;
use tracing::subscriber::DefaultGuard;

use crate::disk::Disk;
use crate::network::ServerEnd;
use crate::sinks::Sinks;
use crate::time::{START_MS, WallClock};

/// The tenants that a run may have.
pub const TENANTS: [&str; 3] = ["alpha", "bravo", "charlie"];
/// Longest body of a refusal, in bytes.
const MAX_REFUSAL_BYTES: usize = 64 << 10;

/// The answer to a handshake: nothing more, or why not.
pub type Answer = Result<(), Box<Response<Option<Vec<u8>>>>>;

/// Keys are made once for all runs of a process: which ones they are decides nothing.
struct Keys {
    directory: TempDir,
    master: MasterKey,
    tenants: Vec<SigningKeyRecord>,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let master = MasterKey::generate().expect("the system has randomness");
        let tenants = TENANTS.map(|tenant| {
            let owner = KeyOwner::Tenant(tenant_id(tenant));
            signing_key::generate(&owner, SigningAlgorithm::EdDsa, &master, START_MS)
                .expect("the system has randomness")
        });
        let directory = tempfile::tempdir().expect("there is a directory for temporary files");
        open_operator_key(directory.path(), &master);
        Keys { directory, master, tenants: tenants.into() }
    })
}

fn open_operator_key(directory: &Path, master: &MasterKey) -> OperatorKey {
    OperatorKey::open_or_create(directory, master, START_MS).expect("the key was made right here")
}

/// The id of a tenant of a run.
///
/// # Panics
/// Where the name is none of [`TENANTS`] and no tenant id.
#[must_use]
pub fn tenant_id(name: &str) -> TenantId {
    name.parse().expect("the names of the tenants are tenant ids")
}

/// The server. Clones are the same one.
#[derive(Clone)]
pub struct Platform(Arc<Shared>);

struct Shared {
    disk: Disk,
    clock: WallClock,
    config: Config,
    sinks: Sinks,
    running: Mutex<Option<Running>>,
    lives: AtomicU32,
}

/// One life of the server.
struct Running {
    app: App,
    operator: OperatorPrincipal,
    alive: Arc<AtomicBool>,
    connections: Vec<AbortHandle>,
}

impl Platform {
    /// A server that was not started yet.
    ///
    /// # Panics
    /// Where the server's own defaults are no configuration.
    #[must_use]
    pub fn new(disk: Disk, clock: WallClock, edit: impl FnOnce(&mut Config)) -> Self {
        let mut config =
            Config::from_settings(&Settings::defaults()).expect("the defaults are a configuration");
        // A seed gives the same run on every machine, however many processors it has.
        config.sync.large_commits = 1;
        edit(&mut config);
        let (running, lives) = (Mutex::default(), AtomicU32::new(0));
        let sinks = Sinks::default();
        Self(Arc::new(Shared { disk, clock, config, sinks, running, lives }))
    }

    /// The server's wall clock.
    #[must_use]
    pub fn clock(&self) -> &WallClock {
        &self.0.clock
    }

    /// What leaves the server besides frames.
    #[must_use]
    pub fn sinks(&self) -> &Sinks {
        &self.0.sinks
    }

    /// Writes the log of this thread to the sinks until the guard is dropped.
    #[must_use]
    pub fn log_here(&self) -> DefaultGuard {
        self.0.sinks.log_here(&self.0.config)
    }

    /// Searches the metrics of the server, while it runs.
    pub fn search_metrics(&self) {
        if let Some((app, _)) = self.operate() {
            self.0.sinks.search("the metrics", app.metrics().text().as_bytes(), &[]);
        }
    }

    /// The server's disk.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.0.disk
    }

    /// Creates a tenant with its signing key, before the server starts.
    ///
    /// # Panics
    /// Where the tenant is there already.
    pub async fn found(&self, tenant: usize) {
        let store = self.0.disk.create(&tenant_id(TENANTS[tenant])).await;
        let store = store.expect("tenants are founded once");
        let key = &keys().tenants[tenant];
        store.rotate_signing_key(key).await.expect("the memory store takes keys");
    }

    /// Starts the server, if it does not run.
    pub fn start(&self) {
        let mut running = self.running();
        if running.is_none() {
            *running = Some(self.life());
            self.0.lives.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the server runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.running().is_some()
    }

    /// Ends the server in the middle of whatever it does.
    pub fn crash(&self) {
        if let Some(running) = self.running().take() {
            running.alive.store(false, Ordering::Relaxed);
            running.connections.iter().for_each(AbortHandle::abort);
        }
    }

    /// The application and an operator of it, while the server runs.
    #[must_use]
    pub fn operate(&self) -> Option<(App, OperatorPrincipal)> {
        self.running().as_ref().map(|running| (running.app.clone(), running.operator.clone()))
    }

    /// A token for a device. Whoever signs devices in is not the sync server: it is there while that is not.
    ///
    /// # Panics
    /// Where the keys of this process cannot sign.
    #[must_use]
    pub fn mint(&self, tenant: usize, token: &DeviceToken) -> String {
        let scope = ScopeAuthority::for_new_catalog().scope(tenant_id(TENANTS[tenant]));
        let signed = self.authenticator().sign(&scope, &keys().tenants[tenant], token);
        signed.expect("the keys of this process sign").0
    }

    /// Lets a device in, or says why not; serves it until either side closes.
    pub async fn accept(&self, tenant: usize, token: String, end: ServerEnd) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        let app = {
            let mut running = self.running();
            let running = running.as_mut()?;
            let app = running.app.clone();
            let serving = tokio::spawn(serve(app, token, end, answer));
            running.connections.retain(|connection| !connection.is_finished());
            running.connections.push(serving.abort_handle());
            answered
        };
        let answer = app.await.ok()?;
        if let Err(refusal) = &answer {
            let body = refusal.body().as_deref().unwrap_or_default();
            self.0.sinks.search("a refusal", body, &[tenant]);
        }
        Some(answer)
    }

    fn life(&self) -> Running {
        let alive = Arc::new(AtomicBool::new(true));
        let (auth, catalog) = self.parts(&alive);
        let config = self.0.config.clone();
        let app = App::new(
            catalog,
            auth,
            config,
            Arc::new(self.0.clock.clone()),
            Metrics::new(),
            Bus::alone(),
        );
        let operator = self.operator(&app);
        Running { app, operator, alive, connections: Vec::new() }
    }

    fn operator(&self, app: &App) -> OperatorPrincipal {
        let keys = keys();
        let key = open_operator_key(keys.directory.path(), &keys.master);
        let token = key.mint("operator", &self.0.config.tokens, self.now_ms());
        let token = token.expect("the keys of this process sign");
        app.auth().operator(&token).expect("the token was just made")
    }

    fn authenticator(&self) -> Authenticator {
        self.parts(&Arc::new(AtomicBool::new(true))).0
    }

    fn parts(&self, alive: &Arc<AtomicBool>) -> (Authenticator, Arc<crate::disk::MountedCatalog>) {
        let keys = keys();
        let catalog = Arc::new(self.0.disk.mount(Arc::clone(alive)));
        let auth = Authenticator::new(
            Arc::clone(&catalog) as _,
            ScopeAuthority::for_new_catalog(),
            keys.master.clone(),
            open_operator_key(keys.directory.path(), &keys.master),
            self.0.config.tokens.clone(),
            Arc::new(self.0.clock.clone()),
        );
        (auth, catalog)
    }

    fn now_ms(&self) -> u64 {
        farshore_server::clock::Clock::now_ms(&self.0.clock)
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the router does with a handshake, without HTTP around it.
async fn serve(app: App, token: String, end: ServerEnd, answer: oneshot::Sender<Answer>) {
    let admitted = match app.auth().device(&token).await {
        Ok(principal) => connections::admit(&app, &principal)
            .map(|admission| (principal, admission))
            .map_err(HttpError::from),
        Err(error) => Err(HttpError::from(error)),
    };
    match admitted {
        Ok((principal, admission)) => {
            // A device that has gone meanwhile finds out through its socket.
            let _ = answer.send(Ok(()));
            app.sync().run(principal, end).await;
            drop(admission);
        }
        Err(refusal) => {
            let (parts, body) = refusal.into_response().into_parts();
            let body = to_bytes(body, MAX_REFUSAL_BYTES).await.map(Vec::from).ok();
            let _ = answer.send(Err(Box::new(Response::from_parts(parts, body))));
        }
    }
}

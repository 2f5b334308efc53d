//! A server in memory, for the tests of this crate: real sockets, real tokens, a clock that the test moves.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use axum::Router;
use farshore_api::ADMIN_PATH;
use farshore_store::memory::MemoryCatalog;
use farshore_store::sealing::MasterKey;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing_subscriber::fmt::MakeWriter;

use crate::app::App;
use crate::auth::Authenticator;
use crate::auth::operator_key::OperatorKey;
use crate::bus::Bus;
use crate::clock::ManualClock;
use crate::config::{Config, LogConfig, LogFormat, Settings};
use crate::http;
use crate::run::listener::{self, ConnectionLimits};
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;

/// The time at which every test begins.
pub const NOW_MS: u64 = 1_800_000_000_000;
/// What a test waits for at most.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server that listens on a port of its own until the test ends.
pub struct TestServer {
    pub app: App,
    pub url: String,
    pub address: SocketAddr,
    pub operator: String,
    pub clock: ManualClock,
    pub master_key: MasterKey,
    http: reqwest::Client,
    _stop: watch::Sender<bool>,
}

impl TestServer {
    /// A server as it comes.
    pub async fn start() -> Self {
        Self::configured(|_| {}).await
    }

    /// A server with other settings.
    pub async fn configured(edit: impl FnOnce(&mut Config)) -> Self {
        Self::serving(edit, http::router).await
    }

    /// A server with other settings and other routes.
    pub async fn serving(
        edit: impl FnOnce(&mut Config),
        router: impl FnOnce(App) -> Router,
    ) -> Self {
        captured_log();
        let mut config = Config::from_settings(&Settings::defaults()).unwrap();
        edit(&mut config);
        let clock = ManualClock::at(NOW_MS);
        let master_key = MasterKey::generate().unwrap();
        let keys = tempfile::tempdir().unwrap();
        let key = || OperatorKey::open_or_create(keys.path(), &master_key, NOW_MS).unwrap();
        let operator = key().mint("test", &config.tokens, NOW_MS).unwrap();
        let (catalog, authority) = MemoryCatalog::open(1);
        let (catalog, shared_clock) = (Arc::new(catalog), Arc::new(clock.clone()));
        let auth = Authenticator::new(
            catalog.clone(),
            authority,
            master_key.clone(),
            key(),
            config.tokens.clone(),
            shared_clock.clone(),
        );
        let limits = ConnectionLimits {
            max_connections: config.server.max_connections,
            header_timeout: Duration::from_millis(config.server.header_timeout_ms),
        };
        let app = App::new(catalog, auth, config, shared_clock, Metrics::new(), Bus::alone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(listener::serve(listener, router(app.clone()), limits, stopping));
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let url = format!("http://{address}");
        Self { app, url, address, operator, clock, master_key, http, _stop: stop }
    }

    /// A request without a token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// A request of an operator.
    pub fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, &format!("{ADMIN_PATH}{path}")).bearer_auth(&self.operator)
    }

    /// Sends what an operator has to say and expects success.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        let response = self.admin(Method::POST, path).json(&body).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.text().await.unwrap());
        response.json().await.unwrap()
    }

    /// A tenant.
    pub async fn tenant(&self, slug: &str) {
        self.post("/tenants", json!({ "tenant": slug, "algorithm": "EdDSA" })).await;
    }

    /// A token of a new device of a tenant, and the device.
    pub async fn token(&self, slug: &str) -> (String, String) {
        let grants = json!([{ "scope": "tenant", "rights": "write" }]);
        let minted =
            self.post(&format!("/tenants/{slug}/tokens"), json!({ "grants": grants })).await;
        let text = |key: &str| minted[key].as_str().unwrap().to_owned();
        (text("token"), text("device"))
    }

    /// A handshake for the sync protocol.
    pub fn handshake(&self, path: &str, token: &str) -> RequestBuilder {
        self.request(Method::GET, path)
            .bearer_auth(token)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", "farshore.sync.v1")
    }
}

/// Asserts that an answer is a problem document of a kind, and returns it.
pub async fn problem(response: Response, status: u16, code: &str) -> Value {
    let content_type =
        response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
    let answered = response.status().as_u16();
    let text = response.text().await.unwrap();
    assert_eq!(content_type.as_deref(), Some("application/problem+json"), "{text}");
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((answered, problem["code"].as_str()), (status, Some(code)), "{text}");
    assert_eq!(problem["status"], status, "{text}");
    assert_eq!(problem["type"], format!("urn:farshore:problem:{code}"), "{text}");
    for key in ["title", "detail"] {
        assert!(!problem[key].as_str().unwrap().is_empty(), "{text}");
    }
    problem
}

/// Everything that this process logged so far, at the most talkative level.
pub fn captured_log() -> String {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let config = LogConfig { format: LogFormat::Json, level: "trace".to_owned() };
        tracing::subscriber::set_global_default(log::subscriber(&config, Captured)).unwrap();
    });
    String::from_utf8_lossy(&CAPTURED.lock().unwrap()).into_owned()
}

static CAPTURED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

#[derive(Clone, Copy)]
struct Captured;

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        CAPTURED.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Captured {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

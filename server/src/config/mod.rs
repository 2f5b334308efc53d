//! The configuration of a server: read once, checked once, typed from there on.
//!
//! - `default.toml`: every key with its default and its meaning; `farshore config` prints it.
//! - [`settings`]: the layers that a value comes from.
//! - [`error`]: what can be wrong, in one line.
//! - [`environment`]: the one place that reads environment variables.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use farshore_store_postgres::{PostgresConfig, PostgresLimits};
use farshore_store_sqlite::JournalMode;

use crate::bus::BusConfig;
use crate::sync::SyncLimits;

pub mod environment;
pub mod error;
pub mod settings;

pub use error::{ConfigError, Origin};
pub use settings::Settings;

/// Milliseconds of a second.
const SECOND_MS: u64 = 1_000;
/// Milliseconds of a day.
const DAY_MS: u64 = 86_400 * SECOND_MS;
/// Longest time that work on a whole tenant may be allowed, in milliseconds.
const MAX_MAINTENANCE_MS: u32 = 86_400_000;
/// Longest time that a limit may be set to, in milliseconds.
const MAX_WAIT_MS: u64 = 3_600 * SECOND_MS;

/// Everything that can be set about a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// The listener and HTTP.
    pub server: ServerConfig,
    /// Where the data is.
    pub store: StoreConfig,
    /// The log.
    pub log: LogConfig,
    /// Who signs what, and for how long.
    pub tokens: TokenConfig,
    /// Most devices connected at a time.
    pub max_sync_connections: usize,
    /// Most devices of one tenant connected at a time.
    pub max_sync_connections_per_tenant: usize,
    /// The limits of each sync session and lane.
    pub sync: SyncLimits,
    /// What is purged when.
    pub retention: RetentionConfig,
    /// The bus between nodes; `None` where this node is the only one.
    pub bus: Option<BusConfig>,
}

/// The listener and HTTP.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Most TCP connections at a time.
    pub max_connections: usize,
    /// Longest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// Time for the head of a request.
    pub header_timeout_ms: u64,
    /// Time for the answer to a request.
    pub request_timeout_ms: u64,
    /// Time for everything to finish at shutdown.
    pub drain_timeout_ms: u64,
    /// The domain whose subdomains are tenants.
    pub tenant_domain: Option<String>,
}

/// Where the data is.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Which database the tenants are in.
    pub kind: StoreKind,
    /// What may be used of each cluster of Postgres databases.
    pub postgres: PostgresLimits,
    /// The directory that holds what this server keeps by itself, and the tenants where the store is SQLite's.
    pub data_dir: PathBuf,
    /// The file with the master key, where one is named.
    pub master_key_file: Option<PathBuf>,
    /// Most tenants whose database stays open while nobody uses it.
    pub max_open_tenants: NonZeroUsize,
    /// Most reads of one tenant at the same time.
    pub readers_per_tenant: NonZeroUsize,
    /// Decrypted pages that the writer of an open tenant keeps.
    pub writer_cache_kib: u32,
    /// Decrypted pages that each reader of an open tenant keeps.
    pub reader_cache_kib: u32,
    /// Pages after which a tenant's write-ahead log is moved into its file.
    pub checkpoint_after_pages: u32,
    /// How long a statement waits for another process.
    pub busy_timeout_ms: u32,
    /// Where small commits become durable.
    pub journal: JournalMode,
    /// MiB of the shared journal after which tenants bring what is in it into their files.
    pub journal_mib: u64,
}

/// Which database the tenants are in.
#[derive(Debug, Clone)]
pub enum StoreKind {
    /// One encrypted file for each tenant in the data directory.
    Sqlite,
    /// One schema for each tenant in a Postgres database.
    Postgres(PostgresConfig),
}

/// The log.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// How a line looks.
    pub format: LogFormat,
    /// What is logged: the directives of tracing's `EnvFilter`.
    pub level: String,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Who signs what, and for how long.
#[derive(Debug, Clone)]
pub struct TokenConfig {
    /// What every `iss` begins with; no slash at its end.
    pub issuer_url: String,
    /// Lifetime of a device token where nothing else was asked for.
    pub device_default_ms: u64,
    /// Longest lifetime of a device token.
    pub device_max_ms: u64,
    /// Lifetime of an operator token.
    pub operator_ms: u64,
    /// How far clocks may be apart.
    pub leeway_ms: u64,
}

/// What is purged when.
#[derive(Debug, Clone)]
pub struct RetentionConfig {
    /// Age from which a tombstone is purged.
    pub tombstones_ms: u64,
    /// How often the server looks.
    pub purge_interval_ms: u64,
}

impl Config {
    /// The configuration of the defaults, a file and the environment.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut settings = Settings::defaults();
        if let Some(file) = file {
            settings.add_file(file)?;
        }
        settings.add_environment(environment)?;
        Self::from_settings(&settings)
    }

    /// Checks and types what was set.
    ///
    /// # Errors
    /// The first value that its key does not take.
    pub fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        Ok(Self {
            server: server(settings)?,
            store: store(settings)?,
            log: log(settings)?,
            tokens: tokens(settings)?,
            max_sync_connections: settings.size("sync.max_connections", 1..=1_000_000)?,
            max_sync_connections_per_tenant: settings
                .size("sync.max_connections_per_tenant", 1..=1_000_000)?,
            sync: sync(settings)?,
            retention: RetentionConfig {
                tombstones_ms: DAY_MS * settings.number("retention.tombstones_days", 1..=36_500)?,
                purge_interval_ms: SECOND_MS
                    * settings.number("retention.purge_interval_s", 1..=604_800)?,
            },
            bus: bus(settings)?,
        })
    }
}

fn server(settings: &Settings) -> Result<ServerConfig, ConfigError> {
    Ok(ServerConfig {
        listen: settings.parsed(
            "server.listen",
            "an address with a port, such as 127.0.0.1:7400",
            |text| text.parse().ok(),
        )?,
        max_connections: settings.size("server.max_connections", 2..=1_000_000)?,
        max_body_bytes: settings.size("server.max_body_bytes", 4_096..=64 << 20)?,
        header_timeout_ms: settings.number("server.header_timeout_ms", 100..=MAX_WAIT_MS)?,
        request_timeout_ms: settings.number("server.request_timeout_ms", 100..=MAX_WAIT_MS)?,
        drain_timeout_ms: settings.number("server.drain_timeout_ms", 0..=MAX_WAIT_MS)?,
        tenant_domain: settings.parsed(
            "server.tenant_domain",
            "a domain in lower case such as sync.example.com, or nothing",
            domain,
        )?,
    })
}

fn store(settings: &Settings) -> Result<StoreConfig, ConfigError> {
    let data_dir = settings.parsed("store.data_dir", "a directory", |text| {
        (!text.is_empty()).then(|| PathBuf::from(text))
    })?;
    let key_file = settings.text("store.master_key_file");
    Ok(StoreConfig {
        kind: store_kind(settings)?,
        postgres: postgres_limits(settings)?,
        data_dir,
        master_key_file: (!key_file.is_empty()).then(|| PathBuf::from(key_file)),
        max_open_tenants: settings.count("store.max_open_tenants", 100_000)?,
        readers_per_tenant: settings.count("store.readers_per_tenant", 64)?,
        writer_cache_kib: settings.small("store.writer_cache_kib", 64..=1 << 22)?,
        reader_cache_kib: settings.small("store.reader_cache_kib", 64..=1 << 22)?,
        checkpoint_after_pages: settings.small("store.checkpoint_after_pages", 1..=1 << 24)?,
        busy_timeout_ms: settings.small("store.busy_timeout_ms", 0..=600_000)?,
        journal: settings.parsed("store.journal", "\"shared\" or \"off\"", |text| match text {
            "shared" => Some(JournalMode::Shared),
            "off" => Some(JournalMode::Off),
            _ => None,
        })?,
        journal_mib: settings.number("store.journal_mib", 1..=1 << 20)?,
    })
}

fn store_kind(settings: &Settings) -> Result<StoreKind, ConfigError> {
    let is_postgres =
        settings.parsed("store.kind", "\"sqlite\" or \"postgres\"", |text| match text {
            "sqlite" => Some(false),
            "postgres" => Some(true),
            _ => None,
        })?;
    let limits = postgres_limits(settings)?;
    let url = settings.secret("postgres.url", str::parse);
    if !is_postgres {
        return Ok(StoreKind::Sqlite);
    }
    Ok(StoreKind::Postgres(PostgresConfig { url: url?, limits }))
}

fn postgres_limits(settings: &Settings) -> Result<PostgresLimits, ConfigError> {
    let timeout = |key| settings.small(key, 10..=MAX_MAINTENANCE_MS);
    let max_connections = settings.small("postgres.max_connections", 1..=10_000)?;
    Ok(PostgresLimits {
        max_connections: NonZeroU32::new(max_connections).expect("the bounds begin at 1"),
        acquire_timeout_ms: timeout("postgres.acquire_timeout_ms")?,
        statement_timeout_ms: timeout("postgres.statement_timeout_ms")?,
        lock_timeout_ms: timeout("postgres.lock_timeout_ms")?,
        maintenance_timeout_ms: timeout("postgres.maintenance_timeout_ms")?,
        max_open_tenants: settings.count("postgres.max_open_tenants", 1_000_000)?,
    })
}

fn bus(settings: &Settings) -> Result<Option<BusConfig>, ConfigError> {
    let subject_prefix =
        settings.parsed("bus.subject_prefix", "1 to 64 of a-z, A-Z, 0-9, - and _", |text| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            let fits = (1..=64).contains(&text.len()) && text.bytes().all(known);
            fits.then(|| text.to_owned())
        })?;
    let poll_interval_ms = settings.number("bus.poll_interval_ms", 10..=MAX_WAIT_MS)?;
    let check_interval_ms = settings.number("bus.check_interval_ms", 100..=MAX_WAIT_MS)?;
    if settings.text("bus.url").is_empty() {
        return Ok(None);
    }
    if matches!(store_kind(settings)?, StoreKind::Sqlite) {
        let problem = "an embedded store has one server and needs no bus; store.kind = \"postgres\" may have several";
        return settings.secret("bus.url", |_| Err(problem));
    }
    let url = settings.secret("bus.url", str::parse)?;
    Ok(Some(BusConfig { url, subject_prefix, poll_interval_ms, check_interval_ms }))
}

fn log(settings: &Settings) -> Result<LogConfig, ConfigError> {
    Ok(LogConfig {
        format: settings.parsed("log.format", "\"text\" or \"json\"", |text| match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        })?,
        level: settings.parsed(
            "log.level",
            "error, warn, info, debug, trace or directives such as \"info,farshore_server::sync=debug\"",
            |text| crate::telemetry::log::filter(text).map(|_| text.to_owned()),
        )?,
    })
}

fn tokens(settings: &Settings) -> Result<TokenConfig, ConfigError> {
    let max_s = settings.number("tokens.device_max_s", 60..=3_153_600_000)?;
    Ok(TokenConfig {
        issuer_url: settings.parsed(
            "tokens.issuer_url",
            "a URL without a slash at its end",
            issuer,
        )?,
        device_default_ms: SECOND_MS * settings.number("tokens.device_default_s", 60..=max_s)?,
        device_max_ms: SECOND_MS * max_s,
        operator_ms: SECOND_MS * settings.number("tokens.operator_s", 10..=86_400)?,
        leeway_ms: SECOND_MS * settings.number("tokens.leeway_s", 0..=300)?,
    })
}

fn sync(settings: &Settings) -> Result<SyncLimits, ConfigError> {
    let heartbeat_ms = settings.number("sync.heartbeat_ms", 100..=MAX_WAIT_MS)?;
    Ok(SyncLimits {
        hello_timeout_ms: settings.number("sync.hello_timeout_ms", 100..=MAX_WAIT_MS)?,
        heartbeat_ms,
        // A ping must have time to be answered before the connection counts as dead.
        silence_limit_ms: settings
            .number("sync.silence_limit_ms", heartbeat_ms * 2..=MAX_WAIT_MS * 2)?,
        reauthorise_interval_ms: settings
            .number("sync.reauthorise_interval_ms", 100..=MAX_WAIT_MS)?,
        session_queue_bytes: settings.size("sync.session_queue_bytes", 64 << 10..=1 << 30)?,
        lane_queue_pushes: settings.size("sync.lane_queue_pushes", 1..=1_000_000)?,
        commit_max_bytes: settings.size("sync.commit_max_bytes", 64 << 10..=1 << 30)?,
        large_commits: large_commits(settings)?,
        tenant_bytes_per_second: settings.size("sync.tenant_bytes_per_second", 0..=1 << 40)?,
    })
}

/// Where nothing else is said, large commits leave one processor to the small ones. On Postgres they wait for the
/// database, and its connections bound them.
fn large_commits(settings: &Settings) -> Result<usize, ConfigError> {
    let said = settings.size("sync.large_commits", 0..=4_096)?;
    Ok(match (said, store_kind(settings)?) {
        (0, StoreKind::Sqlite) => available_parallelism().map_or(1, NonZeroUsize::get).max(2) - 1,
        (0, StoreKind::Postgres(_)) => settings.size("postgres.max_connections", 1..=10_000)?,
        (said, _) => said,
    })
}

fn domain(text: &str) -> Option<Option<String>> {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    match text {
        "" => Some(None),
        text => text.split('.').all(label).then(|| Some(text.to_owned())),
    }
}

fn issuer(text: &str) -> Option<String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let well_formed =
        !rest.is_empty() && !rest.ends_with('/') && rest.bytes().all(|b| b.is_ascii_graphic());
    well_formed.then(|| text.to_owned())
}

#[cfg(test)]
mod tests;

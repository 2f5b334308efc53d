//! A `farshore` server on a directory of its own, and the operator who works with its command line.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use farshore_api::integrity::Digest;
use farshore_api::tokens::MintedToken;
use farshore_sync_core::ids::DeviceId;
use tempfile::TempDir;
use test_services::postgres::{Database, Postgres};

use crate::deadline::{LATER, SOON, within_deadline};
use crate::fleet::SCHEMA;
use crate::process::{Finished, Process, run};
use crate::programs;

/// The tenant that every server of the tests has.
pub const TENANT: &str = "acme";
/// The variable that says which store the servers of the tests have: `sqlite`, which is the default, or `postgres`.
pub const STORE_VARIABLE: &str = "FARSHORE_TEST_STORE";
/// The variables that could leak a developer's settings into a test.
const CONFIG_VARIABLES: [&str; 5] = [
    "FARSHORE_MASTER_KEY",
    "FARSHORE_STORE__DATA_DIR",
    "FARSHORE_STORE__KIND",
    "FARSHORE_POSTGRES__URL",
    "FARSHORE_BUS__URL",
];
/// Connections of each server of the tests, many of which share one Postgres.
const POSTGRES_CONNECTIONS: u32 = 8;
/// Ports below the range that systems give to outgoing connections, so that a server finds its own one again.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Lines of the server's log that a failed test shows.
const LOG_LINES_SHOWN: usize = 40;

/// Settings that differ from the defaults: key and value as TOML.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    settings: Vec<(&'static str, String)>,
}

impl ServerOptions {
    /// Sets a key, such as `sync.heartbeat_ms`.
    #[must_use]
    pub fn set(mut self, key: &'static str, value: impl ToString) -> Self {
        self.settings.push((key, value.to_string()));
        self
    }
}

/// A server and its directory.
#[derive(Debug)]
pub struct Server {
    home: TempDir,
    options: ServerOptions,
    port: u16,
    process: Option<Process>,
    /// Where its tenants are, unless they are in its directory.
    database: Option<Arc<Database<'static>>>,
}

impl Server {
    /// Starts a server with the tenant [`TENANT`] and the schema of the tests.
    #[must_use]
    pub fn start(options: ServerOptions) -> Self {
        let server = Self::start_empty(options);
        server.create_tenant(TENANT);
        server
    }

    /// Starts a server without tenants.
    ///
    /// # Panics
    /// Where it is not ready in time.
    #[must_use]
    pub fn start_empty(options: ServerOptions) -> Self {
        let database = is_on_postgres().then(|| Arc::new(Postgres::shared().fresh_database()));
        Self::start_on(database, options)
    }

    /// Starts a node on a database that other nodes may serve as well; the first one creates the tenant.
    ///
    /// # Panics
    /// Where it is not ready in time.
    #[must_use]
    pub fn start_node(database: &Arc<Database<'static>>, options: ServerOptions) -> Self {
        Self::start_on(Some(Arc::clone(database)), options)
    }

    fn start_on(database: Option<Arc<Database<'static>>>, options: ServerOptions) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("fleet.json"), SCHEMA).unwrap();
        fs::write(home.path().join("master"), "5a".repeat(32)).unwrap();
        let mut server = Self { home, options, port: free_port(), process: None, database };
        server.restart();
        server
    }

    /// Starts it again, on the same directory and port.
    ///
    /// # Panics
    /// Where it is not ready in time.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// Starts it again as one whose data comes from a backup.
    ///
    /// # Panics
    /// Where it is not ready in time.
    pub fn restart_restored_from_backup(&mut self) {
        self.restart_with(&["--restored-from-backup"]);
    }

    fn restart_with(&mut self, arguments: &[&str]) {
        assert!(self.process.is_none(), "the server runs already");
        self.write_config();
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = self.command("serve");
        command.arg("--config").arg(self.config_path()).args(arguments).stderr(log);
        let mut process = Process::start(&mut command);
        let ready = within_deadline(LATER, || {
            let ended = process.ended();
            assert!(ended.is_none(), "the server ended: {ended:?}\n{}", self.log_tail());
            (self.get("/readyz")?.0 == 200).then_some(())
        });
        assert!(ready.is_some(), "the server is not ready\n{}", self.log_tail());
        self.process = Some(process);
    }

    /// A command of `farshore`, without the settings of whoever runs the tests.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(programs::path_of(programs::SERVER));
        CONFIG_VARIABLES.iter().for_each(|variable| {
            command.env_remove(variable);
        });
        command.arg(name).current_dir(self.home.path());
        command
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn kill9(&mut self) {
        self.process.take().expect("the server runs").kill9();
    }

    /// SIGSTOP: it stands still until [`Server::thaw`].
    ///
    /// # Panics
    /// Where it does not run.
    pub fn freeze(&self) {
        self.process.as_ref().expect("the server runs").freeze();
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn thaw(&self) {
        self.process.as_ref().expect("the server runs").thaw();
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Panics
    /// Where it does not end in time, or not well.
    pub fn terminate(&mut self) {
        let mut process = self.process.take().expect("the server runs");
        process.ask_to_end();
        let status = process.ended_within(LATER).expect("the server drains in time");
        assert!(status.success(), "{status}\n{}", self.log_tail());
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The folder of its files and of the tests'.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// The database in which its tenants are, unless they are in its directory.
    #[must_use]
    pub fn database(&self) -> Option<&Database<'static>> {
        self.database.as_deref()
    }

    /// Its configuration.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.home.path().join("farshore.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("server.log")
    }

    /// Everything that it has logged.
    ///
    /// # Panics
    /// Where the log cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    /// Runs a command of the operator's; what it prints comes back.
    ///
    /// # Panics
    /// Where it fails.
    pub fn operate(&self, arguments: &[&str]) -> String {
        let finished = self.try_operate(arguments);
        assert_eq!(
            finished.code,
            Some(0),
            "farshore {arguments:?}: {}\n{}",
            finished.stderr,
            self.log_tail()
        );
        finished.stdout
    }

    /// Runs a command of the operator's.
    #[must_use]
    pub fn try_operate(&self, arguments: &[&str]) -> Finished {
        let (name, rest) = arguments.split_first().expect("a command has a name");
        run(self.command(name).args(rest).arg("--config").arg(self.config_path()))
    }

    /// Creates a tenant with the schema of the tests.
    pub fn create_tenant(&self, tenant: &str) {
        // EdDSA: an RSA key makes a debug build wait for its primes.
        self.operate(&["tenant", "create", tenant, "--algorithm", "EdDSA"]);
        let schema = self.home.path().join("fleet.json");
        self.operate(&["schema", "apply", "--tenant", tenant, &schema.to_string_lossy()]);
    }

    /// A token for a new device of [`TENANT`].
    #[must_use]
    pub fn token(&self, scopes: &[&str]) -> MintedToken {
        self.mint(TENANT, scopes, &[])
    }

    /// Another token for a device of [`TENANT`] that is known.
    #[must_use]
    pub fn token_for(&self, device: DeviceId, scopes: &[&str], more: &[&str]) -> MintedToken {
        let device = device.to_string();
        self.mint(TENANT, scopes, &[&["--device", &device], more].concat())
    }

    /// A token.
    ///
    /// # Panics
    /// Where the command line prints something else.
    #[must_use]
    pub fn mint(&self, tenant: &str, scopes: &[&str], more: &[&str]) -> MintedToken {
        let mut arguments = vec!["token", "--tenant", tenant, "--json"];
        scopes.iter().for_each(|scope| arguments.extend(["--scope", scope]));
        arguments.extend(more);
        serde_json::from_str(&self.operate(&arguments)).unwrap()
    }

    /// Replaces what a device of [`TENANT`] may do.
    pub fn grant(&self, device: DeviceId, scopes: &[&str]) {
        let device = device.to_string();
        let mut arguments = vec!["device", "grant", "--tenant", TENANT, &device];
        scopes.iter().for_each(|scope| arguments.extend(["--scope", scope]));
        self.operate(&arguments);
    }

    /// Takes a device of [`TENANT`] out of service.
    pub fn suspend(&self, device: DeviceId) {
        self.operate(&["device", "suspend", "--tenant", TENANT, &device.to_string()]);
    }

    /// Puts a device of [`TENANT`] back into service.
    pub fn resume(&self, device: DeviceId) {
        self.operate(&["device", "resume", "--tenant", TENANT, &device.to_string()]);
    }

    /// The sums of [`TENANT`] in its constant scope.
    ///
    /// # Panics
    /// Where the command line prints something else.
    #[must_use]
    pub fn digest(&self) -> Digest {
        serde_json::from_str(&self.operate(&["digest", "--tenant", TENANT, "--json"])).unwrap()
    }

    /// What the server counts under this name and these labels, such as `farshore_connections_open`; 0 where nothing.
    ///
    /// # Panics
    /// Where it does not answer.
    #[must_use]
    pub fn metric(&self, name: &str) -> u64 {
        let (status, body) = self.get("/metrics").expect("the server answers");
        assert_eq!(status, 200, "{body}");
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Asks for a path; status and body, or nothing where nobody answers.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.address(), SOON).ok()?;
        stream.set_read_timeout(Some(SOON)).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address()
        )
        .ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        let (head, body) = response.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    fn write_config(&self) {
        let mut settings: Vec<(&str, String)> = vec![
            ("server.listen", format!("{:?}", self.address().to_string())),
            ("store.data_dir", format!("{:?}", self.data_dir())),
            ("store.master_key_file", format!("{:?}", self.home.path().join("master"))),
        ];
        if let Some(database) = &self.database {
            settings.push(("store.kind", "\"postgres\"".to_owned()));
            settings.push(("postgres.url", format!("{:?}", database.url())));
            settings.push(("postgres.max_connections", POSTGRES_CONNECTIONS.to_string()));
        }
        let set = &self.options.settings;
        settings.retain(|(key, _)| !set.iter().any(|(its_key, _)| its_key == key));
        settings.extend(set.iter().cloned());
        settings.sort();
        let (mut text, mut section) = (String::new(), "");
        for (key, value) in &settings {
            let (its_section, name) = key.split_once('.').expect("a key is section.name");
            if its_section != section {
                let _ = writeln!(text, "[{its_section}]");
                section = its_section;
            }
            let _ = writeln!(text, "{name} = {value}");
        }
        fs::write(self.config_path(), text).unwrap();
    }
}

impl Drop for Server {
    #[expect(clippy::print_stderr, reason = "a failed test shows what the server said")]
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the end of the server's log:\n{}", self.log_tail());
        }
    }
}

/// Whether the tests run on Postgres.
///
/// # Panics
/// Where the environment asks for a store that there is not.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one setting of the system tests, which `cargo xtask test` gives"
)]
pub fn is_on_postgres() -> bool {
    match std::env::var(STORE_VARIABLE).as_deref() {
        Ok("postgres") => true,
        Ok("" | "sqlite") | Err(_) => false,
        Ok(other) => panic!("{STORE_VARIABLE} is {other:?}; there are sqlite and postgres"),
    }
}

/// A port that nobody listens on, and that no other test of this process gets.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = PORTS.end - PORTS.start;
    // Test processes that run at the same time begin at different places.
    let begin = u16::try_from(std::process::id() % u32::from(span)).unwrap();
    (0..span)
        .map(|_| PORTS.start + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % span)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

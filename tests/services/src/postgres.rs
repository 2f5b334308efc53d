//! A Postgres server, and databases on it.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::packages;

/// The variable with the URL of a server to use instead of starting one, as a superuser.
pub const URL_VARIABLE: &str = "FARSHORE_TEST_POSTGRES_URL";
/// How the programs are installed on Debian and Ubuntu.
pub const APT_PACKAGES: [&str; 1] = ["postgresql"];
/// How to install them, for whoever has to.
pub const INSTALL_HINT: &str = "Postgres 15 or newer is needed: sudo apt-get install -y postgresql \
    (or dnf install postgresql-server, brew install postgresql@17), \
    or set FARSHORE_TEST_POSTGRES_URL to the URL of a server that tests may use, as a superuser";

/// Looks for a server that has just been started.
const READY_LOOKS: u32 = 600;
/// Time between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// Ports that are tried before giving up: another program may take one between finding and using it.
const PORTS_TRIED: u32 = 5;
/// The superuser of a server that we start.
const SUPERUSER: &str = "postgres";
/// Whom Postgres runs as where we are root, which it refuses: the first that the system has.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];
/// Settings for tests: many connections, little memory, and no waiting for a disk. Killing the server loses nothing by
/// that; only a power cut would.
const SETTINGS: [&str; 9] = [
    "listen_addresses='127.0.0.1'",
    "unix_socket_directories=''",
    "fsync=off",
    "full_page_writes=off",
    "max_connections=400",
    "shared_buffers=64MB",
    "max_wal_size=256MB",
    "max_locks_per_transaction=256",
    "log_min_messages=warning",
];
/// Waits for the end of its input, which comes when whoever started it ends, and ends the server then.
const KEEPER: &str = r#"
trap '' INT TERM HUP
"$1/postgres" -D "$2/data" >"$2/log" 2>&1 &
server=$!
read -r _
kill -INT "$server"
wait "$server"
rm -rf "$2"
"#;

/// Why there is no server.
#[derive(Debug)]
pub enum PostgresError {
    /// The programs are not installed.
    Missing,
    /// A program did not do what it should; the text is what it said.
    Failed {
        /// What was being done.
        operation: &'static str,
        /// What went wrong.
        problem: String,
    },
}

impl fmt::Display for PostgresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(INSTALL_HINT),
            Self::Failed { operation, problem } => write!(f, "Postgres: {operation}: {problem}"),
        }
    }
}

impl std::error::Error for PostgresError {}

/// A Postgres server.
pub struct Postgres {
    programs: PathBuf,
    url: String,
    keeper: Option<Keeper>,
}

/// The process beside a server that we started.
struct Keeper {
    child: Child,
    /// Closing it ends the server; the system does that where we are killed.
    input: Option<ChildStdin>,
    /// The keeper removes it, too, but we wait for that only where we end well.
    _folder: Folder,
}

impl Postgres {
    /// The server of this process: the one that the environment names, or one that is started now and ends with us.
    ///
    /// # Panics
    /// Where there is none to be had: a test that needs one must fail, with what to do about it.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::find_or_start().unwrap_or_else(|error| panic!("{error}")))
    }

    /// The server that the environment names, or a new one.
    ///
    /// # Errors
    /// Where there is none to be had.
    pub fn find_or_start() -> Result<Self, PostgresError> {
        match packages::variable(URL_VARIABLE).and_then(|url| url.into_string().ok()) {
            Some(url) => {
                let programs = packages::postgres_programs().ok_or(PostgresError::Missing)?;
                Ok(Self { programs, url, keeper: None })
            }
            None => Self::start(),
        }
    }

    /// A new server.
    ///
    /// # Errors
    /// Where it is not installed, or does not start.
    pub fn start() -> Result<Self, PostgresError> {
        let programs = packages::postgres_programs().ok_or(PostgresError::Missing)?;
        let mut last = failed("start", "no port was tried");
        for _ in 0..PORTS_TRIED {
            match Self::start_on(&programs, free_port()?) {
                Ok(server) => return Ok(server),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn start_on(programs: &Path, port: u16) -> Result<Self, PostgresError> {
        let user = unprivileged_user();
        let user = user.as_ref();
        let folder = Folder::new(user)?;
        let password = random_hex()?;
        make_cluster(programs, &folder.path, user, &password, port)?;
        let mut keeper = command(user, "sh");
        keeper.arg("-c").arg(KEEPER).arg("keeper").arg(programs).arg(&folder.path);
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // The keys that end a test program in a terminal must not reach the keeper before it has cleaned up.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut keeper, 0);
        let mut child = keeper.spawn().map_err(|error| failed("start", error))?;
        let input = child.stdin.take();
        let url = format!("postgres://{SUPERUSER}:{password}@127.0.0.1:{port}/postgres");
        let log = folder.path.join("log");
        let server = Self {
            programs: programs.to_owned(),
            url,
            keeper: Some(Keeper { child, input, _folder: folder }),
        };
        for _ in 0..READY_LOOKS {
            if server.psql(&server.url, "SELECT 1").is_ok() {
                return Ok(server);
            }
            thread::park_timeout(BETWEEN_LOOKS);
        }
        Err(failed("wait until it is ready", fs::read_to_string(log).unwrap_or_default()))
    }

    /// Where it is, as its superuser.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A new database of a role of its own, which may make roles and is no superuser: what a server of ours gets in
    /// production.
    ///
    /// # Panics
    /// Where the server does not make one.
    #[must_use]
    pub fn fresh_database(&self) -> Database<'_> {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        let password = random_hex().unwrap_or_else(|error| panic!("{error}"));
        self.run(&format!(
            "CREATE ROLE {name} LOGIN CREATEROLE NOINHERIT PASSWORD '{password}';\n\
             CREATE DATABASE {name} OWNER {name} TEMPLATE template0;"
        ));
        let url = with_user(&with_database(&self.url, &name), &name, &password);
        Database { server: self, name, url }
    }

    /// Runs statements as the superuser; what they select, unaligned, a line for each row.
    ///
    /// # Panics
    /// Where one fails.
    pub fn run(&self, statements: &str) -> String {
        self.psql(&self.url, statements).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs statements with psql, each in a transaction of its own.
    ///
    /// # Errors
    /// What the first that failed said.
    pub fn psql(&self, url: &str, statements: &str) -> Result<String, PostgresError> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-", url]);
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = psql.spawn().map_err(|error| failed("start psql", error))?;
        let mut input = child.stdin.take().expect("it was asked for");
        // What psql does not read any more it has reported by itself.
        let _ = input.write_all(statements.as_bytes());
        drop(input);
        let output = child.wait_with_output().map_err(|error| failed("run psql", error))?;
        said("run psql", &output)
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Postgres")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.input.take();
            let _ = keeper.child.wait();
        }
    }
}

/// A database of its own, gone when this is dropped, with every role that it needed.
pub struct Database<'a> {
    server: &'a Postgres,
    name: String,
    url: String,
}

impl Database<'_> {
    /// Where it is, as the role that owns it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The name of the database, and of the role that owns it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is, as the superuser of the server.
    #[must_use]
    pub fn superuser_url(&self) -> String {
        with_database(&self.server.url, &self.name)
    }

    /// Runs statements in it as the superuser; what they select, unaligned, a line for each row.
    ///
    /// # Panics
    /// Where one fails.
    pub fn run(&self, statements: &str) -> String {
        let done = self.server.psql(&self.superuser_url(), statements);
        done.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs statements in it as the role that owns it.
    ///
    /// # Errors
    /// What the first that failed said.
    pub fn run_as_owner(&self, statements: &str) -> Result<String, PostgresError> {
        self.server.psql(&self.url, statements)
    }
}

impl fmt::Debug for Database<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({})", self.name)
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        let name = &self.name;
        let statements = format!(
            "DROP DATABASE IF EXISTS {name} WITH (FORCE);\n\
             SELECT format('DROP ROLE %I', r.rolname) FROM pg_auth_members m \
             JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member \
             WHERE u.rolname = '{name}' \\gexec\n\
             DROP ROLE IF EXISTS {name};\n"
        );
        // Where the server has gone, so have they.
        let _ = self.server.psql(&self.server.url, &statements);
    }
}

/// A folder that is removed unless somebody else does it.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new(user: Option<&User>) -> Result<Self, PostgresError> {
        let path = std::env::temp_dir().join(format!("farshore-postgres-{}", random_hex()?));
        fs::create_dir(&path).map_err(|error| failed("make a directory", error))?;
        let folder = Self { path };
        if let Some(user) = user {
            let mut chown = Command::new("chown");
            run(chown.arg(&user.name).arg(&folder.path), "give a directory to the server's user")?;
        }
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn make_cluster(
    programs: &Path,
    folder: &Path,
    user: Option<&User>,
    password: &str,
    port: u16,
) -> Result<(), PostgresError> {
    let password_file = folder.join("password");
    fs::write(&password_file, password).map_err(|error| failed("write the password", error))?;
    let mut initdb = command(user, programs.join("initdb"));
    initdb.arg("-D").arg(folder.join("data")).args(["-U", SUPERUSER]);
    initdb.args(["--auth=scram-sha-256", "--no-sync", "--no-locale", "--encoding=UTF8"]);
    initdb.arg("--pwfile").arg(&password_file);
    run(&mut initdb, "make a cluster")?;
    let settings: String = SETTINGS.iter().map(|setting| format!("{setting}\n")).collect();
    let configuration = folder.join("data/postgresql.conf");
    let mut file = File::options()
        .append(true)
        .open(configuration)
        .map_err(|error| failed("configure the cluster", error))?;
    file.write_all(format!("{settings}port={port}\n").as_bytes())
        .map_err(|error| failed("configure the cluster", error))
}

/// A program that runs as nobody in particular where we are root.
fn command(user: Option<&User>, program: impl AsRef<OsStr>) -> Command {
    match user {
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.arg("--reuid").arg(&user.name).arg("--regid").arg(&user.group);
            command.arg("--clear-groups");
            command.arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// A user of the system.
struct User {
    name: String,
    group: String,
}

/// Whom to run Postgres as; `None` as ourselves, unless we are root.
fn unprivileged_user() -> Option<User> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().ok()?;
        let said = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| said.trim().to_owned())
    };
    if id(&["-u"])? != "0" {
        return None;
    }
    let user = |name: &str| Some(User { name: name.to_owned(), group: id(&["-g", name])? });
    UNPRIVILEGED.into_iter().find_map(user)
}

fn run(command: &mut Command, operation: &'static str) -> Result<String, PostgresError> {
    said(operation, &command.output().map_err(|error| failed(operation, error))?)
}

fn said(operation: &'static str, output: &Output) -> Result<String, PostgresError> {
    if !output.status.success() {
        return Err(failed(operation, String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn failed(operation: &'static str, problem: impl ToString) -> PostgresError {
    PostgresError::Failed { operation, problem: problem.to_string() }
}

fn free_port() -> Result<u16, PostgresError> {
    let listener = TcpListener::bind("127.0.0.1:0");
    let port = listener.and_then(|listener| listener.local_addr()).map(|address| address.port());
    port.map_err(|error| failed("find a port", error))
}

fn random_hex() -> Result<String, PostgresError> {
    let mut bytes = [0; 12];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error: io::Error| failed("find a password", error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The same server, another database.
fn with_database(url: &str, database: &str) -> String {
    let (before, parameters) = match url.split_once('?') {
        Some((before, parameters)) => (before, format!("?{parameters}")),
        None => (url, String::new()),
    };
    let authority = before.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    format!("{authority}/{database}{parameters}")
}

/// The same place, another user.
fn with_user(url: &str, user: &str, password: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let end_of_authority = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end_of_authority);
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    format!("{scheme}://{user}:{password}@{place}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_change_in_one_place() {
        let url = "postgres://postgres:secret@127.0.0.1:5432/postgres?sslmode=disable";
        let other = with_database(url, "other");
        assert_eq!(other, "postgres://postgres:secret@127.0.0.1:5432/other?sslmode=disable");
        assert_eq!(
            with_user(&other, "me", "mine"),
            "postgres://me:mine@127.0.0.1:5432/other?sslmode=disable"
        );
        assert_eq!(with_user("postgres://host/db", "me", "mine"), "postgres://me:mine@host/db");
    }

    #[test]
    fn a_server_starts_gives_databases_and_ends() {
        let server = Postgres::start().unwrap();
        let database = server.fresh_database();
        assert_eq!(database.run_as_owner("SELECT current_user").unwrap().trim(), database.name());
        let (url, name) = (database.url().to_owned(), database.name().to_owned());
        drop(database);
        assert!(server.psql(&url, "SELECT 1").is_err());
        let left = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{name}'");
        assert_eq!(server.run(&left).trim(), "0");
        let everything = server.url().to_owned();
        drop(server);
        let listening = everything.rsplit_once('@').unwrap().1.split('/').next().unwrap();
        assert!(std::net::TcpStream::connect(listening).is_err(), "it has ended");
    }
}

//! A Postgres server, and databases on it.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::keeper::{Folder, Keeper, failed, free_port, random_hex, run, said};
use crate::{ServiceError, packages};

/// The variable with the URL of a server to use instead of starting one, as a superuser.
pub const URL_VARIABLE: &str = "FARSHORE_TEST_POSTGRES_URL";
/// Looks for a server that has just been started.
const READY_LOOKS: u32 = 600;
/// Time between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// Ports that are tried before giving up: another program may take one between finding and using it.
const PORTS_TRIED: u32 = 5;
/// The port of a URL that names none.
const DEFAULT_PORT: &str = "5432";
/// The superuser of a server that we start.
const SUPERUSER: &str = "postgres";
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
/// A Postgres server.
pub struct Postgres {
    programs: PathBuf,
    url: String,
    keeper: Option<Keeper>,
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
    pub fn find_or_start() -> Result<Self, ServiceError> {
        match packages::variable(URL_VARIABLE).and_then(|url| url.into_string().ok()) {
            Some(url) => {
                let programs = packages::postgres_programs().ok_or(ServiceError::Missing)?;
                Ok(Self { programs, url, keeper: None })
            }
            None => Self::start(),
        }
    }

    /// A new server.
    ///
    /// # Errors
    /// Where it is not installed, or does not start.
    pub fn start() -> Result<Self, ServiceError> {
        let programs = packages::postgres_programs().ok_or(ServiceError::Missing)?;
        let mut last = failed("start", "no port was tried");
        for _ in 0..PORTS_TRIED {
            match Self::start_on(&programs, free_port()?) {
                Ok(server) => return Ok(server),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn start_on(programs: &Path, port: u16) -> Result<Self, ServiceError> {
        let folder = Folder::new("postgres")?;
        let password = random_hex()?;
        make_cluster(programs, &folder, &password, port)?;
        Self::serve(programs, folder, &password, port)
    }

    /// A standby of this server, which follows it by streaming and may be read.
    ///
    /// # Errors
    /// Where this one is not ours, or the other one does not start.
    pub fn standby(&self) -> Result<Self, ServiceError> {
        let (folder, port) = (Folder::new("standby")?, free_port()?);
        let password = place_of(&self.url, "").map(|place| place.password.to_owned());
        let password = password.ok_or_else(|| failed("follow Postgres", "it is not ours"))?;
        let mut copy = folder.command(self.programs.join("pg_basebackup"));
        copy.arg("-D").arg(folder.path.join("data")).args(["-R", "-c", "fast", "--no-sync"]);
        copy.arg("-d").arg(&self.url);
        run(&mut copy, "copy a cluster of databases")?;
        configure(&folder, &format!("port={port}\n"))?;
        Self::serve(&self.programs, folder, &password, port)
    }

    /// Cuts a standby off from what it follows: it lacks what is committed from now on.
    pub fn stop_following(&self) {
        self.run("ALTER SYSTEM SET primary_conninfo = '';\nSELECT pg_reload_conf();");
        while self.run("SELECT count(*) FROM pg_stat_wal_receiver").trim() != "0" {
            thread::park_timeout(BETWEEN_LOOKS);
        }
    }

    /// Makes a standby a server of its own, with what has arrived.
    pub fn promote(&self) {
        assert_eq!(self.run("SELECT pg_promote()").trim(), "t", "the standby was promoted");
    }

    /// How much this server has written, or a standby has taken over, in bytes.
    ///
    /// # Panics
    /// Where it does not say so.
    #[must_use]
    pub fn position(&self) -> u64 {
        let position = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
            ELSE pg_current_wal_lsn() END - '0/0'";
        self.run(position).trim().parse().expect("a number of bytes")
    }

    fn serve(
        programs: &Path,
        folder: Folder,
        password: &str,
        port: u16,
    ) -> Result<Self, ServiceError> {
        let data = folder.path.join("data");
        let arguments = ["-D".as_ref() as &OsStr, data.as_ref()];
        // The signal that ends it without waiting for its clients.
        let keeper = Keeper::start(folder, "INT", &programs.join("postgres"), &arguments)?;
        let url = format!("postgres://{SUPERUSER}:{password}@127.0.0.1:{port}/postgres");
        let server = Self { programs: programs.to_owned(), url, keeper: Some(keeper) };
        for _ in 0..READY_LOOKS {
            if server.psql(&server.url, "SELECT 1").is_ok() {
                return Ok(server);
            }
            thread::park_timeout(BETWEEN_LOOKS);
        }
        Err(failed("start Postgres", server.keeper.as_ref().map_or(String::new(), Keeper::log)))
    }

    /// Ends it in the middle of what it does, without a checkpoint, and starts it again on the same port. What runs
    /// then is to be ended by [`Postgres::stop`]: left alone, it ends some time after its folder is gone.
    ///
    /// # Errors
    /// Where it is not ours, or does not come back.
    pub fn crash(&self) -> Result<(), ServiceError> {
        self.control(&["restart", "-m", "immediate", "-w", "-l", "log"])
    }

    /// Ends it in the middle of what it does.
    ///
    /// # Errors
    /// Where it is not ours, or has ended.
    pub fn stop(&self) -> Result<(), ServiceError> {
        self.control(&["stop", "-m", "immediate"])
    }

    fn control(&self, arguments: &[&str]) -> Result<(), ServiceError> {
        let operation = "control Postgres";
        let keeper = self.keeper.as_ref().ok_or_else(|| failed(operation, "it is not ours"))?;
        let mut command = keeper.command(self.programs.join("pg_ctl"));
        command.arg("-D").arg(keeper.folder().join("data")).args(arguments);
        command.current_dir(keeper.folder()).stdout(Stdio::null());
        let status = command.status().map_err(|error| failed(operation, error))?;
        if status.success() { Ok(()) } else { Err(failed(operation, keeper.log())) }
    }

    /// Where it is, as its superuser.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port on which it listens.
    ///
    /// # Panics
    /// Where its URL names none.
    #[must_use]
    pub fn port(&self) -> u16 {
        let port = place_of(&self.url, "").and_then(|place| place.port.parse().ok());
        port.expect("postgres://USER:PASSWORD@HOST:PORT/DATABASE")
    }

    /// Runs statements in one of its databases as the superuser; what they select.
    ///
    /// # Panics
    /// Where one fails.
    pub fn run_in(&self, database: &str, statements: &str) -> String {
        let done = self.psql(&with_database(&self.url, database), statements);
        done.unwrap_or_else(|error| panic!("{error}"))
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
    pub fn psql(&self, url: &str, statements: &str) -> Result<String, ServiceError> {
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

/// A database of its own, gone when this is dropped, with every role that it needed.
pub struct Database<'a> {
    server: &'a Postgres,
    name: String,
    url: String,
}

impl<'a> Database<'a> {
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

    /// Where it is, and who owns it, taken apart.
    ///
    /// # Panics
    /// Where the URL of the server is not one.
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        place_of(&self.url, &self.name).expect("postgres://USER:PASSWORD@HOST:PORT/DATABASE")
    }

    /// The same database at another port of this machine, as the role that owns it.
    #[must_use]
    pub fn url_at(&self, port: u16) -> String {
        let Place { database, user, password, .. } = self.place();
        format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}")
    }

    /// Runs statements in it as the superuser; what they select, unaligned, a line for each row.
    ///
    /// # Panics
    /// Where one fails.
    pub fn run(&self, statements: &str) -> String {
        let done = self.server.psql(&self.superuser_url(), statements);
        done.unwrap_or_else(|error| panic!("{error}"))
    }

    /// What `pg_dump -n` makes of schemas of it: statements for [`Database::run`].
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn dump(&self, schemas: &[String]) -> String {
        let mut dump = Command::new(self.server.programs.join("pg_dump"));
        schemas.iter().for_each(|schema| {
            dump.args(["-n", schema]);
        });
        let output = dump.arg(self.superuser_url()).output();
        let output = output.unwrap_or_else(|error| panic!("pg_dump: {error}"));
        said("run pg_dump", &output).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A copy of it as it is now: a backup. Nobody may be using it.
    ///
    /// # Panics
    /// Where somebody is.
    #[must_use]
    pub fn back_up(&self) -> Backup<'a> {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}_backup_{number}", self.name);
        self.server.run(&format!("CREATE DATABASE {name} TEMPLATE {};", self.name));
        Backup { server: self.server, name }
    }

    /// Puts a copy in its place.
    ///
    /// # Panics
    /// Where the server does not.
    pub fn restore(&self, backup: &Backup<'_>) {
        let (name, copy) = (&self.name, &backup.name);
        self.server.run(&format!(
            "DROP DATABASE {name} WITH (FORCE);\nCREATE DATABASE {name} OWNER {name} TEMPLATE {copy};"
        ));
    }

    /// Runs statements in it as the role that owns it.
    ///
    /// # Errors
    /// What the first that failed said.
    pub fn run_as_owner(&self, statements: &str) -> Result<String, ServiceError> {
        self.server.psql(&self.url, statements)
    }
}

/// A URL, taken apart.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The host.
    pub host: &'a str,
    /// The port.
    pub port: &'a str,
    /// The database.
    pub database: &'a str,
    /// The role.
    pub user: &'a str,
    /// Its password.
    pub password: &'a str,
}

/// A copy of a database, gone when this is dropped.
pub struct Backup<'a> {
    server: &'a Postgres,
    name: String,
}

impl fmt::Debug for Backup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backup({})", self.name)
    }
}

impl Drop for Backup<'_> {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE);", self.name);
        let _ = self.server.psql(&self.server.url, &drop);
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

fn make_cluster(
    programs: &Path,
    folder: &Folder,
    password: &str,
    port: u16,
) -> Result<(), ServiceError> {
    let password_file = folder.path.join("password");
    fs::write(&password_file, password).map_err(|error| failed("write a password", error))?;
    let mut initdb = folder.command(programs.join("initdb"));
    initdb.arg("-D").arg(folder.path.join("data")).args(["-U", SUPERUSER]);
    initdb.args(["--auth=scram-sha-256", "--no-sync", "--no-locale", "--encoding=UTF8"]);
    initdb.arg("--pwfile").arg(&password_file);
    run(&mut initdb, "make a cluster of databases")?;
    let settings: String = SETTINGS.iter().map(|setting| format!("{setting}\n")).collect();
    configure(folder, &format!("{settings}port={port}\n"))
}

/// Adds settings, of which the last of a name counts.
fn configure(folder: &Folder, settings: &str) -> Result<(), ServiceError> {
    let configuration = folder.path.join("data/postgresql.conf");
    let file = File::options().append(true).open(configuration);
    file.and_then(|mut file| file.write_all(settings.as_bytes()))
        .map_err(|error| failed("configure Postgres", error))
}

/// The parts of a URL.
fn place_of<'u>(url: &'u str, database: &'u str) -> Option<Place<'u>> {
    let (user, place) = url.split_once("://")?.1.rsplit_once('@')?;
    let (user, password) = user.split_once(':')?;
    let authority = place.split('/').next()?;
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, DEFAULT_PORT));
    Some(Place { host, port, database, user, password })
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

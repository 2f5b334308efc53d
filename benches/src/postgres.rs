//! The peer: Postgres on the same disk with `fsync=on`, driven by its own `pgbench`.
//!
//! Postgres refuses to run as root; there it runs as its own user, and the files belong to that.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use farshore_sync_core::value::Value;
use tempfile::TempDir;

use crate::flights::{COLLECTION, Flight};
use crate::outcome::{Outcome, ensure};

/// What the table says of it.
pub const REFERENCE: &str =
    "Postgres 15, fsync=on, not encrypted: pgbench, 64 clients, prepared, UNIX socket";
/// Where Debian puts the programs.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
const PACKAGE: &str = "postgresql-15";
/// Whose processes they are where this process is root's, best first.
const USERS: [&str; 2] = ["postgres", "nobody"];
const ROOT: u32 = 0;
const START_WITHIN: Duration = Duration::from_secs(30);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// Threads of pgbench.
const THREADS: &str = "2";

/// A running server; it is killed when this is dropped.
#[derive(Debug)]
pub struct Postgres {
    home: PathBuf,
    owner: Option<Owner>,
    process: Child,
}

#[derive(Debug, Clone, Copy)]
struct Owner {
    user: u32,
    group: u32,
}

impl Postgres {
    /// Makes a new cluster in a directory and starts it. An error says what is missing.
    pub fn start(home: &TempDir) -> Outcome<Self> {
        for program in ["initdb", "postgres", "pgbench", "psql"] {
            let path = Path::new(PROGRAMS).join(program);
            ensure(path.is_file(), || format!("no {program}: install the package {PACKAGE}"))?;
        }
        let home = home.path().to_owned();
        let owner = owner()?;
        if let Some(Owner { user, group }) = owner {
            chown(&home, Some(user), Some(group))?;
        }
        let data = home.join("cluster");
        let mut initdb = program("initdb", owner, &home);
        initdb.args(["--auth=trust", "--username=farshore", "--encoding=UTF8", "--locale=C"]);
        run(initdb.arg("--pgdata").arg(&data))?;
        let log = fs::File::create(home.join("postgres.log"))?;
        let mut server = program("postgres", owner, &home);
        server.arg("-D").arg(&data).arg("-k").arg(&home);
        for setting in [
            "listen_addresses=",
            "fsync=on",
            "synchronous_commit=on",
            "full_page_writes=on",
            "shared_buffers=256MB",
            "max_connections=100",
        ] {
            server.args(["-c", setting]);
        }
        server.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut postgres = Self { home, owner, process: server.spawn()? };
        postgres.wait_until_ready()?;
        Ok(postgres)
    }

    /// A new database of a role of its own, which may make roles and is no superuser: what a server of ours gets. Its
    /// URL.
    pub fn fresh_database(&self, name: &str) -> Outcome<String> {
        self.execute(&format!("CREATE ROLE {name} LOGIN CREATEROLE NOINHERIT"))?;
        self.execute(&format!("CREATE DATABASE {name} OWNER {name} TEMPLATE template0"))?;
        Ok(format!("postgres://{name}@localhost/{name}?host={}", self.home.display()))
    }

    /// Writes everything out, so that no run pays for the one before.
    pub fn checkpoint(&self) -> Outcome {
        self.execute("CHECKPOINT")
    }

    /// Creates the table for rows like this one.
    pub fn create_table(&self, like: &Flight) -> Outcome {
        let columns = like.iter().map(|(name, value)| format!("\"{name}\" {}", sql_type(value)));
        let columns = columns.collect::<Vec<_>>().join(", ");
        self.execute(&format!("CREATE TABLE {COLLECTION} (id uuid PRIMARY KEY, {columns})"))
    }

    /// Inserts rows like this one, each in a transaction of its own, and gives transactions a second.
    pub fn insert_one_by_one(&self, clients: usize, each: usize, like: &Flight) -> Outcome<f64> {
        // A file of its own for each run, as our side has a tenant of its own; a checkpoint first, for the same reason.
        self.execute(&format!("TRUNCATE {COLLECTION}"))?;
        self.execute("CHECKPOINT")?;
        let values: Vec<String> = like.iter().map(|(_, value)| literal(value)).collect();
        let script = self.home.join("insert.sql");
        let values = values.join(", ");
        fs::write(
            &script,
            format!("INSERT INTO {COLLECTION} VALUES (gen_random_uuid(), {values});\n"),
        )?;
        let mut bench = self.client("pgbench");
        bench.args(["-n", "-M", "prepared", "-j", THREADS]);
        bench.args(["-c", &clients.to_string(), "-t", &each.to_string()]);
        let said = run(bench.arg("-f").arg(&script).arg("postgres"))?;
        let rate = said.lines().find_map(|line| {
            line.strip_prefix("tps = ")?.split_whitespace().next()?.parse::<f64>().ok()
        });
        rate.ok_or_else(|| format!("pgbench gave no rate: {said}").into())
    }

    fn execute(&self, sql: &str) -> Outcome {
        let mut psql = self.client("psql");
        psql.args(["-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", sql]);
        run(&mut psql).map(drop)
    }

    fn client(&self, name: &str) -> Command {
        let mut command = program(name, self.owner, &self.home);
        command.arg("-h").arg(&self.home).args(["-U", "farshore"]);
        command
    }

    fn wait_until_ready(&mut self) -> Outcome {
        let started = Instant::now();
        while self.execute("SELECT 1").is_err() {
            let ended = self.process.try_wait()?;
            ensure(ended.is_none() && started.elapsed() < START_WITHIN, || {
                let log = fs::read_to_string(self.home.join("postgres.log")).unwrap_or_default();
                format!("Postgres did not start: {}", log.trim_end())
            })?;
            std::thread::park_timeout(BETWEEN_LOOKS);
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The children of a killed postmaster notice by themselves and end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program(name: &str, owner: Option<Owner>, home: &Path) -> Command {
    let mut command = Command::new(Path::new(PROGRAMS).join(name));
    // Nothing of the caller's Postgres may reach this one.
    command.env_clear().env("LC_ALL", "C").current_dir(home);
    if let Some(Owner { user, group }) = owner {
        command.gid(group).uid(user);
    }
    command
}

fn run(command: &mut Command) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.success(), || said.trim_end().to_owned())?;
    Ok(String::from_utf8(output.stdout)?)
}

/// Whose the server's processes and files are; `None` for the user who runs this.
fn owner() -> Outcome<Option<Owner>> {
    if fs::metadata("/proc/self")?.uid() != ROOT {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let of = |name: &&str| {
        users.lines().find_map(|line| {
            let mut fields = line.strip_prefix(name)?.strip_prefix(':')?.split(':').skip(1);
            let user = fields.next()?.parse().ok()?;
            Some(Owner { user, group: fields.next()?.parse().ok()? })
        })
    };
    let found = USERS.iter().find_map(of);
    found
        .map(Some)
        .ok_or_else(|| "Postgres does not run as root, and there is no other user".into())
}

pub const fn sql_type(value: &Value) -> &'static str {
    match value {
        Value::Text(_) | Value::Json(_) => "text",
        Value::Real(_) => "double precision",
        Value::Bytes(_) | Value::Uuid(_) => "bytea",
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Timestamp(_) => "bigint",
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::Int(int) | Value::Timestamp(int) => int.to_string(),
        Value::Text(text) | Value::Json(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Bool(truth) => i64::from(*truth).to_string(),
        Value::Real(real) => real.get().to_string(),
        Value::Null | Value::Bytes(_) | Value::Uuid(_) => "NULL".to_owned(),
    }
}

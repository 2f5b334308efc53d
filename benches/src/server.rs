//! Our server: the real binary, as a process of its own on a directory of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use farshore_api::tokens::MintedToken;
use farshore_store::sealing::MasterKey;

use crate::machine::Busy;
use crate::outcome::{Outcome, ensure};

const START_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
const IDLE_WITHIN: Duration = Duration::from_secs(60);
const IDLE_LOOK: Duration = Duration::from_millis(500);
/// Of a processor, while it is asked nothing.
const IDLE_SHARE: f64 = 0.02;
/// What makes the tenants go to Postgres.
const POSTGRES: &str = "kind = \"postgres\"";

/// A running server; it is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    program: PathBuf,
    config: PathBuf,
    address: SocketAddr,
    process: Child,
    master_key: String,
}

impl Server {
    /// Starts one with the default limits.
    pub fn start(home: &Path) -> Outcome<Self> {
        Self::start_with(home, "")
    }

    /// Starts one with further tables of the configuration.
    pub fn start_with(home: &Path, tables: &str) -> Outcome<Self> {
        Self::start_as(home, master_key()?, "", tables)
    }

    /// Starts one with further keys of the store.
    pub fn start_with_store(home: &Path, keys: &str) -> Outcome<Self> {
        Self::start_as(home, master_key()?, keys, "")
    }

    /// Starts one whose tenants are in a Postgres database, with further tables of the configuration.
    pub fn start_on_postgres(home: &Path, url: &str, tables: &str) -> Outcome<Self> {
        Self::start_as(home, master_key()?, POSTGRES, &postgres_tables(url, tables))
    }

    /// Starts another node on the same database.
    pub fn start_beside(&self, home: &Path, url: &str, tables: &str) -> Outcome<Self> {
        Self::start_as(home, self.master_key.clone(), POSTGRES, &postgres_tables(url, tables))
    }

    fn start_as(home: &Path, master_key: String, store: &str, tables: &str) -> Outcome<Self> {
        let this = std::env::current_exe()?;
        let program =
            this.with_file_name("farshore").with_extension(std::env::consts::EXE_EXTENSION);
        ensure(program.is_file(), || {
            format!(
                "{} is missing; `cargo xtask bench` builds everything that is needed",
                program.display()
            )
        })?;
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let (config, key, log) =
            (home.join("farshore.toml"), home.join("master.key"), home.join("server.log"));
        let data = home.join("data");
        fs::write(&key, &master_key)?;
        fs::write(
            &config,
            format!(
                "[server]\nlisten = {:?}\n[store]\ndata_dir = {data:?}\nmaster_key_file = {key:?}\n{store}\n[log]\nlevel = \"warn\"\n{tables}\n",
                address.to_string()
            ),
        )?;
        let log_file = fs::File::create(&log)?;
        let mut command = Command::new(&program);
        command.arg("serve").arg("--config").arg(&config);
        command.stdin(Stdio::null()).stdout(log_file.try_clone()?).stderr(log_file);
        let process = command.spawn()?;
        let mut server = Self { program, config, address, process, master_key };
        server.wait_until_ready(&log)?;
        Ok(server)
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it has nothing left to do of what was asked of it before.
    pub fn wait_until_idle(&self) -> Outcome {
        let started = Instant::now();
        loop {
            let busy = Busy::of(self.process());
            std::thread::park_timeout(IDLE_LOOK);
            // Where the system does not say, nobody can tell.
            if busy.share().is_none_or(|share| share < IDLE_SHARE) {
                return Ok(());
            }
            ensure(started.elapsed() < IDLE_WITHIN, || "the server does not come to rest".into())?;
        }
    }

    /// Lets it end by itself, so that every file is as it leaves them.
    pub fn stop(mut self) -> Outcome {
        let told = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status()?;
        ensure(told.success(), || "the server could not be told to stop".into())?;
        let started = Instant::now();
        while self.process.try_wait()?.is_none() {
            ensure(started.elapsed() < STOP_WITHIN, || "the server does not stop".into())?;
            std::thread::park_timeout(BETWEEN_LOOKS);
        }
        Ok(())
    }

    /// Does something to its files, for which it gets the master key, while it does not run. It is on SQLite and has the
    /// default limits.
    pub fn while_stopped(
        self,
        home: &Path,
        work: impl FnOnce(&MasterKey) -> Outcome,
    ) -> Outcome<Self> {
        let master_key = self.master_key.clone();
        self.stop()?;
        let bytes = HEXLOWER.decode(master_key.as_bytes())?;
        work(&MasterKey::from_slice(&bytes).ok_or("the master key has another length")?)?;
        Self::start_as(home, master_key, "", "")
    }

    /// Creates a tenant with a schema.
    pub fn create_tenant(&self, tenant: &str, schema: &str) -> Outcome {
        // EdDSA: an RSA key would wait for its primes.
        self.operate(&["tenant", "create", tenant, "--algorithm", "EdDSA"])?;
        let file = self.config.with_file_name(format!("{tenant}.json"));
        fs::write(&file, schema)?;
        let file = file.to_str().ok_or("a directory whose name is not UTF-8")?;
        self.operate(&["schema", "apply", "--tenant", tenant, file]).map(|_| ())
    }

    /// A token for a new device.
    pub fn token(&self, tenant: &str, grant: &str) -> Outcome<String> {
        let minted = self.operate(&["token", "--tenant", tenant, "--scope", grant, "--json"])?;
        Ok(serde_json::from_str::<MintedToken>(&minted)?.token)
    }

    /// Tokens for so many new devices.
    pub fn tokens(&self, tenant: &str, grant: &str, count: usize) -> Outcome<Vec<String>> {
        let count = count.to_string();
        let lines =
            self.operate(&["token", "--tenant", tenant, "--scope", grant, "--count", &count])?;
        Ok(lines.lines().map(str::to_owned).collect())
    }

    /// What a command of `farshore` says.
    pub fn operate(&self, arguments: &[&str]) -> Outcome<String> {
        let output = Command::new(&self.program)
            .args(arguments)
            .arg("--config")
            .arg(&self.config)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure(output.status.success(), || {
            // What it answers may be that its log says why, which is gone with the run.
            let log = fs::read_to_string(self.config.with_file_name("server.log"));
            let log = log.unwrap_or_default();
            format!("{}; {}", said.trim_end(), log.lines().next_back().unwrap_or_default())
        })?;
        Ok(String::from_utf8(output.stdout)?)
    }

    fn wait_until_ready(&mut self, log: &Path) -> Outcome {
        let started = Instant::now();
        while !self.is_ready() {
            let ended = self.process.try_wait()?;
            ensure(ended.is_none() && started.elapsed() < START_WITHIN, || {
                let log = fs::read_to_string(log).unwrap_or_default();
                format!("the server did not start: {}", log.trim_end())
            })?;
            std::thread::park_timeout(BETWEEN_LOOKS);
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// The value of one of its metrics that has no labels.
    pub fn metric(&self, name: &str) -> Outcome<f64> {
        let answer = self.get("/metrics")?;
        let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.ok_or_else(|| format!("the server has no metric {name}"))?.parse()?)
    }

    fn get(&self, path: &str) -> Outcome<String> {
        let mut stream = TcpStream::connect(self.address)?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn postgres_tables(url: &str, tables: &str) -> String {
    format!("[postgres]\nurl = {url:?}\n{tables}")
}

fn master_key() -> Outcome<String> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    Ok(key.iter().map(|byte| format!("{byte:02x}")).collect())
}

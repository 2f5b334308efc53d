//! A real `farshore` process, and its command line as an operator uses it.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use farshore_api::integrity::Digest;
use farshore_api::tokens::MintedToken;
use farshore_sync_core::ids::CollectionId;

use crate::SCHEMA;
use crate::outcome::{Outcome, ensure};

/// How long a server may take until it is ready.
const START_WITHIN: Duration = Duration::from_secs(30);
/// How long to leave the processor to others between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
/// The tenant of the stories.
pub const TENANT: &str = "demo-air";

/// What the server holds.
#[derive(Debug)]
pub struct ServerDigest {
    /// Its newest seq.
    pub seq: u64,
    /// The sum over the rows of each collection.
    pub sums: Vec<(CollectionId, u128)>,
}

/// A server process on a directory of its own; it is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    data: PathBuf,
    address: SocketAddr,
    process: Child,
}

impl Server {
    /// Writes a configuration with a free port and a fresh master key, and starts a server with it.
    ///
    /// # Errors
    /// Where the program has not been built, or does not become ready.
    pub fn start(home: &Path) -> Outcome<Self> {
        fs::create_dir_all(home)?;
        let program = program("farshore")?;
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let (config, data) = (home.join("farshore.toml"), home.join("data"));
        let text = format!(
            "[server]\nlisten = {:?}\n\n[store]\ndata_dir = {data:?}\nmaster_key_file = {:?}\n\n[log]\nlevel = \"warn\"\n",
            address.to_string(),
            write_master_key(home)?
        );
        fs::write(&config, text)?;
        let log = home.join("server.log");
        let process = spawn(&program, &config, &log)?;
        let mut server = Self { program, config, log, data, address, process };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its data is.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// SIGKILL: it gets no chance to finish anything.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.kill()?;
        self.process.wait().map(|_| ())
    }

    /// Starts it again on the same data and the same port.
    ///
    /// # Errors
    /// As for [`Server::start`].
    pub fn restart(&mut self) -> Outcome {
        self.process = spawn(&self.program, &self.config, &self.log)?;
        self.wait_until_ready()
    }

    /// `farshore tenant create`, then `farshore schema apply`.
    ///
    /// # Errors
    /// What the command says.
    pub fn create_tenant(&self) -> Outcome {
        self.operate(&["tenant", "create", TENANT])?;
        let schema = self.config.with_file_name("flights.json");
        fs::write(&schema, SCHEMA)?;
        let schema = schema.to_str().ok_or("a directory whose name is not UTF-8")?;
        self.operate(&["schema", "apply", "--tenant", TENANT, schema]).map(|_| ())
    }

    /// `farshore token`: what a device needs to sync.
    ///
    /// # Errors
    /// What the command says.
    pub fn token(&self, device_name: &str) -> Outcome<String> {
        let scope = "tenant:rw";
        let minted = self.operate(&[
            "token",
            "--tenant",
            TENANT,
            "--scope",
            scope,
            "--name",
            device_name,
            "--json",
        ])?;
        Ok(serde_json::from_str::<MintedToken>(&minted)?.token)
    }

    /// `farshore digest`: where the server stands, and the sum over the rows of each collection.
    ///
    /// # Errors
    /// What the command says.
    pub fn digest(&self) -> Outcome<ServerDigest> {
        let digest =
            self.operate(&["digest", "--tenant", TENANT, "--scope", "tenant", "--json"])?;
        let digest: Digest = serde_json::from_str(&digest)?;
        let sum = |text: &str| u128::from_str_radix(text, 16);
        let sums = digest.sums.iter().map(|entry| Ok((entry.collection, sum(&entry.sum)?)));
        Ok(ServerDigest { seq: digest.seq, sums: sums.collect::<Outcome<_>>()? })
    }

    /// `farshore scrub`: the server recomputes its sums from its rows.
    ///
    /// # Errors
    /// Where they do not match.
    pub fn scrub(&self) -> Outcome {
        self.operate(&["scrub", "--tenant", TENANT]).map(|_| ())
    }

    /// Runs the command line, which finds the server through its configuration.
    fn operate(&self, arguments: &[&str]) -> Outcome<String> {
        let output = Command::new(&self.program)
            .args(arguments)
            .arg("--config")
            .arg(&self.config)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure(output.status.success(), || said.trim_end().to_owned())?;
        Ok(String::from_utf8(output.stdout)?)
    }

    fn wait_until_ready(&mut self) -> Outcome {
        let started = Instant::now();
        while !self.is_ready() {
            if let Some(status) = self.process.try_wait()? {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!("the server ended ({status}): {}", log.trim_end()).into());
            }
            ensure(started.elapsed() < START_WITHIN, || {
                format!(
                    "the server was not ready within {START_WITHIN:?}; see {}",
                    self.log.display()
                )
            })?;
            std::thread::park_timeout(BETWEEN_LOOKS);
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// As much of HTTP as it takes to ask whether somebody is there.
    fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(START_WITHIN))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A server that has ended already is as good.
        let _ = self.kill();
    }
}

/// A program that stands beside this one, where one `cargo build` puts them all.
fn program(name: &str) -> Outcome<PathBuf> {
    let this = std::env::current_exe()?;
    let path = this.with_file_name(name).with_extension(std::env::consts::EXE_EXTENSION);
    ensure(path.is_file(), || {
        format!(
            "{} is missing; `cargo xtask demo` builds everything that is needed",
            path.display()
        )
    })?;
    Ok(path)
}

fn spawn(program: &Path, config: &Path, log: &Path) -> Outcome<Child> {
    let log = fs::File::options().create(true).append(true).open(log)?;
    let mut command = Command::new(program);
    command.arg("serve").arg("--config").arg(config);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().map_err(|error| format!("{}: {error}", program.display()).into())
}

/// As `openssl rand -hex 32` would.
fn write_master_key(home: &Path) -> Outcome<PathBuf> {
    let path = home.join("master.key");
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    let mut options = fs::File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&path)?;
    key.iter().try_for_each(|byte| write!(file, "{byte:02x}"))?;
    Ok(path)
}

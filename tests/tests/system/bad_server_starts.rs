//! A server that cannot start says in one line what is wrong and where, and ends with a failure.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use system_tests::deadline::LATER;
use system_tests::process::Process;
use system_tests::programs;
use system_tests::server::{Server, ServerOptions, free_port};

/// Somebody who is not root, to whom permissions mean something.
const NOBODY: u32 = 65_534;

/// A configuration on a directory of its own.
struct Setup {
    home: tempfile::TempDir,
    port: u16,
}

impl Setup {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("master"), "5a".repeat(32)).unwrap();
        Self { home, port: free_port() }
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    fn config(&self, more: &str) -> String {
        let (data, master, port) = (self.path("data"), self.path("master"), self.port);
        format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\n[store]\ndata_dir = \"{data}\"\nmaster_key_file = \"{master}\"\n{more}"
        )
    }

    fn serve(&self, config: &str) -> Command {
        let path = self.home.path().join("farshore.toml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new(programs::path_of(programs::SERVER));
        command.args(["serve", "--config"]).arg(path).env_remove("FARSHORE_MASTER_KEY");
        command
    }
}

/// It ends with a failure, and the last line that it says names all of this. Lines of the log may stand before it.
fn check(command: &mut Command, named: &[&str]) {
    let mut process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let status =
        process.ended_within(LATER).unwrap_or_else(|| panic!("it runs, without {named:?}"));
    let mut said = String::new();
    let stderr = process.child().stderr.as_mut().unwrap();
    std::io::Read::read_to_string(stderr, &mut said).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("farshore: ")).collect();
    assert_eq!(errors.len(), 1, "one line says what is wrong: {said}");
    assert_eq!(said.lines().last(), Some(errors[0]), "{said}");
    for name in named {
        assert!(errors[0].contains(name), "{name:?} is not in {:?}", errors[0]);
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let setup = Setup { port: address.port(), ..Setup::new() };
    let named = ["server.listen", &address.to_string(), "in use"];
    check(&mut setup.serve(&setup.config("")), &named);
}

#[test]
fn a_data_directory_that_cannot_be_one() {
    let setup = Setup::new();
    fs::write(setup.path("data"), "a file").unwrap();
    check(&mut setup.serve(&setup.config("")), &["store.data_dir", &setup.path("data")]);
}

#[test]
fn a_read_only_data_directory() {
    let setup = Setup::new();
    let data = setup.path("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, Permissions::from_mode(0o555)).unwrap();
    let mut command = setup.serve(&setup.config(""));
    if fs::metadata(&data).unwrap().uid() == 0 {
        // Root may write anywhere: the server runs as somebody else.
        fs::set_permissions(setup.home.path(), Permissions::from_mode(0o755)).unwrap();
        command.uid(NOBODY);
    }
    check(&mut command, &["store.data_dir", &data, "ermission denied"]);
}

#[test]
fn a_wrong_configuration() {
    let setup = Setup::new();
    let file = setup.path("farshore.toml");
    for (config, named) in [
        ("[server\n".to_owned(), [file.as_str(), ":1"]),
        (setup.config("[sync]\nheartbeet_ms = 1\n"), [file.as_str(), "sync.heartbeet_ms"]),
        (setup.config("[sync]\nheartbeat_ms = \"soon\"\n"), [file.as_str(), "sync.heartbeat_ms"]),
        (setup.config("[sync]\nheartbeat_ms = 0\n"), [file.as_str(), "sync.heartbeat_ms"]),
        (setup.config("[log]\nlevel = \"a=b=c\"\n"), [file.as_str(), "log.level"]),
    ] {
        check(&mut setup.serve(&config), &named);
    }
    let missing = setup.path("nowhere.toml");
    let mut command = Command::new(programs::path_of(programs::SERVER));
    check(command.args(["serve", "--config", &missing]), &[&missing]);
    let mut command = setup.serve(&setup.config(""));
    check(
        command.env("FARSHORE_SYNC__HEARTBEAT_MS", "soon"),
        &["FARSHORE_SYNC__HEARTBEAT_MS", "sync.heartbeat_ms"],
    );
}

#[test]
fn a_master_key_that_is_missing_malformed_or_another() {
    let setup = Setup::new();
    let config = setup.config("");
    let without: Vec<&str> =
        config.lines().filter(|line| !line.starts_with("master_key_file")).collect();
    check(&mut setup.serve(&without.join("\n")), &["master key"]);
    fs::write(setup.path("master"), "not a key").unwrap();
    check(&mut setup.serve(&setup.config("")), &["master key", &setup.path("master")]);

    let mut server = Server::start(ServerOptions::default());
    server.terminate();
    fs::write(server.home().join("master"), "00".repeat(32)).unwrap();
    let mut command = server.command("serve");
    check(command.arg("--config").arg(server.config_path()), &["master key"]);
    fs::write(server.home().join("master"), "5a".repeat(32)).unwrap();
    server.restart();
}

#[test]
fn a_second_server_on_the_same_directory() {
    let mut server = Server::start(ServerOptions::default());
    let config = fs::read_to_string(server.config_path()).unwrap();
    let other = server.home().join("other.toml");
    fs::write(
        &other,
        config.replace(&server.address().to_string(), &format!("127.0.0.1:{}", free_port())),
    )
    .unwrap();
    let data = server.data_dir();
    check(
        server.command("serve").arg("--config").arg(&other),
        &["store.data_dir", path(&data), "another server"],
    );
    assert!(server.is_running(), "the first one goes on");
    assert_eq!(server.get("/readyz").unwrap().0, 200);
    // A killed server leaves nothing behind that keeps the next one out.
    server.kill9();
    server.restart();
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_command_without_its_server_or_without_its_object() {
    let mut server = Server::start(ServerOptions::default());
    let fails = |server: &Server, arguments: &[&str], named: &str| {
        let finished = server.try_operate(arguments);
        assert_eq!(finished.code, Some(1), "{arguments:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
        assert!(finished.stderr.contains(named), "{arguments:?}: {}", finished.stderr);
    };
    fails(&server, &["tenant", "create", "acme"], "tenant_exists");
    fails(&server, &["token", "--tenant", "nowhere", "--scope", "tenant"], "tenant_not_found");
    fails(&server, &["schema", "apply", "--tenant", "acme", "nowhere.json"], "nowhere.json");
    fs::write(server.home().join("bad.json"), "{\"name\": \"x\"}").unwrap();
    let bad = server.home().join("bad.json");
    fails(&server, &["schema", "apply", "--tenant", "acme", path(&bad)], "schema_refused");
    let older = server.home().join("fleet.json");
    let changed =
        fs::read_to_string(&older).unwrap().replace("\"type\": \"counter\"", "\"type\": \"int\"");
    fs::write(&bad, changed.replace("\"version\": 1", "\"version\": 2")).unwrap();
    fails(&server, &["schema", "apply", "--tenant", "acme", path(&bad)], "schema_refused");
    server.kill9();
    fails(&server, &["tenant", "list"], "no server answers");
}

#[test]
fn a_server_that_is_told_to_stop_says_so_to_its_devices_and_ends_well() {
    use farshore_sync_core::wire::FaultCode;
    use system_tests::wire::{WireClient, first_hello};

    let mut server = Server::start(ServerOptions::default());
    let mut device =
        WireClient::connect(server.address(), &server.token(&["tenant"]).token).unwrap();
    device.catch_up(first_hello());
    server.terminate();
    let fault = device.expect_fault();
    assert_eq!(fault.code, FaultCode::ShuttingDown);
    assert!(fault.retry_after_ms.is_some());
}

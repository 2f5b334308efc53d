//! A `farshore-replica repl`, driven over its standard input and output: one JSON object a line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use farshore_api::tokens::MintedToken;
use farshore_sync_core::ids::DeviceId;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::deadline::{Deadline, LATER, eventually, within_deadline};
use crate::fleet::SCHEMA;
use crate::process::{Finished, Process, run};
use crate::programs;

/// A replica in a directory of its own.
#[derive(Debug)]
pub struct Replica {
    _home: Option<TempDir>,
    dir: PathBuf,
    device: DeviceId,
    running: Option<Running>,
    events: Vec<Value>,
}

#[derive(Debug)]
struct Running {
    process: Process,
    stdin: ChildStdin,
    lines: Receiver<Value>,
    last_id: u64,
    last_command: String,
}

/// An answer with `ok: false`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaError {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
}

impl Replica {
    /// Makes a replica for a device and opens it; it does not connect.
    #[must_use]
    pub fn create(url: &str, token: &MintedToken) -> Self {
        let mut replica = Self::init(url, token, SCHEMA);
        replica.open();
        replica
    }

    /// Makes a replica with a schema of its own; it is not opened.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn init(url: &str, token: &MintedToken, schema: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("replica");
        let schema_file = home.path().join("schema.json");
        std::fs::write(&schema_file, schema).unwrap();
        let mut command = Self::command("init", &dir);
        command.args(["--server", url, "--token", &token.token]).arg("--schema").arg(schema_file);
        let finished = run(&mut command);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        Self { _home: Some(home), dir, device: token.device, running: None, events: Vec::new() }
    }

    /// A replica in a directory that is there already; it is not opened.
    #[must_use]
    pub const fn at(dir: PathBuf, device: DeviceId) -> Self {
        Self { _home: None, dir, device, running: None, events: Vec::new() }
    }

    /// A command of `farshore-replica` on a directory.
    #[must_use]
    pub fn command(name: &str, dir: &Path) -> Command {
        let mut command = Command::new(programs::path_of(programs::REPLICA));
        command.arg(name).arg("--dir").arg(dir);
        command
    }

    /// Runs a command on this replica, which must not be open.
    #[must_use]
    pub fn run(&self, name: &str, arguments: &[&str]) -> Finished {
        run(Self::command(name, &self.dir).args(arguments))
    }

    /// Opens it.
    ///
    /// # Panics
    /// Where it is open, or does not answer.
    pub fn open(&mut self) {
        assert!(self.running.is_none(), "the replica is open already");
        let mut command = Self::command("repl", &self.dir);
        let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let stdin = process.child().stdin.take().expect("it was asked for");
        let stdout = process.child().stdout.take().expect("it was asked for");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let parsed =
                    serde_json::from_str(&line).unwrap_or_else(|_| json!({ "garbage": line }));
                if sender.send(parsed).is_err() {
                    return;
                }
            }
        });
        self.running =
            Some(Running { process, stdin, lines, last_id: 0, last_command: String::new() });
        self.status();
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// Where it is not open.
    pub fn kill9(&mut self) {
        self.running.take().expect("the replica is open").process.kill9();
    }

    /// SIGSTOP: it stands still until [`Replica::thaw`].
    ///
    /// # Panics
    /// Where it is not open.
    pub fn freeze(&self) {
        self.running.as_ref().expect("the replica is open").process.freeze();
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// Where it is not open.
    pub fn thaw(&self) {
        self.running.as_ref().expect("the replica is open").process.thaw();
    }

    /// Ends its input, and waits for its end.
    ///
    /// # Panics
    /// Where it does not end.
    pub fn close(&mut self) {
        let Running { mut process, stdin, .. } = self.running.take().expect("the replica is open");
        drop(stdin);
        let status = process.ended_within(LATER).expect("the replica ends with its input");
        assert!(status.success(), "{status}");
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Which device it is.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.device
    }

    /// Sends a command without waiting for its answer; the answer's id comes back.
    ///
    /// # Panics
    /// Where the replica is gone.
    pub fn send(&mut self, mut command: Value) -> u64 {
        let running = self.running.as_mut().expect("the replica is open");
        running.last_id += 1;
        command["id"] = running.last_id.into();
        running.last_command = command.to_string();
        writeln!(running.stdin, "{}", running.last_command).expect("the replica reads");
        running.last_id
    }

    /// Waits for the answer to a command; events that come meanwhile are kept. `None` where the replica is gone.
    ///
    /// # Panics
    /// At the deadline, or where something else than an answer comes.
    pub fn answer(&mut self, id: u64) -> Option<Result<Value, ReplicaError>> {
        // Longer than a `wait` of ours takes to say that it was in vain.
        let deadline = Deadline::after(2 * LATER);
        let running = self.running.as_mut().expect("the replica is open");
        loop {
            match running.lines.recv_timeout(deadline.left()) {
                Ok(line) if line.get("event").is_some() => self.events.push(line),
                Ok(line) if line["id"] == id => return Some(result(line)),
                Ok(line) => panic!("an answer to {id} was expected, not {line}"),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no answer to {id}; the last command was {}", running.last_command)
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// What the replica said.
    ///
    /// # Panics
    /// Where it does not answer.
    pub fn try_call(&mut self, command: Value) -> Result<Value, ReplicaError> {
        let id = self.send(command);
        self.answer(id).expect("the replica answers")
    }

    /// Sends a command that has to succeed.
    ///
    /// # Panics
    /// Where it does not.
    pub fn call(&mut self, command: Value) -> Value {
        let shown = command.to_string();
        self.try_call(command)
            .unwrap_or_else(|error| panic!("{shown}: {}: {}", error.code, error.message))
    }

    /// Commits one transaction; the result of each step comes back.
    ///
    /// # Panics
    /// Where it fails.
    pub fn transact(&mut self, steps: Value) -> Vec<Value> {
        let answer = self.call(json!({"op": "txn", "do": steps}));
        answer["results"].as_array().expect("a transaction has results").clone()
    }

    /// Inserts a row in a transaction of its own; its id comes back.
    ///
    /// # Panics
    /// Where it fails.
    pub fn insert(&mut self, collection: &str, columns: Value) -> String {
        let results = self.transact(json!([["put", collection, columns]]));
        row_id(&results[0])
    }

    /// The rows of a query.
    ///
    /// # Panics
    /// Where it fails.
    pub fn query(&mut self, sql: &str) -> Vec<Value> {
        let answer = self.call(json!({"op": "query", "sql": sql, "args": []}));
        answer["rows"].as_array().expect("a query has rows").clone()
    }

    /// The only value of the only row of a query.
    ///
    /// # Panics
    /// Where there is another number of them.
    pub fn value(&mut self, sql: &str) -> Value {
        let rows = self.query(sql);
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        first_column(&rows[0])
    }

    /// The first column of every row of a query.
    ///
    /// # Panics
    /// Where it fails.
    pub fn column(&mut self, sql: &str) -> Vec<Value> {
        self.query(sql).iter().map(first_column).collect()
    }

    /// A number out of a query.
    ///
    /// # Panics
    /// Where it is none.
    pub fn number(&mut self, sql: &str) -> i64 {
        let value = self.value(sql);
        value.as_i64().unwrap_or_else(|| panic!("{sql}: {value}"))
    }

    /// Wants a connection.
    pub fn connect(&mut self) {
        self.call(json!({"op": "connect"}));
    }

    /// Wants none.
    pub fn disconnect(&mut self) {
        self.call(json!({"op": "disconnect"}));
    }

    /// Where it stands.
    pub fn status(&mut self) -> Value {
        self.call(json!({"op": "status"}))["status"].clone()
    }

    /// What has not synced.
    ///
    /// # Panics
    /// Where the answer has another shape.
    pub fn outbox(&mut self) -> Vec<Value> {
        self.call(json!({"op": "outbox"}))["outbox"].as_array().expect("a list").clone()
    }

    /// What was refused.
    ///
    /// # Panics
    /// Where the answer has another shape.
    pub fn quarantine(&mut self) -> Vec<Value> {
        self.call(json!({"op": "quarantine"}))["quarantine"].as_array().expect("a list").clone()
    }

    /// The sums of what the server has confirmed.
    pub fn digest(&mut self) -> Value {
        self.call(json!({"op": "digest"}))["digests"].clone()
    }

    /// Waits for `synced`, `caught_up` or `connected`.
    pub fn wait_for(&mut self, goal: &str) {
        self.wait_for_within(goal, LATER / 2);
    }

    /// Waits for `synced`, `caught_up` or `connected`.
    pub fn wait_for_within(&mut self, goal: &str, within: Duration) {
        let timeout_ms = u64::try_from(within.as_millis()).expect("tests do not wait for ages");
        self.call(json!({"op": "wait", "for": goal, "timeout_ms": timeout_ms}));
    }

    /// Connects, and waits until everything is up and down.
    pub fn sync(&mut self) {
        self.connect();
        self.wait_for("synced");
        self.wait_for("caught_up");
    }

    /// Waits for a status.
    pub fn wait_for_status(&mut self, what: &str, met: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_status_within(what, LATER, met)
    }

    /// Waits for a status.
    pub fn wait_for_status_within(
        &mut self,
        what: &str,
        within: Duration,
        met: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        let met = within_deadline(within, || {
            last = self.status();
            met(&last).then_some(())
        });
        assert!(met.is_some(), "not within {within:?}: {what}; the status is {last}");
        last
    }

    /// Waits until a query that counts says so.
    pub fn wait_for_number(&mut self, sql: &str, expected: i64) {
        eventually(&format!("{expected} from {sql}"), LATER, || {
            (self.number(sql) == expected).then_some(())
        });
    }
}

fn first_column(row: &Value) -> Value {
    let cells = row.as_object().expect("a row is an object");
    cells.values().next().expect("a column").clone()
}

/// A condition on the id of a row, as SQL.
#[must_use]
pub fn is_row(id: &str) -> String {
    format!("id = x'{}'", id.replace('-', ""))
}

/// The id of a row that a step made.
///
/// # Panics
/// Where the result holds none.
#[must_use]
pub fn row_id(result: &Value) -> String {
    let id = result.as_str().or_else(|| result.get("id").and_then(Value::as_str));
    id.unwrap_or_else(|| panic!("{result} holds no row id")).to_owned()
}

fn result(line: Value) -> Result<Value, ReplicaError> {
    if line["ok"] == true {
        return Ok(line);
    }
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    Err(ReplicaError { code: text("code"), message: text("message") })
}

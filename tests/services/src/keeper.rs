//! A service beside us that ends when we do, however that happens.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use crate::ServiceError;

/// Whom services run as where we are root, which some refuse: the first that the system has.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];
/// Waits for the end of its input, which comes when whoever started it ends, and ends the service then.
const KEEPER: &str = r#"
trap '' INT TERM HUP
signal=$1
folder=$2
shift 2
"$@" >"$folder/log" 2>&1 &
service=$!
read -r _
kill "-$signal" "$service"
wait "$service"
rm -rf "$folder"
"#;

/// A service with its folder. Dropping it ends the service.
pub struct Keeper {
    child: Child,
    /// Closing it ends the service; the system does that where we are killed.
    input: Option<ChildStdin>,
    folder: Folder,
}

impl Keeper {
    /// Starts a service, which is told by this signal to end at once.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn start(
        folder: Folder,
        end_signal: &str,
        program: &Path,
        arguments: &[&OsStr],
    ) -> Result<Self, ServiceError> {
        let mut keeper = folder.command("sh");
        keeper.args(["-c", KEEPER, "keeper", end_signal]).arg(&folder.path);
        keeper.arg(program).args(arguments);
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // The keys that end a test program in a terminal must not reach the keeper before it has cleaned up.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut keeper, 0);
        let mut child = keeper.spawn().map_err(|error| failed("start a service", error))?;
        let input = child.stdin.take();
        Ok(Self { child, input, folder })
    }

    /// A program that runs as the service does.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.folder.command(program)
    }

    /// The service's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// What the service said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path.join("log")).unwrap_or_default()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.input.take();
        // It removes the folder, too; what is left where it could not, goes with the folder's own end.
        let _ = self.child.wait();
    }
}

/// A folder of a service, gone when this is dropped, and whom the service runs as.
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    user: Option<User>,
}

/// A user of the system.
struct User {
    name: String,
    group: String,
}

impl Folder {
    /// A folder that belongs to whom services run as.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn new(service: &str) -> Result<Self, ServiceError> {
        let path = std::env::temp_dir().join(format!("farshore-{service}-{}", random_hex()?));
        fs::create_dir(&path).map_err(|error| failed("make a directory", error))?;
        let folder = Self { path, user: unprivileged_user() };
        if let Some(user) = &folder.user {
            let mut chown = Command::new("chown");
            chown.arg(&user.name).arg(&folder.path);
            run(&mut chown, "give a directory to a service's user")?;
        }
        Ok(folder)
    }

    /// A program that runs as services do.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.user {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.arg("--reuid").arg(&user.name).arg("--regid").arg(&user.group);
                command.arg("--clear-groups").arg(program);
                command
            }
            None => Command::new(program),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Whom to run services as; `None` as ourselves, unless we are root.
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

/// Runs a program to its end; what it printed.
///
/// # Errors
/// What it said where it failed.
pub fn run(command: &mut Command, operation: &'static str) -> Result<String, ServiceError> {
    said(operation, &command.output().map_err(|error| failed(operation, error))?)
}

/// What a program that ran to its end printed.
///
/// # Errors
/// What it said where it failed.
pub fn said(operation: &'static str, output: &Output) -> Result<String, ServiceError> {
    if !output.status.success() {
        return Err(failed(operation, String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The error of an operation.
pub fn failed(operation: &'static str, problem: impl ToString) -> ServiceError {
    ServiceError::Failed { operation, problem: problem.to_string() }
}

/// A port that nobody listens on just now.
///
/// # Errors
/// Where there is none.
pub fn free_port() -> Result<u16, ServiceError> {
    let listener = TcpListener::bind("127.0.0.1:0");
    let port = listener.and_then(|listener| listener.local_addr()).map(|address| address.port());
    port.map_err(|error| failed("find a port", error))
}

/// What nobody guesses.
///
/// # Errors
/// Where the system has no randomness to give.
pub fn random_hex() -> Result<String, ServiceError> {
    let mut bytes = [0; 12];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| failed("find a password", error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

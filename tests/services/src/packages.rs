//! Where the system keeps the programs of services.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Where packages put the programs of each Postgres, `*` being its version: Debian and Ubuntu, Fedora, macOS.
const POSTGRES_FOLDERS: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr", "bin"),
    ("/opt/homebrew/opt", "bin"),
    ("/usr/local/opt", "bin"),
];
/// The names of a version's folder that are not the version alone.
const VERSION_PREFIXES: [&str; 3] = ["postgresql@", "pgsql-", ""];
/// The oldest line that the store works with.
const OLDEST_POSTGRES: u32 = 15;

/// How the packages are called on Debian and Ubuntu.
pub const APT_PACKAGES: [&str; 3] = ["postgresql", "pgbouncer", "nats-server"];
/// How to install them, for whoever has to.
pub const INSTALL_HINT: &str = "tests need Postgres 15 or newer, PgBouncer and a NATS server: \
    sudo apt-get install -y postgresql pgbouncer nats-server \
    (or dnf install postgresql-server pgbouncer nats-server, brew install postgresql@17 pgbouncer nats-server)";
/// Where packages put PgBouncer and NATS; the folders for superusers are not on everybody's path.
const PROGRAM_FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/opt/homebrew/bin", "/usr/local/bin"];

/// Whether everything is installed.
#[must_use]
pub fn are_installed() -> bool {
    postgres_programs().is_some() && pgbouncer_program().is_some() && nats_program().is_some()
}

/// PgBouncer.
#[must_use]
pub fn pgbouncer_program() -> Option<PathBuf> {
    program("pgbouncer")
}

/// The NATS server.
#[must_use]
pub fn nats_program() -> Option<PathBuf> {
    program("nats-server")
}

fn program(name: &str) -> Option<PathBuf> {
    let folders = PROGRAM_FOLDERS.iter().map(PathBuf::from).chain(on_path());
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// The folder with the programs of the newest Postgres here.
#[must_use]
pub fn postgres_programs() -> Option<PathBuf> {
    let versioned = POSTGRES_FOLDERS.iter().flat_map(|(folder, programs)| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(move |entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = VERSION_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
            let version: u32 = version.parse().ok().filter(|line| *line >= OLDEST_POSTGRES)?;
            Some((version, entry.path().join(programs)))
        })
    });
    let newest = versioned.filter(|(_, programs)| is_postgres(programs)).max();
    newest.map(|(_, programs)| programs).or_else(|| on_path().find(|folder| is_postgres(folder)))
}

fn is_postgres(folder: &Path) -> bool {
    ["initdb", "postgres", "psql"].iter().all(|program| folder.join(program).is_file())
}

fn on_path() -> impl Iterator<Item = PathBuf> {
    let path = variable("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

/// A variable of the environment, where it is set and not empty.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment of a test program"
)]
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

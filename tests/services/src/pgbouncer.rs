//! A pooler in front of a database, in transaction mode: what one client sets in a session, another one gets.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::keeper::{Folder, Keeper, failed, free_port};
use crate::postgres::{Database, Place};
use crate::{ServiceError, packages};

/// Looks for a pooler that has just been started.
const READY_LOOKS: u32 = 600;
/// Time between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// A pooler.
pub struct PgBouncer {
    keeper: Keeper,
    url: String,
}

impl PgBouncer {
    /// A pooler that has this many connections to a database, for any number of clients.
    ///
    /// # Errors
    /// Where it is not installed, or does not start.
    pub fn start(database: &Database<'_>, pool_size: u32) -> Result<Self, ServiceError> {
        let program = packages::pgbouncer_program().ok_or(ServiceError::Missing)?;
        let Place { host, port, database: name, user, password } = database.place();
        let folder = Folder::new("pgbouncer")?;
        let listen_port = free_port()?;
        let settings = folder.path.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n\
             {name} = host={host} port={port} dbname={name} user={user} password={password}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {listen_port}\n\
             unix_socket_dir =\n\
             auth_type = any\n\
             pool_mode = transaction\n\
             default_pool_size = {pool_size}\n\
             max_client_conn = 400\n"
        );
        fs::write(&settings, text).map_err(|error| failed("configure PgBouncer", error))?;
        let keeper = Keeper::start(folder, "TERM", &program, &[settings.as_ref() as &OsStr])?;
        let url = format!("postgres://{user}@127.0.0.1:{listen_port}/{name}");
        let pooler = Self { keeper, url };
        for _ in 0..READY_LOOKS {
            if TcpStream::connect(("127.0.0.1", listen_port)).is_ok() {
                return Ok(pooler);
            }
            thread::park_timeout(BETWEEN_LOOKS);
        }
        Err(failed("start PgBouncer", pooler.keeper.log()))
    }

    /// The database behind it, as the role that owns that.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl fmt::Debug for PgBouncer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PgBouncer")
    }
}

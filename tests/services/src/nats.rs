//! A NATS server: the bus between the nodes of a platform.

use std::ffi::OsStr;
use std::fmt;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::keeper::{Folder, Keeper, failed, free_port};
use crate::{ServiceError, packages};

/// Looks for a server that has just been started.
const READY_LOOKS: u32 = 600;
/// Time between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// A server on a port of its own, which it finds again after it was ended.
pub struct Nats {
    port: u16,
    keeper: Option<Keeper>,
}

impl Nats {
    /// A server.
    ///
    /// # Errors
    /// Where it is not installed, or does not start.
    pub fn start() -> Result<Self, ServiceError> {
        let mut server = Self { port: free_port()?, keeper: None };
        server.restart()?;
        Ok(server)
    }

    /// Starts it again after [`Nats::kill`].
    ///
    /// # Errors
    /// Where it does not start.
    pub fn restart(&mut self) -> Result<(), ServiceError> {
        let program = packages::nats_program().ok_or(ServiceError::Missing)?;
        let port = self.port.to_string();
        let arguments = ["--addr", "127.0.0.1", "--port", &port].map(AsRef::<OsStr>::as_ref);
        let keeper = Keeper::start(Folder::new("nats")?, "KILL", &program, &arguments)?;
        for _ in 0..READY_LOOKS {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                self.keeper = Some(keeper);
                return Ok(());
            }
            thread::park_timeout(BETWEEN_LOOKS);
        }
        Err(failed("start NATS", keeper.log()))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.keeper.take();
    }

    /// The port on which it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("port", &self.port).finish_non_exhaustive()
    }
}

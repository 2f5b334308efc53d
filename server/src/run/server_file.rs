//! `server.json` in the data directory: how the command line finds the server that runs on it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::whole_file;

/// The file's name in the data directory.
pub const SERVER_FILE: &str = "server.json";

/// Why the file could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct ServerFileError {
    path: PathBuf,
    source: io::Error,
}

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningServer {
    /// Where the server is reached from its own machine.
    pub url: String,
    /// Its process.
    pub pid: u32,
}

/// The file of a running server.
#[derive(Debug)]
pub struct ServerFile(PathBuf);

impl ServerFile {
    /// Says where this process listens.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(data_dir: &Path, address: SocketAddr) -> Result<Self, ServerFileError> {
        let path = data_dir.join(SERVER_FILE);
        let running = RunningServer { url: local_url(address), pid: std::process::id() };
        let text = serde_json::to_string(&running).expect("plain fields");
        whole_file::write(&path, text.as_bytes())
            .map_err(|source| ServerFileError { path: path.clone(), source })?;
        Ok(Self(path))
    }

    /// Takes the file away: nobody listens any more. What cannot be removed is only out of date.
    pub fn remove(self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "could not be removed");
        }
    }
}

/// The server that runs on a data directory, or ran and was killed; `None` where none says so.
///
/// # Errors
/// Where the file is there and cannot be read.
pub fn read(data_dir: &Path) -> Result<Option<RunningServer>, ServerFileError> {
    let path = data_dir.join(SERVER_FILE);
    match fs::read(&path) {
        Ok(bytes) => {
            let running = serde_json::from_slice(&bytes).map_err(io::Error::from);
            running.map(Some).map_err(|source| ServerFileError { path, source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ServerFileError { path, source }),
    }
}

/// The URL of an address as seen from this machine: one that means all addresses is reached at the loopback.
#[must_use]
pub fn local_url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_all_addresses_is_the_loopback() {
        for (address, url) in [
            ("0.0.0.0:7400", "http://127.0.0.1:7400"),
            ("[::]:1", "http://[::1]:1"),
            ("192.0.2.1:80", "http://192.0.2.1:80"),
        ] {
            assert_eq!(local_url(address.parse().unwrap()), url);
        }
    }
}

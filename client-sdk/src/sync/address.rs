//! Where the server is: the URL that an app gives, turned into the address of the sync socket.

use std::fmt;

use farshore_api::SYNC_PATH;
use tokio_tungstenite::tungstenite::http::Uri;

/// Longest server URL, in bytes.
pub const MAX_SERVER_URL_BYTES: usize = 2_048;

/// The address of a server's sync socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    socket: Uri,
}

/// Text that is no server URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is no server URL: {rule}")]
pub struct InvalidAddress {
    url: String,
    rule: &'static str,
}

impl ServerAddress {
    /// Reads a URL such as `https://sync.example.com` or `ws://10.0.0.7:7600`; `http` and `ws` mean the same here,
    /// as do `https` and `wss`. A path is the prefix under which a proxy serves the server.
    ///
    /// # Errors
    /// Says what such a URL looks like.
    pub fn parse(url: &str) -> Result<Self, InvalidAddress> {
        let invalid = |rule| InvalidAddress { url: url.chars().take(120).collect(), rule };
        if url.len() > MAX_SERVER_URL_BYTES {
            return Err(invalid("it is too long"));
        }
        let uri: Uri = url.trim().parse().map_err(|_| invalid("it cannot be read"))?;
        let scheme = match uri.scheme_str() {
            Some("ws" | "http") => "ws",
            Some("wss" | "https") => "wss",
            _ => return Err(invalid("it begins with https://, http://, wss:// or ws://")),
        };
        let authority = uri.authority().ok_or_else(|| invalid("it names no host"))?;
        if authority.host().is_empty() {
            return Err(invalid("it names no host"));
        }
        if authority.as_str().contains('@') {
            return Err(invalid("the access token stands beside it, not in it"));
        }
        if uri.query().is_some() {
            return Err(invalid("it has no query"));
        }
        let prefix = uri.path().trim_end_matches('/').trim_end_matches(SYNC_PATH);
        let socket = format!("{scheme}://{authority}{prefix}{SYNC_PATH}");
        Ok(Self { socket: socket.parse().map_err(|_| invalid("it cannot be read"))? })
    }

    /// The address of the sync socket.
    pub(crate) const fn socket(&self) -> &Uri {
        &self.socket
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_url_becomes_the_address_of_its_sync_socket() {
        for (url, socket) in [
            ("https://sync.example.com", "wss://sync.example.com/v1/sync"),
            ("http://127.0.0.1:7600/", "ws://127.0.0.1:7600/v1/sync"),
            ("ws://[::1]:7600", "ws://[::1]:7600/v1/sync"),
            ("wss://example.com/farshore/", "wss://example.com/farshore/v1/sync"),
            ("wss://example.com/v1/sync", "wss://example.com/v1/sync"),
        ] {
            assert_eq!(ServerAddress::parse(url).unwrap().to_string(), socket);
        }
    }

    #[test]
    fn what_is_no_server_url_says_so() {
        for url in
            ["", "example.com", "ftp://a", "http://", "http://a b", "http://u:p@a", "http://a/?b=1"]
        {
            let error = ServerAddress::parse(url).unwrap_err().to_string();
            assert!(error.contains("is no server URL"), "{error}");
        }
    }
}

//! Where the bus is, and how often nodes look for themselves.

use std::fmt;
use std::str::FromStr;

use async_nats::ServerAddr;
use farshore_sync_core::ids::TenantId;

/// Most servers of a bus that are named.
const MAX_SERVERS: usize = 16;

/// The bus.
#[derive(Debug, Clone)]
pub struct BusConfig {
    /// Its servers.
    pub url: BusUrl,
    /// What the subject of every notice begins with: platforms that share a bus have different ones.
    pub subject_prefix: String,
    /// How often a node looks at each tenant that it serves while the bus is down.
    pub poll_interval_ms: u64,
    /// The same while the bus is up.
    pub check_interval_ms: u64,
}

impl BusConfig {
    pub(super) fn subject(&self, tenant: &TenantId) -> String {
        format!("{}.{tenant}", self.subject_prefix)
    }
}

/// Servers of a bus. A password in there never shows.
#[derive(Clone, PartialEq, Eq)]
pub struct BusUrl(Vec<ServerAddr>);

/// Why a text names no bus. None of them repeats the text, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BusUrlError {
    /// It begins with something else.
    #[error("each server is nats://HOST:PORT or tls://HOST:PORT, separated by commas")]
    Malformed,
    /// More than there may be.
    #[error("more than {MAX_SERVERS} servers")]
    TooMany,
}

impl BusUrl {
    pub(super) fn addresses(&self) -> Vec<ServerAddr> {
        self.0.clone()
    }
}

impl FromStr for BusUrl {
    type Err = BusUrlError;

    fn from_str(text: &str) -> Result<Self, BusUrlError> {
        let address = |text: &str| {
            let known = text.starts_with("nats://") || text.starts_with("tls://");
            let address = known.then(|| text.parse::<ServerAddr>().ok()).flatten();
            address.filter(|address| !address.host().is_empty()).ok_or(BusUrlError::Malformed)
        };
        let addresses: Vec<_> = text.split(',').map(address).collect::<Result<_, _>>()?;
        if addresses.len() > MAX_SERVERS {
            return Err(BusUrlError::TooMany);
        }
        Ok(Self(addresses))
    }
}

impl fmt::Debug for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.0.iter().map(|address| (address.host().to_owned(), address.port()));
        f.debug_list().entries(servers).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_passwords_do_not_show() {
        let url: BusUrl = "nats://user:hunter2@one:4222,tls://two".parse().unwrap();
        assert_eq!(format!("{url:?}"), r#"[("one", 4222), ("two", 4222)]"#);
        assert_eq!(url.addresses()[0].password(), Some("hunter2"));
    }

    #[test]
    fn what_is_no_server_is_refused_without_being_repeated() {
        for text in
            ["", "one:4222", "http://one", "nats://", "nats://a,,nats://b", "nats://a:99999"]
        {
            assert_eq!(text.parse::<BusUrl>().unwrap_err(), BusUrlError::Malformed, "{text}");
        }
        let many = vec!["nats://a"; MAX_SERVERS + 1].join(",");
        assert_eq!(many.parse::<BusUrl>().unwrap_err(), BusUrlError::TooMany);
    }
}

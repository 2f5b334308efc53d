//! Whether the server can serve.

use super::App;
use super::error::AccessError;
use crate::bus::BusStanding;

/// Why the server is not ready.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// It is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// Its store does not answer.
    #[error(transparent)]
    Store(#[from] AccessError),
}

/// Asks the store for the names of the tenants; tells how the bus stands, without which the server serves more slowly.
///
/// # Errors
/// See [`NotReady`].
pub async fn ready(app: &App) -> Result<BusStanding, NotReady> {
    if app.connections().is_closing() {
        return Err(NotReady::ShuttingDown);
    }
    app.catalog().tenants().await.map_err(AccessError::from)?;
    Ok(app.bus().standing())
}

/// Brings the figures of the pools of connections up to date.
pub fn count_pools(app: &App) {
    if let Some(catalog) = app.placement() {
        let pools = catalog.pools().into_iter();
        let figures =
            pools.map(|(place, pool)| (place.to_string(), [pool.open, pool.idle, pool.limit]));
        app.metrics().pools(figures);
    }
}

//! Being told to stop.

use std::io;

/// Waits until the process is told to stop: by SIGTERM or SIGINT, by Ctrl-C elsewhere.
///
/// # Errors
/// Where the system lets nobody listen for that.
#[cfg(unix)]
pub async fn told_to_stop() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Waits until the process is told to stop: by SIGTERM or SIGINT, by Ctrl-C elsewhere.
///
/// # Errors
/// Where the system lets nobody listen for that.
#[cfg(not(unix))]
pub async fn told_to_stop() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}

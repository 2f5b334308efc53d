//! The socket of devices: `GET /v1/sync`.

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::Response;
use farshore_sync_core::wire::SUBPROTOCOL;
use farshore_sync_core::wire::limits::MAX_MESSAGE_BYTES;
use futures_util::FutureExt as _;

use super::error::HttpError;
use crate::app::{App, connections};
use crate::auth::DevicePrincipal;

/// What a socket reads at a time, in bytes. The library's default of 128 KiB is allocated for each socket at once.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// What a socket gathers before it writes, in bytes.
const WRITE_BUFFER_BYTES: usize = 16 << 10;
/// What a socket holds at most beyond what a session lets wait, in bytes: one message of ours. The library's default
/// is no limit.
const WRITE_BUFFER_SLACK_BYTES: usize = WRITE_BUFFER_BYTES + MAX_MESSAGE_BYTES;

/// A handshake for the sync protocol.
pub struct SyncHandshake(WebSocketUpgrade);

impl FromRequestParts<App> for SyncHandshake {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let upgrade = WebSocketUpgrade::from_request_parts(parts, app).await;
        let upgrade = upgrade.map_err(|_| HttpError::upgrade_required())?.protocols([SUBPROTOCOL]);
        if upgrade.selected_protocol().is_none() {
            return Err(HttpError::upgrade_required());
        }
        let upgrade = upgrade
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(app.config().sync.session_queue_bytes + WRITE_BUFFER_SLACK_BYTES)
            .max_message_size(MAX_MESSAGE_BYTES)
            .max_frame_size(MAX_MESSAGE_BYTES);
        Ok(Self(upgrade))
    }
}

/// Lets a device in. No browser can open this socket on its user's behalf: the token is in a header that pages
/// cannot set, so there is no origin to check.
pub async fn connect(
    State(app): State<App>,
    principal: DevicePrincipal,
    SyncHandshake(upgrade): SyncHandshake,
) -> Result<Response, HttpError> {
    let admission = connections::admit(&app, &principal)?;
    Ok(upgrade
        .on_upgrade(move |socket| app.sync().run(principal, socket).map(|()| drop(admission))))
}

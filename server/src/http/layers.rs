//! What holds for every request: a deadline, a log line, a count, and a panic that stays inside.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use tokio::time::timeout;

use super::error::HttpError;
use super::{ARCHIVE, MOVE};
use crate::app::App;

/// Where a path matches no route.
const NO_ROUTE: &str = "none";

/// Longest time that a copy of a tenant may take to come, to be verified and to be put in place.
const MAX_COPY_TIME: Duration = Duration::from_secs(24 * 3_600);

/// Answers within the deadline, whatever the handler does. Nothing of a request is logged or counted but its method
/// and its route: paths, queries, headers and bodies can hold what is nobody's business.
pub async fn guarded(State(app): State<App>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let deadline = match route {
        ARCHIVE | MOVE => MAX_COPY_TIME,
        _ => Duration::from_millis(app.config().server.request_timeout_ms),
    };
    let started_at_ms = app.now_ms();

    let handled = AssertUnwindSafe(timeout(deadline, next.run(request))).catch_unwind().await;
    let response = match handled {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => HttpError::timeout().into_response(),
        Err(_) => HttpError::panicked().into_response(),
    };

    let status = response.status().as_u16();
    let took_ms = app.now_ms().saturating_sub(started_at_ms);
    tracing::debug!(%method, route, status, took_ms, "request");
    app.metrics().http_request(route, status);
    response
}

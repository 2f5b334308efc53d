//! `GET /metrics`: counters for Prometheus. They name no tenant, so they need no token.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::app::{App, health};
use crate::telemetry::metrics::METRICS_CONTENT_TYPE;

pub async fn show(State(app): State<App>) -> impl IntoResponse {
    health::count_pools(&app);
    ([(CONTENT_TYPE, METRICS_CONTENT_TYPE)], app.metrics().text())
}

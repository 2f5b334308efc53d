//! `GET /healthz`: the process answers. `GET /readyz`: it can serve.

use axum::Json;
use axum::extract::State;
use farshore_api::health::Health;

use super::error::HttpError;
use crate::app::{App, health};

pub async fn alive() -> Json<Health> {
    Json(ok())
}

pub async fn ready(State(app): State<App>) -> Result<Json<Health>, HttpError> {
    health::ready(&app).await?;
    Ok(Json(ok()))
}

fn ok() -> Health {
    Health { status: "ok".to_owned(), version: crate::VERSION.to_owned() }
}

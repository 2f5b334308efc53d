//! `GET /healthz`: the process answers. `GET /readyz`: it can serve.

use axum::Json;
use axum::extract::State;
use farshore_api::health::{BusHealth, Health};

use super::error::HttpError;
use crate::app::{App, health};
use crate::bus::BusStanding;

pub async fn alive() -> Json<Health> {
    Json(ok(None))
}

pub async fn ready(State(app): State<App>) -> Result<Json<Health>, HttpError> {
    let bus = match health::ready(&app).await? {
        BusStanding::Alone => None,
        BusStanding::Up => Some(BusHealth::Up),
        BusStanding::Down => Some(BusHealth::Polling),
    };
    Ok(Json(ok(bus)))
}

fn ok(bus: Option<BusHealth>) -> Health {
    Health { status: "ok".to_owned(), version: crate::VERSION.to_owned(), bus }
}

//! `GET /t/{tenant}/.well-known/jwks.json`: the keys that verify a tenant's tokens.

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;

use super::error::HttpError;
use super::extract::AddressedTenant;
use crate::app::{App, keys};
use crate::auth::AuthError;

/// A verifier may keep the set this long: a new key signs at once, and a verifier that does not know it asks again.
const CACHE: &str = "public, max-age=300";

pub async fn show(
    State(app): State<App>,
    AddressedTenant(tenant): AddressedTenant,
) -> Result<impl IntoResponse, HttpError> {
    let keys = keys::key_set(&app, &tenant).await.map_err(|error| match error {
        AuthError::UnknownKey => HttpError::not_found(),
        error => error.into(),
    })?;
    Ok(([(CACHE_CONTROL, CACHE)], Json(serde_json::json!({ "keys": keys }))))
}

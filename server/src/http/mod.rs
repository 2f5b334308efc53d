//! HTTP: one file per resource. A handler extracts, calls one function of `app`, and converts.
//!
//! - [`sync`]: the socket of devices.
//! - [`tenants`], [`devices`], [`tokens`], [`keys`], [`schemas`], [`integrity`], [`archives`], [`clusters`]: what operators do.
//! - [`key_sets`], [`health`], [`metrics`]: what needs no token.
//! - [`extract`]: principals, paths and bodies out of requests.
//! - [`error`]: errors as problem documents; the only place that maps them.
//! - [`layers`]: what holds for every request: a deadline, a log line, a count, no panic.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, post, put};

use crate::app::App;

pub mod error;
pub mod extract;
pub mod layers;

mod archives;
mod clusters;
mod devices;
mod health;
mod integrity;
mod key_sets;
mod keys;
mod metrics;
mod schemas;
mod sync;
mod tenants;
mod tokens;

/// Where archives come and go, for as long as that takes.
const ARCHIVE: &str = "/v1/admin/tenants/{tenant}/archive";
/// Where tenants are moved, for as long as that takes.
const MOVE: &str = "/v1/admin/tenants/{tenant}/move";

type Route = (&'static str, MethodRouter<App>);

/// The whole surface of the server.
pub fn router(app: App) -> Router {
    let routes = [token_less(), for_devices(), for_operators()].into_iter().flatten();
    routes
        .fold(Router::new(), |router, (path, methods)| router.route(path, methods))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(app.config().server.max_body_bytes))
        .layer(from_fn_with_state(app.clone(), layers::guarded))
        .with_state(app)
}

/// All that may be called without a token: no handler here takes a principal, and no handler elsewhere lacks one.
fn token_less() -> Vec<Route> {
    vec![
        ("/healthz", get(health::alive)),
        ("/readyz", get(health::ready)),
        ("/metrics", get(metrics::show)),
        ("/t/{tenant}/.well-known/jwks.json", get(key_sets::show)),
    ]
}

/// What a device's token opens.
fn for_devices() -> Vec<Route> {
    vec![("/v1/sync", get(sync::connect)), ("/t/{tenant}/v1/sync", get(sync::connect))]
}

/// What an operator's token opens.
fn for_operators() -> Vec<Route> {
    vec![
        ("/v1/admin/tenants", get(tenants::list).post(tenants::create)),
        ("/v1/admin/tenants/{tenant}", delete(tenants::erase)),
        ("/v1/admin/tenants/{tenant}/schema", get(schemas::show).put(schemas::apply)),
        ("/v1/admin/tenants/{tenant}/tokens", post(tokens::mint)),
        ("/v1/admin/tenants/{tenant}/keys", get(keys::list).post(keys::rotate)),
        ("/v1/admin/tenants/{tenant}/devices", get(devices::list)),
        ("/v1/admin/tenants/{tenant}/devices/{device}", get(devices::show)),
        ("/v1/admin/tenants/{tenant}/devices/{device}/grants", put(devices::set_grants)),
        ("/v1/admin/tenants/{tenant}/devices/{device}/suspend", post(devices::suspend)),
        ("/v1/admin/tenants/{tenant}/devices/{device}/resume", post(devices::resume)),
        (ARCHIVE, get(archives::make).put(archives::restore)),
        ("/v1/admin/clusters", get(clusters::list).post(clusters::add)),
        ("/v1/admin/clusters/{cluster}", delete(clusters::remove)),
        ("/v1/admin/tenants/{tenant}/placement", get(clusters::show)),
        (MOVE, post(clusters::carry)),
        ("/v1/admin/tenants/{tenant}/epoch", post(archives::begin_epoch)),
        ("/v1/admin/tenants/{tenant}/digest", post(integrity::digest)),
        ("/v1/admin/tenants/{tenant}/scrub", post(integrity::scrub)),
    ]
}

#[cfg(test)]
mod tests;

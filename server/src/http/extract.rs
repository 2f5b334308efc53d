//! Principals, paths and bodies out of requests. A handler's arguments say who may call it.

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::http::request::Parts;
use farshore_sync_core::ids::TenantId;
use serde::de::DeserializeOwned;

use super::error::HttpError;
use crate::app::App;
use crate::auth::{AuthError, DevicePrincipal, OperatorPrincipal};

/// What the value of `Authorization` begins with.
const BEARER: &str = "Bearer ";
/// The name of the tenant in the patterns of paths.
const TENANT_PARAMETER: &str = "tenant";

impl FromRequestParts<App> for DevicePrincipal {
    type Rejection = HttpError;

    /// The token's tenant decides; a path or a subdomain that names another one leads nowhere.
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let principal = app.auth().device(bearer(parts)?).await?;
        match addressed_tenant(parts, app).await? {
            Some(tenant) if tenant != *principal.tenant() => Err(HttpError::not_found()),
            _ => Ok(principal),
        }
    }
}

impl FromRequestParts<App> for OperatorPrincipal {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let principal = app.auth().operator(bearer(parts)?)?;
        addressed_tenant(parts, app).await?;
        Ok(principal)
    }
}

/// The tenant that a request without a token addresses.
#[derive(Debug)]
pub struct AddressedTenant(pub TenantId);

impl FromRequestParts<App> for AddressedTenant {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        addressed_tenant(parts, app).await?.map(Self).ok_or_else(HttpError::not_found)
    }
}

/// The parameters of a path. What is no id leads nowhere.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Path<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let path = axum::extract::Path::from_request_parts(parts, app).await;
        path.map(|axum::extract::Path(parameters)| Self(parameters))
            .map_err(|_| HttpError::not_found())
    }
}

/// The parameters of a query.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let query = axum::extract::Query::from_request_parts(parts, app).await;
        let query = query.map_err(|rejection| HttpError::invalid_request(rejection.body_text()))?;
        Ok(Self(query.0))
    }
}

/// A body of JSON.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = HttpError;

    async fn from_request(request: Request, app: &App) -> Result<Self, HttpError> {
        Ok(Self(axum::Json::from_request(request, app).await?.0))
    }
}

/// A body of JSON whose reading is the use case's.
#[derive(Debug)]
pub struct JsonText(pub String);

impl FromRequest<App> for JsonText {
    type Rejection = HttpError;

    async fn from_request(request: Request, app: &App) -> Result<Self, HttpError> {
        let content_type =
            request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
        if !media_type.trim().eq_ignore_ascii_case("application/json") {
            return Err(HttpError::not_json());
        }
        Ok(Self(String::from_request(request, app).await?))
    }
}

fn bearer(parts: &Parts) -> Result<&str, AuthError> {
    let header = parts.headers.get(AUTHORIZATION).ok_or(AuthError::Missing)?;
    let text = header.to_str().map_err(|_| AuthError::Malformed)?;
    text.strip_prefix(BEARER).ok_or(AuthError::Malformed)
}

/// The tenant that path and host name. Where both do, they must agree.
async fn addressed_tenant(parts: &mut Parts, app: &App) -> Result<Option<TenantId>, HttpError> {
    let parameters = RawPathParams::from_request_parts(parts, app).await;
    let in_path = match &parameters {
        Ok(parameters) => parameters.iter().find(|(name, _)| *name == TENANT_PARAMETER),
        Err(_) => return Err(HttpError::not_found()),
    };
    let in_path = in_path.map(|(_, slug)| slug.to_owned());
    let in_host = subdomain(parts, app.config().server.tenant_domain.as_deref());
    let slug = match (in_path, in_host) {
        (Some(path), Some(host)) if path != host => return Err(HttpError::not_found()),
        (Some(slug), _) | (None, Some(slug)) => slug,
        (None, None) => return Ok(None),
    };
    slug.parse().map(Some).map_err(|_| HttpError::not_found())
}

/// What stands in front of the tenants' domain in the host of a request.
fn subdomain(parts: &Parts, tenant_domain: Option<&str>) -> Option<String> {
    let host = parts.headers.get(HOST)?.to_str().ok()?.to_ascii_lowercase();
    let name = host.split_once(':').map_or(host.as_str(), |(name, _port)| name);
    name.strip_suffix(tenant_domain?)?.strip_suffix('.').map(str::to_owned)
}

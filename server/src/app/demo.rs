//! The tenant `demo` with the sample schema, for `farshore dev`.

use farshore_store::signing_keys::SigningAlgorithm;
use farshore_sync_core::schema::Schema;

use super::App;
use super::schemas::{self, ApplyError};
use super::tenants::{self, CreateTenantError};

/// The slug of the tenant.
pub const DEMO_TENANT: &str = "demo";
/// The sample schema.
pub const DEMO_SCHEMA: &str = include_str!("../../../examples/schemas/flights.json");

/// Why the demo could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The tenant could not be created.
    #[error(transparent)]
    Tenant(#[from] CreateTenantError),
    /// The schema could not be applied.
    #[error(transparent)]
    Schema(#[from] ApplyError),
}

/// Creates the tenant where there is none, and applies the schema unless the tenant has a newer one.
///
/// # Errors
/// See [`DemoError`].
pub async fn prepare(app: &App) -> Result<(), DemoError> {
    let tenant = DEMO_TENANT.parse().expect("the demo's slug is one");
    let scope = app.auth().workflow_scope(tenant);
    // EdDSA: an RSA key would make the first start wait for its primes.
    match tenants::create_in(app, &scope, SigningAlgorithm::EdDsa, None).await {
        Ok(()) | Err(CreateTenantError::Exists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let sample = Schema::parse(DEMO_SCHEMA).map_err(ApplyError::Refused)?;
    let current = app.store(&scope).await.map_err(ApplyError::Access)?.schema().await;
    let current = current.map_err(|error| ApplyError::Access(error.into()))?;
    if current.is_none_or(|current| current.version < sample.version) {
        schemas::apply_in(app, &scope, &sample).await?;
    }
    Ok(())
}

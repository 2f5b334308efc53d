//! The keys with which a tenant signs tokens: listed, rotated, published.

use farshore_api::keys::{RotateKey, SigningAlgorithm, SigningKey, SigningKeyList};
use farshore_store::signing_keys::{self, SigningKeyRecord};
use farshore_sync_core::ids::TenantId;

use super::App;
use super::error::AccessError;
use crate::auth::{AuthError, KeyError, OperatorPrincipal};

/// Why a key was not rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The new key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store failed.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// All keys, the newest first.
///
/// # Errors
/// Where there is no such tenant, or the store fails.
pub async fn list(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
) -> Result<SigningKeyList, AccessError> {
    let store = app.store(&app.auth().scope(operator, tenant)).await?;
    let keys = store.signing_keys().await?;
    Ok(SigningKeyList { keys: keys.into_iter().map(view).collect() })
}

/// A new key signs from now on. Tokens of earlier ones stay valid until they expire, and the key set shows both.
///
/// # Errors
/// See [`RotateError`].
pub async fn rotate(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
    request: RotateKey,
) -> Result<SigningKey, RotateError> {
    let scope = app.auth().scope(operator, tenant);
    let store = app.store(&scope).await?;
    let key = app.auth().new_key(&scope, store_algorithm(request.algorithm)).await?;
    store.rotate_signing_key(&key).await.map_err(AccessError::from)?;
    app.auth().keys_changed(scope.tenant());
    app.sync().authority_changed(scope.tenant());
    tracing::info!(tenant = %scope.tenant(), operator = operator.subject(), kid = key.kid, "signing key rotated");
    Ok(view(key))
}

/// The public halves of a tenant's keys, for whoever verifies its tokens.
///
/// # Errors
/// [`AuthError::UnknownKey`] where there is no such tenant.
pub async fn key_set(app: &App, tenant: &TenantId) -> Result<Vec<serde_json::Value>, AuthError> {
    app.auth().key_set(tenant).await
}

/// The algorithm as the store calls it.
pub(super) const fn store_algorithm(algorithm: SigningAlgorithm) -> signing_keys::SigningAlgorithm {
    match algorithm {
        SigningAlgorithm::Rs256 => signing_keys::SigningAlgorithm::Rs256,
        SigningAlgorithm::EdDsa => signing_keys::SigningAlgorithm::EdDsa,
    }
}

fn view(record: SigningKeyRecord) -> SigningKey {
    let algorithm = match record.algorithm {
        signing_keys::SigningAlgorithm::Rs256 => SigningAlgorithm::Rs256,
        signing_keys::SigningAlgorithm::EdDsa => SigningAlgorithm::EdDsa,
    };
    let SigningKeyRecord { kid, created_at_ms, retired_at_ms, .. } = record;
    SigningKey { kid, algorithm, created_at_ms, retired_at_ms }
}

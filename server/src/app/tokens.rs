//! Tokens with which devices sync.

use aws_lc_rs::rand;
use farshore_api::devices::MAX_DEVICE_NAME_BYTES;
use farshore_api::tokens::{MintToken, MintedToken};
use farshore_store::SharedTenantStore;
use farshore_store::devices::DeviceRecord;
use farshore_store::scope::TenantScope;
use farshore_store::signing_keys::{SigningAlgorithm, SigningKeyRecord};
use farshore_sync_core::ids::{DeviceId, TenantId, UserId};
use farshore_sync_core::wire::limits::{MAX_SCOPES_PER_DEVICE, MAX_TOKEN_BYTES};
use farshore_sync_core::wire::{Grant, sorted_grants};

use super::App;
use super::devices::checked_grants;
use super::error::AccessError;
use crate::auth::authenticator::DeviceToken;
use crate::auth::{KeyError, OperatorPrincipal};

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// It would be good for nothing.
    #[error("a token needs at least one scope")]
    NoScope,
    /// More scopes than a device may hold.
    #[error("{scopes} scopes; a device holds at most {MAX_SCOPES_PER_DEVICE}")]
    TooManyScopes {
        /// How many were given.
        scopes: usize,
    },
    /// So many or so long scopes that no server takes the token.
    #[error(
        "the token would have {bytes} bytes; the limit is {MAX_TOKEN_BYTES}: give it fewer scopes"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A lifetime of nothing, or longer than the configuration allows.
    #[error("a token is valid for 1 to {max_s} seconds")]
    Lifetime {
        /// The longest one.
        max_s: u64,
    },
    /// The name of the device is too long.
    #[error("the name of a device has at most {MAX_DEVICE_NAME_BYTES} bytes")]
    NameTooLong,
    /// The device is somebody else's: its replica holds that user's data.
    #[error("the device {device} belongs to another user")]
    OtherUser {
        /// The device.
        device: DeviceId,
    },
    /// The device is suspended.
    #[error("the device {device} is suspended; resume it first")]
    Suspended {
        /// The device.
        device: DeviceId,
    },
    /// The tenant's key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store failed.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// Signs a token. The device is made known where it is not, and may do at least what the token says from then on:
/// minting never takes a right away.
///
/// # Errors
/// See [`MintError`].
pub async fn mint(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
    request: MintToken,
) -> Result<MintedToken, MintError> {
    let lifetime_ms = lifetime_ms(app, request.expires_in_s)?;
    let grants = checked_grants(request.grants.clone())
        .map_err(|scopes| MintError::TooManyScopes { scopes })?;
    if grants.is_empty() {
        return Err(MintError::NoScope);
    }
    let scope = app.auth().scope(operator, tenant);
    let store = app.store(&scope).await?;
    let known = match request.device {
        Some(device) => store.device(device).await.map_err(AccessError::from)?,
        None => None,
    };
    let record = record(app, request, known.as_ref(), &grants)?;
    let key = signing_key(app, &scope, &store).await?;
    let (device, user) = (record.id, record.user);
    let token = DeviceToken { device, user, grants, lifetime_ms };
    let (token, expires_at_ms) = app.auth().sign(&scope, &key, &token)?;
    if token.len() > MAX_TOKEN_BYTES {
        return Err(MintError::TooLong { bytes: token.len() });
    }
    if known.as_ref() != Some(&record) {
        store.put_device(&record).await.map_err(AccessError::from)?;
        app.sync().authority_changed(scope.tenant());
    }
    tracing::info!(tenant = %scope.tenant(), %device, operator = operator.subject(), "token minted");
    Ok(MintedToken { token, device, user, expires_at_ms })
}

fn lifetime_ms(app: &App, expires_in_s: Option<u64>) -> Result<u64, MintError> {
    let tokens = &app.config().tokens;
    let asked_ms =
        expires_in_s.map_or(tokens.device_default_ms, |seconds| seconds.saturating_mul(1_000));
    if asked_ms == 0 || asked_ms > tokens.device_max_ms {
        return Err(MintError::Lifetime { max_s: tokens.device_max_ms / 1_000 });
    }
    Ok(asked_ms)
}

/// The device's record after the token was minted.
fn record(
    app: &App,
    request: MintToken,
    known: Option<&DeviceRecord>,
    grants: &[Grant],
) -> Result<DeviceRecord, MintError> {
    if request.name.as_ref().is_some_and(|name| name.len() > MAX_DEVICE_NAME_BYTES) {
        return Err(MintError::NameTooLong);
    }
    let Some(known) = known else {
        let now_ms = app.now_ms();
        let id = match request.device {
            Some(device) => device,
            None => DeviceId::from_parts(now_ms, &entropy()?),
        };
        let user = match request.user {
            Some(user) => user,
            None => UserId::from_parts(now_ms, &entropy()?),
        };
        let (name, grants) = (request.name.unwrap_or_default(), grants.to_vec());
        return Ok(DeviceRecord {
            id,
            user,
            name,
            grants,
            suspended: false,
            created_at_ms: now_ms,
        });
    };
    if request.user.is_some_and(|user| user != known.user) {
        return Err(MintError::OtherUser { device: known.id });
    }
    if known.suspended {
        return Err(MintError::Suspended { device: known.id });
    }
    let all = sorted_grants(known.grants.iter().chain(grants).cloned());
    let all = checked_grants(all).map_err(|scopes| MintError::TooManyScopes { scopes })?;
    let name = request.name.unwrap_or_else(|| known.name.clone());
    Ok(DeviceRecord { name, grants: all, ..known.clone() })
}

/// The key that signs: the newest one. A tenant whose creation was interrupted gets its first one here.
async fn signing_key(
    app: &App,
    scope: &TenantScope,
    store: &SharedTenantStore,
) -> Result<SigningKeyRecord, MintError> {
    let keys = store.signing_keys().await.map_err(AccessError::from)?;
    if let Some(key) = keys.into_iter().find(|key| key.retired_at_ms.is_none()) {
        return Ok(key);
    }
    let key = app.auth().new_key(scope, SigningAlgorithm::Rs256).await?;
    store.rotate_signing_key(&key).await.map_err(AccessError::from)?;
    app.auth().keys_changed(scope.tenant());
    Ok(key)
}

fn entropy() -> Result<[u8; 10], KeyError> {
    let mut bytes = [0; 10];
    rand::fill(&mut bytes).map_err(|_| KeyError::Generate)?;
    Ok(bytes)
}

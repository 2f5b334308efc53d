//! From a token to a principal, and again while a connection lasts.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farshore_api::grant::{grant_text, parse_grant};
use farshore_store::catalog::Catalog;
use farshore_store::scope::{ScopeAuthority, TenantScope};
use farshore_store::sealing::{MasterKey, SealError};
use farshore_store::signing_keys::{SigningAlgorithm, SigningKeyRecord};
use farshore_sync_core::ids::{DeviceId, TenantId, UserId};
use farshore_sync_core::wire::{Grant, sorted_grants};
use lru::LruCache;

use super::claims::{
    DEVICE_AUDIENCE, DeviceClaims, Expected, OPERATOR_AUDIENCE, OperatorClaims, seconds,
    unique_token_name,
};
use super::error::{AuthError, KeyError};
use super::key_id::KeyOwner;
use super::operator_key::OperatorKey;
use super::principal::{DevicePrincipal, OperatorPrincipal, TokenFacts};
use super::signing_key::{self, SigningKey};
use super::verifying_key::{UnverifiedToken, VerifyingKey};
use crate::archive::{ArchiveReader, ArchiveWriter};
use crate::clock::SharedClock;
use crate::config::TokenConfig;

/// Most tenants whose verification keys are kept in memory.
const CACHED_TENANTS: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// A tenant's keys are read again for a key that is not among them, but not more often than this.
const KEY_RELOAD_INTERVAL_MS: u64 = 5_000;

/// Verifies tokens and signs them. Clones are the same authenticator.
#[derive(Clone)]
pub struct Authenticator(Arc<Parts>);

struct Parts {
    catalog: Arc<dyn Catalog>,
    authority: ScopeAuthority,
    master_key: MasterKey,
    operator_key: OperatorKey,
    tokens: TokenConfig,
    clock: SharedClock,
    keys: Mutex<LruCache<TenantId, Arc<TenantKeys>>>,
}

/// The keys of one tenant that verify.
struct TenantKeys {
    keys: Vec<VerifyingKey>,
    read_at_ms: u64,
}

/// A device token to be signed.
#[derive(Debug)]
pub struct DeviceToken {
    /// The device.
    pub device: DeviceId,
    /// Its user.
    pub user: UserId,
    /// What it is good for.
    pub grants: Vec<Grant>,
    /// How long it is valid.
    pub lifetime_ms: u64,
}

impl Authenticator {
    /// Takes the authority over tenants that came with the catalog: from here on, scopes come from principals.
    #[must_use]
    pub fn new(
        catalog: Arc<dyn Catalog>,
        authority: ScopeAuthority,
        master_key: MasterKey,
        operator_key: OperatorKey,
        tokens: TokenConfig,
        clock: SharedClock,
    ) -> Self {
        let keys = Mutex::new(LruCache::new(CACHED_TENANTS));
        Self(Arc::new(Parts { catalog, authority, master_key, operator_key, tokens, clock, keys }))
    }

    /// The device that a token belongs to.
    ///
    /// # Errors
    /// Why the token is no good, or the device may not come in.
    pub async fn device(&self, token: &str) -> Result<DevicePrincipal, AuthError> {
        let token = UnverifiedToken::new(token)?;
        let (kid, owner) = token.key_id()?;
        let KeyOwner::Tenant(tenant) = &owner else { return Err(AuthError::UnknownKey) };
        let keys = self.keys_with(tenant, &kid).await?;
        let claims: DeviceClaims = keys.get(&kid).ok_or(AuthError::UnknownKey)?.verify(token)?;
        if claims.tid != *tenant {
            return Err(AuthError::WrongTenant);
        }
        let issuer = owner.issuer(&self.0.tokens.issuer_url);
        let expires_at_ms = claims.envelope().check(self.expected(&issuer, DEVICE_AUDIENCE))?;
        let grants =
            claims.scopes.iter().map(|text| parse_grant(text)).collect::<Result<Vec<_>, _>>();
        let grants = sorted_grants(grants.map_err(|_| AuthError::Malformed)?);
        let token = TokenFacts { kid, grants, expires_at_ms };
        self.with_record(self.0.authority.scope(claims.tid), claims.sub, claims.uid, token).await
    }

    /// The same principal with the rights that it has now.
    ///
    /// # Errors
    /// Why it may not go on: expired, suspended, its key or its device gone.
    pub async fn reauthorise(
        &self,
        principal: &DevicePrincipal,
    ) -> Result<DevicePrincipal, AuthError> {
        if self.now_ms() >= principal.expires_at_ms() {
            return Err(AuthError::Expired);
        }
        let keys = self.keys_with(principal.tenant(), &principal.token.kid).await?;
        keys.get(&principal.token.kid).ok_or(AuthError::UnknownKey)?;
        let DevicePrincipal { scope, device, user, token, .. } = principal.clone();
        self.with_record(scope, device, user, token).await
    }

    /// The operator that a token belongs to.
    ///
    /// # Errors
    /// Why the token is no good.
    pub fn operator(&self, token: &str) -> Result<OperatorPrincipal, AuthError> {
        let token = UnverifiedToken::new(token)?;
        let key = self.0.operator_key.verifying();
        let (kid, owner) = token.key_id()?;
        if owner != KeyOwner::Operators || kid != key.kid {
            return Err(AuthError::UnknownKey);
        }
        let claims: OperatorClaims = key.verify(token)?;
        let issuer = owner.issuer(&self.0.tokens.issuer_url);
        claims.envelope().check(self.expected(&issuer, OPERATOR_AUDIENCE))?;
        Ok(OperatorPrincipal { subject: claims.sub })
    }

    /// The proof that an operator may act for a tenant: operators may for each.
    #[must_use]
    pub fn scope(&self, _: &OperatorPrincipal, tenant: TenantId) -> TenantScope {
        self.0.authority.scope(tenant)
    }

    /// The proof that a workflow of the server itself may act for a tenant, such as the purge of tombstones.
    #[must_use]
    pub(crate) fn workflow_scope(&self, tenant: TenantId) -> TenantScope {
        self.0.authority.scope(tenant)
    }

    /// The public halves of a tenant's keys, as JWKs.
    ///
    /// # Errors
    /// [`AuthError::UnknownKey`] where there is no such tenant.
    pub async fn key_set(&self, tenant: &TenantId) -> Result<Vec<serde_json::Value>, AuthError> {
        let keys = match self.cached(tenant) {
            Some(keys) => keys,
            None => self.read_keys(tenant).await?,
        };
        Ok(keys
            .keys
            .iter()
            .filter(|key| self.is_accepted(key))
            .map(|key| key.jwk.clone())
            .collect())
    }

    /// Forgets what is cached of a tenant's keys: they changed, or the tenant is gone.
    pub fn keys_changed(&self, tenant: &TenantId) {
        self.cache().pop(tenant);
    }

    /// Makes a new key for a tenant, its private half sealed.
    ///
    /// # Errors
    /// Where the system has no randomness to give.
    pub async fn new_key(
        &self,
        scope: &TenantScope,
        algorithm: SigningAlgorithm,
    ) -> Result<SigningKeyRecord, KeyError> {
        let owner = KeyOwner::Tenant(scope.tenant().clone());
        let (master_key, now_ms) = (self.0.master_key.clone(), self.now_ms());
        let made = tokio::task::spawn_blocking(move || {
            signing_key::generate(&owner, algorithm, &master_key, now_ms)
        });
        made.await.map_err(|_| KeyError::Generate)?
    }

    /// Begins an archive of a tenant; its first bytes come along.
    ///
    /// # Errors
    /// Where the system has no randomness to give.
    pub fn begin_archive(&self, tenant: &TenantId) -> Result<(ArchiveWriter, Vec<u8>), SealError> {
        ArchiveWriter::begin(tenant, self.now_ms(), &self.0.master_key)
    }

    /// What reads archives that were made under this server's master key.
    #[must_use]
    pub fn archive_reader(&self) -> ArchiveReader {
        ArchiveReader::new(self.0.master_key.clone())
    }

    /// Signs a device's token with one of its tenant's keys. Returns it with the time at which it expires.
    ///
    /// # Errors
    /// Where the key does not open or cannot sign.
    pub fn sign(
        &self,
        scope: &TenantScope,
        key: &SigningKeyRecord,
        token: &DeviceToken,
    ) -> Result<(String, u64), KeyError> {
        let now_s = seconds(self.now_ms());
        let exp = now_s + seconds(token.lifetime_ms);
        let claims = DeviceClaims {
            iss: self.issuer(scope.tenant()),
            tid: scope.tenant().clone(),
            sub: token.device,
            uid: token.user,
            aud: DEVICE_AUDIENCE.to_owned(),
            scopes: token.grants.iter().map(grant_text).collect(),
            iat: now_s,
            nbf: now_s,
            exp,
            jti: unique_token_name()?,
        };
        let signed = SigningKey::open(key, &self.0.master_key)?.sign(&claims)?;
        Ok((signed, super::claims::milliseconds(exp)))
    }

    /// The `iss` of a tenant's tokens.
    #[must_use]
    pub fn issuer(&self, tenant: &TenantId) -> String {
        KeyOwner::Tenant(tenant.clone()).issuer(&self.0.tokens.issuer_url)
    }

    /// Adds what the tenant knows of the device: it gives rights within those of the token.
    async fn with_record(
        &self,
        scope: TenantScope,
        device: DeviceId,
        user: UserId,
        token: TokenFacts,
    ) -> Result<DevicePrincipal, AuthError> {
        let store = self.0.catalog.open(&scope).await?;
        let record = store.device(device).await.map_err(|error| AuthError::Store(error.into()))?;
        let record = record.ok_or(AuthError::UnknownDevice)?;
        if record.user != user {
            return Err(AuthError::WrongUser);
        }
        if record.suspended {
            return Err(AuthError::Suspended);
        }
        let grants = intersection(&token.grants, &sorted_grants(record.grants));
        Ok(DevicePrincipal { scope, device, user, grants, token })
    }

    /// The tenant's keys, read again where `kid` is not among those in memory and they are not fresh.
    async fn keys_with(&self, tenant: &TenantId, kid: &str) -> Result<Accepted, AuthError> {
        let cached = self.cached(tenant);
        let now_ms = self.now_ms();
        let usable = cached.filter(|keys| {
            keys.keys.iter().any(|key| key.kid == kid)
                || now_ms < keys.read_at_ms.saturating_add(KEY_RELOAD_INTERVAL_MS)
        });
        let keys = match usable {
            Some(keys) => keys,
            None => self.read_keys(tenant).await?,
        };
        Ok(Accepted { keys, authenticator: self.clone() })
    }

    async fn read_keys(&self, tenant: &TenantId) -> Result<Arc<TenantKeys>, AuthError> {
        let read_at_ms = self.now_ms();
        let store = self.0.catalog.open(&self.0.authority.scope(tenant.clone())).await?;
        let records = store.signing_keys().await.map_err(|error| AuthError::Store(error.into()))?;
        let owner = KeyOwner::Tenant(tenant.clone());
        let keys = records.iter().map(|record| VerifyingKey::from_record(&owner, record));
        let keys = Arc::new(TenantKeys { keys: keys.collect::<Result<_, _>>()?, read_at_ms });
        self.cache().put(tenant.clone(), Arc::clone(&keys));
        Ok(keys)
    }

    /// A key that was retired verifies as long as a token that it signed can be valid.
    fn is_accepted(&self, key: &VerifyingKey) -> bool {
        let tokens = &self.0.tokens;
        let overlap_ms = tokens.device_max_ms.saturating_add(tokens.leeway_ms);
        key.retired_at_ms.is_none_or(|at_ms| self.now_ms() < at_ms.saturating_add(overlap_ms))
    }

    fn expected<'a>(&self, issuer: &'a str, audience: &'a str) -> Expected<'a> {
        Expected { issuer, audience, now_ms: self.now_ms(), leeway_ms: self.0.tokens.leeway_ms }
    }

    fn cached(&self, tenant: &TenantId) -> Option<Arc<TenantKeys>> {
        self.cache().get(tenant).cloned()
    }

    fn cache(&self) -> MutexGuard<'_, LruCache<TenantId, Arc<TenantKeys>>> {
        // Whatever a panic left behind is a cache all the same.
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.0.clock.now_ms()
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").finish_non_exhaustive()
    }
}

/// A tenant's keys as of now.
struct Accepted {
    keys: Arc<TenantKeys>,
    authenticator: Authenticator,
}

impl Accepted {
    fn get(&self, kid: &str) -> Option<&VerifyingKey> {
        self.keys.keys.iter().find(|key| key.kid == kid && self.authenticator.is_accepted(key))
    }
}

/// What both allow: the scopes that both name, with the smaller right. Both are sorted, and so is the result.
fn intersection(token: &[Grant], record: &[Grant]) -> Vec<Grant> {
    let both = token.iter().filter_map(|grant| {
        let at = record.binary_search_by(|other| other.scope.cmp(&grant.scope)).ok()?;
        Some(Grant { scope: grant.scope.clone(), rights: grant.rights.min(record[at].rights) })
    });
    both.collect()
}

//! Digests: what the server's copy adds up to, and whether its stored sums still match its rows.

use farshore_api::integrity::{
    AlteredBucket, CollectionSum, Digest, DigestRequest, MAX_SCOPES_PER_DIGEST, Scrubbed,
};
use farshore_sync_core::ids::TenantId;

use super::App;
use super::error::AccessError;
use crate::auth::OperatorPrincipal;

/// Why there is no digest.
#[derive(Debug, thiserror::Error)]
pub enum DigestError {
    /// Too many scopes for one request.
    #[error("{scopes} scopes; a digest covers at most {MAX_SCOPES_PER_DIGEST}")]
    TooManyScopes {
        /// How many were asked for.
        scopes: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// Where a tenant stands and what its rows add up to. While devices push, the sums may be newer than the seq.
///
/// # Errors
/// See [`DigestError`].
pub async fn digest(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
    request: &DigestRequest,
) -> Result<Digest, DigestError> {
    if request.scopes.len() > MAX_SCOPES_PER_DIGEST {
        return Err(DigestError::TooManyScopes { scopes: request.scopes.len() });
    }
    let store = app.store(&app.auth().scope(operator, tenant)).await?;
    let head = store.head().await.map_err(AccessError::from)?;
    let buckets = store.buckets(&request.scopes).await.map_err(AccessError::from)?;
    let sums = buckets.into_iter().map(|((scope, collection), buckets)| CollectionSum {
        scope,
        collection,
        sum: format!("{:032x}", buckets.total().0),
    });
    Ok(Digest { seq: head.seq, horizon: head.horizon, epoch: head.epoch, sums: sums.collect() })
}

/// Recomputes every stored sum from the rows. It reads everything: for support, not for every day.
///
/// # Errors
/// Where there is no such tenant, or the store fails.
pub async fn scrub(
    app: &App,
    operator: &OperatorPrincipal,
    tenant: TenantId,
) -> Result<Scrubbed, AccessError> {
    let scope = app.auth().scope(operator, tenant);
    let found = app.store(&scope).await?.scrub().await?;
    let altered = found.into_iter().map(|(scope, collection, bucket)| AlteredBucket {
        scope,
        collection,
        bucket,
    });
    let altered: Vec<_> = altered.collect();
    if !altered.is_empty() {
        tracing::error!(tenant = %scope.tenant(), buckets = altered.len(), "rows were altered behind the store");
    }
    Ok(Scrubbed { altered })
}

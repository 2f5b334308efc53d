//! After a restore from a backup: every tenant begins a new epoch, so that devices compare digests and offer again
//! what the backup lacks.

use aws_lc_rs::rand;

use super::App;
use super::error::AccessError;
use crate::auth::KeyError;

/// Why a new epoch could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The system has no randomness to give.
    #[error(transparent)]
    Entropy(#[from] KeyError),
    /// The store failed.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// Begins a new epoch for every tenant. To be called before devices are let in: a connected one knows the old epoch.
///
/// # Errors
/// See [`RestoreError`]; tenants before the one that failed have begun theirs, and doing it again does no harm.
pub async fn begin_epochs(app: &App) -> Result<(), RestoreError> {
    for tenant in app.catalog().tenants().await.map_err(AccessError::from)? {
        let mut entropy = [0; 8];
        rand::fill(&mut entropy).map_err(|_| KeyError::Generate)?;
        let scope = app.auth().workflow_scope(tenant);
        let store = app.store(&scope).await?;
        let epoch =
            store.begin_epoch(u64::from_le_bytes(entropy)).await.map_err(AccessError::from)?;
        tracing::warn!(tenant = %scope.tenant(), epoch, "a new epoch begins after a restore");
    }
    Ok(())
}

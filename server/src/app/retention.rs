//! What is old enough is purged: tombstones and departures, tenant after tenant.

use farshore_sync_core::ids::TenantId;

use super::App;
use super::error::AccessError;

/// Purges what is older than the configured retention. A tenant that fails is logged and does not keep the others.
pub async fn purge(app: &App) {
    let tenants = match app.catalog().tenants().await {
        Ok(tenants) => tenants,
        Err(error) => {
            tracing::error!(%error, "the tenants to purge could not be listed");
            return;
        }
    };
    let older_than_ms = app.now_ms().saturating_sub(app.config().retention.tombstones_ms);
    for tenant in tenants {
        match purge_tenant(app, tenant.clone(), older_than_ms).await {
            Ok(0) => {}
            Ok(purged) => tracing::info!(%tenant, purged, "tombstones purged"),
            Err(error) => tracing::error!(%tenant, %error, "tombstones could not be purged"),
        }
    }
}

async fn purge_tenant(app: &App, tenant: TenantId, older_than_ms: u64) -> Result<u64, AccessError> {
    let scope = app.auth().workflow_scope(tenant);
    let purged = app.store(&scope).await?.purge(older_than_ms).await?;
    app.metrics().tombstones_purged.inc_by(purged);
    Ok(purged)
}

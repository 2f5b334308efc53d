//! Where tenants are: the schema `farshore` of the database that the server was started with.

use async_trait::async_trait;
use farshore_store::StoreError;
use farshore_store::catalog::CatalogError;
use farshore_store::placement::{
    ClusterName, ClusterRecord, MoveToken, Place, Placement, Registry, RegistryError,
};
use farshore_store::scope::TenantScope;
use farshore_store::sync_core::ids::TenantId;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::catalog::{BEGIN, PostgresCatalog, Shared};
use crate::database::{Pace, Transaction};
use crate::failure::Failure;
use crate::names::TenantKey;
use crate::query::Query;

impl Shared {
    /// Runs one statement on the platform's tables; what it selects.
    async fn ask(&self, operation: &'static str, query: Query) -> Result<Vec<PgRow>, StoreError> {
        let asked = async {
            let (mut transaction, _) = self.database.begin(BEGIN, Pace::Hot, "").await?;
            let rows = transaction.rows(query).await;
            transaction.end(rows).await
        };
        asked.await.map_err(|failure: Failure| failure.during(operation))
    }

    async fn remove_cluster_in(
        transaction: &mut Transaction,
        cluster: &ClusterName,
    ) -> Result<Option<u64>, Failure> {
        let find = "SELECT (SELECT count(*) FROM farshore.tenants \
            WHERE NOT erased AND (cluster = c.name OR moving_to = c.name)) \
            FROM farshore.clusters c WHERE c.name = $1 FOR UPDATE";
        let found = transaction.rows(Query::new(find).bind(cluster.as_str())).await?;
        let Some(tenants) = found.first().map(|row| row.try_get::<i64, _>(0)).transpose()? else {
            return Ok(None);
        };
        if tenants == 0 {
            let forget = "UPDATE farshore.tenants SET cluster = NULL WHERE erased AND cluster = $1";
            transaction.execute(Query::new(forget).bind(cluster.as_str())).await?;
            let remove = Query::new("DELETE FROM farshore.clusters WHERE name = $1");
            transaction.execute(remove.bind(cluster.as_str())).await?;
        }
        Ok(Some(tenants.unsigned_abs()))
    }

    /// Why a tenant that should be registered was not found.
    async fn missing(&self, tenant: &TenantId) -> CatalogError {
        let tenant = tenant.clone();
        match self.database.registered(&tenant).await {
            Ok(crate::catalog::Registered::Erased) => CatalogError::Erased { tenant },
            Ok(_) => CatalogError::UnknownTenant { tenant },
            Err(failure) => failure.during("look for a tenant").into(),
        }
    }
}

#[async_trait]
impl Registry for PostgresCatalog {
    async fn clusters(&self) -> Result<Vec<ClusterRecord>, StoreError> {
        let operation = "list the clusters";
        let list = "SELECT name, sealed_url, max_connections, added_at_ms \
            FROM farshore.clusters ORDER BY name";
        let rows = self.0.ask(operation, Query::new(list)).await?;
        let records = rows.iter().map(cluster).collect::<Result<_, Failure>>();
        records.map_err(|failure| failure.during(operation))
    }

    async fn put_cluster(&self, cluster: &ClusterRecord) -> Result<(), StoreError> {
        let put = "INSERT INTO farshore.clusters (name, sealed_url, max_connections, added_at_ms) \
            VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO UPDATE SET \
            sealed_url = excluded.sealed_url, max_connections = excluded.max_connections";
        let put = Query::new(put)
            .bind(cluster.name.as_str())
            .bind(&cluster.sealed_url[..])
            .bind(i64::from(cluster.max_connections))
            .bind(cluster.added_at_ms.cast_signed());
        self.0.ask("add a cluster", put).await.map(drop)
    }

    async fn remove_cluster(&self, cluster: &ClusterName) -> Result<(), RegistryError> {
        let removed = async {
            let (mut transaction, _) = self.0.database.begin(BEGIN, Pace::Hot, "").await?;
            let removed = Shared::remove_cluster_in(&mut transaction, cluster).await;
            transaction.end(removed).await
        };
        let removed = removed.await.map_err(|failure: Failure| failure.during("remove a cluster"));
        let cluster = cluster.clone();
        match removed? {
            None => Err(RegistryError::UnknownCluster { cluster }),
            Some(0) => Ok(()),
            Some(tenants) => Err(RegistryError::ClusterInUse { cluster, tenants }),
        }
    }

    async fn placement(&self, scope: &TenantScope) -> Result<Placement, CatalogError> {
        let operation = "read a tenant's place";
        let find = "SELECT cluster, moving_to FROM farshore.tenants WHERE id = $1 AND NOT erased";
        let find = Query::new(find).bind(scope.tenant().as_str());
        let rows = self.0.ask(operation, find).await?;
        match rows.first() {
            Some(row) => Ok(placement(row, 0).map_err(|failure| failure.during(operation))?),
            None => Err(self.0.missing(scope.tenant()).await),
        }
    }

    async fn placements(&self) -> Result<Vec<(TenantId, Placement)>, StoreError> {
        let operation = "list the places of tenants";
        let list = "SELECT id, cluster, moving_to FROM farshore.tenants \
            WHERE NOT erased AND (cluster IS NOT NULL OR moving_to IS NOT NULL) ORDER BY id";
        let rows = self.0.ask(operation, Query::new(list)).await?;
        let placements = rows.iter().map(|row| {
            let id: &str = row.try_get(0)?;
            let id = id.parse().map_err(|error| Failure::Damaged(format!("{error}")))?;
            Ok((id, placement(row, 1)?))
        });
        placements.collect::<Result<_, Failure>>().map_err(|failure| failure.during(operation))
    }

    async fn register(
        &self,
        scope: &TenantScope,
        cluster: &ClusterName,
        now_ms: u64,
    ) -> Result<(), RegistryError> {
        let operation = "register a tenant";
        // Nothing is here under this key until the tenant comes home.
        let key = TenantKey::random().map_err(|error| StoreError::database(operation, error))?;
        let register = "INSERT INTO farshore.tenants (id, key, erased, created_at_ms, cluster) \
            VALUES ($1, $2, false, $3, $4) ON CONFLICT (id) DO NOTHING RETURNING id";
        let register = Query::new(register)
            .bind(scope.tenant().as_str())
            .bind(key.as_str())
            .bind(now_ms.cast_signed())
            .bind(cluster.as_str());
        if self.0.ask(operation, register).await?.is_empty() {
            let tenant = scope.tenant().clone();
            return Err(match self.0.missing(&tenant).await {
                CatalogError::UnknownTenant { .. } => CatalogError::TenantExists { tenant },
                other => other,
            }
            .into());
        }
        Ok(())
    }

    async fn begin_move(
        &self,
        scope: &TenantScope,
        to: &Place,
        token: MoveToken,
    ) -> Result<(), RegistryError> {
        let begin = "UPDATE farshore.tenants SET moving_to = $2, mover = $3 \
            WHERE id = $1 AND NOT erased RETURNING id";
        let begin =
            Query::new(begin).bind(scope.tenant().as_str()).bind(to.to_string()).bind(&token.0[..]);
        if self.0.ask("begin to move a tenant", begin).await?.is_empty() {
            return Err(self.0.missing(scope.tenant()).await.into());
        }
        Ok(())
    }

    async fn end_move(
        &self,
        scope: &TenantScope,
        at: &Place,
        token: MoveToken,
    ) -> Result<(), RegistryError> {
        let end = "UPDATE farshore.tenants SET cluster = $2, moving_to = NULL, mover = NULL \
            WHERE id = $1 AND NOT erased AND mover = $3 RETURNING id";
        let cluster = match at {
            Place::Home => None,
            Place::Cluster(name) => Some(name.as_str()),
        };
        let end = Query::new(end).bind(scope.tenant().as_str()).bind(cluster).bind(&token.0[..]);
        if self.0.ask("end a move", end).await?.is_empty() {
            return Err(RegistryError::Overtaken { tenant: scope.tenant().clone() });
        }
        Ok(())
    }
}

fn cluster(row: &PgRow) -> Result<ClusterRecord, Failure> {
    let name: &str = row.try_get(0)?;
    let connections: i64 = row.try_get(2)?;
    Ok(ClusterRecord {
        name: name.parse().map_err(|error| Failure::Damaged(format!("{error}")))?,
        sealed_url: row.try_get(1)?,
        max_connections: u32::try_from(connections)
            .map_err(|_| Failure::Damaged("the connections of a cluster".to_owned()))?,
        added_at_ms: row.try_get::<i64, _>(3)?.cast_unsigned(),
    })
}

fn placement(row: &PgRow, column: usize) -> Result<Placement, Failure> {
    let place = |text: Option<&str>| {
        let place = text.map(str::parse::<Place>).transpose();
        place.map_err(|error| Failure::Damaged(error.to_string()))
    };
    Ok(Placement {
        at: place(row.try_get(column)?)?.unwrap_or(Place::Home),
        moving_to: place(row.try_get(column + 1)?)?,
    })
}

//! Where tenants are, if not in this data directory: small files beside them.
//!
//! | file | what it says |
//! |---|---|
//! | `tenants/<id>.place` | where the tenant is, and where it is being moved to; without one it is here |
//! | `clusters/<name>.cluster` | how to reach a cluster, sealed |

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use farshore_store::StoreError;
use farshore_store::catalog::CatalogError;
use farshore_store::placement::{
    ClusterName, ClusterRecord, MoveToken, Place, Placement, Registry, RegistryError,
};
use farshore_store::scope::TenantScope;
use farshore_store::sync_core::ids::TenantId;

use crate::catalog::{Shared, SqliteCatalog};
use crate::durable;
use crate::failure::file_error;
use crate::files::{self, Existence, TenantFiles};
use crate::tenant::blocking;

const CLUSTER_EXTENSION: &str = "cluster";
/// Longest file of this kind, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// Bytes before the sealed URL of a cluster: most connections, and when it was added.
const CLUSTER_HEAD_BYTES: usize = 4 + 8;

/// Where a tenant is, and who moves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlaceFile {
    pub placement: Placement,
    pub mover: Option<MoveToken>,
}

impl PlaceFile {
    /// Reads the file of a tenant; `None` where there is none: it is here, if it is anywhere.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        match durable::read_within(path, MAX_FILE_BYTES) {
            Ok(bytes) => {
                let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it names no place");
                Self::parse(&bytes).ok_or_else(damaged).map(Some)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Three lines: where it is, where it goes, and who moves it; the last two may be empty.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?;
        let lines: Vec<&str> = text.split('\n').collect();
        let [at, to, mover, ""] = lines[..] else { return None };
        let moving_to = if to.is_empty() { None } else { Some(to.parse().ok()?) };
        let mover = match mover {
            "" => None,
            mover => Some(MoveToken(HEXLOWER.decode(mover.as_bytes()).ok()?.try_into().ok()?)),
        };
        Some(Self { placement: Placement { at: at.parse().ok()?, moving_to }, mover })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let Placement { at, moving_to } = &self.placement;
        let to = moving_to.as_ref().map(Place::to_string).unwrap_or_default();
        let mover = self.mover.map(|token| HEXLOWER.encode(&token.0)).unwrap_or_default();
        durable::replace(path, format!("{at}\n{to}\n{mover}\n").as_bytes())
    }
}

impl Shared {
    fn cluster_path(&self, name: &ClusterName) -> PathBuf {
        self.clusters.join(format!("{name}.{CLUSTER_EXTENSION}"))
    }

    fn clusters(&self) -> io::Result<Vec<ClusterRecord>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.clusters)? {
            let path = entry?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let stem = stem.filter(|_| path.extension().is_some_and(|of| of == CLUSTER_EXTENSION));
            let Some(name) = stem.and_then(|stem| stem.parse().ok()) else { continue };
            let bytes = durable::read_within(&path, MAX_FILE_BYTES)?;
            let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is no cluster's");
            let (head, sealed_url) =
                bytes.split_at_checked(CLUSTER_HEAD_BYTES).ok_or_else(damaged)?;
            let (connections, added) = head.split_at(4);
            records.push(ClusterRecord {
                name,
                sealed_url: sealed_url.to_vec(),
                max_connections: u32::from_le_bytes(connections.try_into().expect("4 bytes")),
                added_at_ms: u64::from_le_bytes(added.try_into().expect("8 bytes")),
            });
        }
        records.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(records)
    }

    fn put_cluster(&self, cluster: &ClusterRecord) -> io::Result<()> {
        let connections = cluster.max_connections.to_le_bytes();
        let added = cluster.added_at_ms.to_le_bytes();
        let bytes = [&connections[..], &added, &cluster.sealed_url].concat();
        durable::replace(&self.cluster_path(&cluster.name), &bytes)
    }

    fn remove_cluster(&self, cluster: ClusterName) -> Result<(), RegistryError> {
        let operation = "remove a cluster";
        let path = self.cluster_path(&cluster);
        if !path.try_exists().map_err(file_error(operation, &path))? {
            return Err(RegistryError::UnknownCluster { cluster });
        }
        let place = Place::Cluster(cluster.clone());
        let uses = |placement: &Placement| {
            placement.at == place || placement.moving_to.as_ref() == Some(&place)
        };
        let placements = self.placements().map_err(file_error(operation, &self.folder))?;
        let tenants = placements.iter().filter(|(_, placement)| uses(placement)).count() as u64;
        if tenants > 0 {
            return Err(RegistryError::ClusterInUse { cluster, tenants });
        }
        let removed = durable::remove(&path).and_then(|()| durable::sync_folder(&self.clusters));
        Ok(removed.map_err(file_error(operation, &path))?)
    }

    fn placements(&self) -> io::Result<Vec<(TenantId, Placement)>> {
        let mut placements = Vec::new();
        for files in files::placed_in(&self.folder)? {
            if files.existence()? != Existence::Erased
                && let Some(file) = files.place()?
            {
                placements.push((files.tenant().clone(), file.placement));
            }
        }
        placements.sort_by(|left, right| left.0.cmp(&right.0));
        Ok(placements)
    }

    /// Where a tenant is that is registered here; it is only changed by whoever holds its gate.
    fn place(&self, files: &TenantFiles, tenant: &TenantId) -> Result<PlaceFile, CatalogError> {
        let at = match self.existence(files)? {
            Existence::Unknown => {
                return Err(CatalogError::UnknownTenant { tenant: tenant.clone() });
            }
            Existence::Erased => return Err(CatalogError::Erased { tenant: tenant.clone() }),
            Existence::Present => Place::Home,
            Existence::Elsewhere(cluster) => Place::Cluster(cluster),
        };
        let stored = files.place().map_err(file_error("read a tenant's place", &self.folder))?;
        let placement = Placement { at, moving_to: None };
        Ok(stored.unwrap_or(PlaceFile { placement, mover: None }))
    }

    fn write_place(
        &self,
        tenant: &TenantId,
        change: impl FnOnce(PlaceFile) -> Result<PlaceFile, RegistryError>,
    ) -> Result<(), RegistryError> {
        let gate = self.tenants.gate(tenant);
        let _passage = gate.pass();
        let files = self.files(tenant);
        let changed = change(self.place(&files, tenant)?)?;
        let path = files.place_path();
        Ok(changed.write(&path).map_err(file_error("write a tenant's place", &path))?)
    }

    fn register(&self, tenant: TenantId, cluster: ClusterName) -> Result<(), RegistryError> {
        let gate = self.tenants.gate(&tenant);
        let _passage = gate.pass();
        let files = self.files(&tenant);
        match self.existence(&files)? {
            Existence::Unknown => {}
            Existence::Erased => return Err(CatalogError::Erased { tenant }.into()),
            Existence::Present | Existence::Elsewhere(_) => {
                return Err(CatalogError::TenantExists { tenant }.into());
            }
        }
        let placement = Placement { at: Place::Cluster(cluster), moving_to: None };
        let path = files.place_path();
        let written = PlaceFile { placement, mover: None }.write(&path);
        Ok(written.map_err(file_error("register a tenant", &path))?)
    }

    fn end_move(
        &self,
        tenant: &TenantId,
        at: Place,
        token: MoveToken,
    ) -> Result<(), RegistryError> {
        self.write_place(tenant, |file| {
            if file.mover != Some(token) {
                return Err(RegistryError::Overtaken { tenant: tenant.clone() });
            }
            Ok(PlaceFile { placement: Placement { at, moving_to: None }, mover: None })
        })
    }
}

#[async_trait]
impl Registry for SqliteCatalog {
    async fn clusters(&self) -> Result<Vec<ClusterRecord>, StoreError> {
        let (operation, shared) = ("list the clusters", Arc::clone(&self.0));
        let list = move || shared.clusters().map_err(file_error(operation, &shared.clusters));
        blocking(operation, list).await?
    }

    async fn put_cluster(&self, cluster: &ClusterRecord) -> Result<(), StoreError> {
        let (operation, shared, cluster) = ("add a cluster", Arc::clone(&self.0), cluster.clone());
        let put =
            move || shared.put_cluster(&cluster).map_err(file_error(operation, &shared.clusters));
        blocking(operation, put).await?
    }

    async fn remove_cluster(&self, cluster: &ClusterName) -> Result<(), RegistryError> {
        let (shared, cluster) = (Arc::clone(&self.0), cluster.clone());
        blocking("remove a cluster", move || shared.remove_cluster(cluster)).await?
    }

    async fn placement(&self, scope: &TenantScope) -> Result<Placement, CatalogError> {
        let placed = self.run("read a tenant's place", scope, |shared, tenant| {
            shared.place(&shared.files(&tenant), &tenant)
        });
        Ok(placed.await?.placement)
    }

    async fn placements(&self) -> Result<Vec<(TenantId, Placement)>, StoreError> {
        let (operation, shared) = ("list the places of tenants", Arc::clone(&self.0));
        let list = move || shared.placements().map_err(file_error(operation, &shared.folder));
        blocking(operation, list).await?
    }

    async fn register(
        &self,
        scope: &TenantScope,
        cluster: &ClusterName,
        _now_ms: u64,
    ) -> Result<(), RegistryError> {
        let (shared, tenant) = (Arc::clone(&self.0), scope.tenant().clone());
        let cluster = cluster.clone();
        blocking("register a tenant", move || shared.register(tenant, cluster)).await?
    }

    async fn begin_move(
        &self,
        scope: &TenantScope,
        to: &Place,
        token: MoveToken,
    ) -> Result<(), RegistryError> {
        let (shared, tenant, to) = (Arc::clone(&self.0), scope.tenant().clone(), to.clone());
        let begin = move || {
            shared.write_place(&tenant, |file| {
                let placement = Placement { moving_to: Some(to), ..file.placement };
                Ok(PlaceFile { placement, mover: Some(token) })
            })
        };
        blocking("begin to move a tenant", begin).await?
    }

    async fn end_move(
        &self,
        scope: &TenantScope,
        at: &Place,
        token: MoveToken,
    ) -> Result<(), RegistryError> {
        let (shared, tenant, at) = (Arc::clone(&self.0), scope.tenant().clone(), at.clone());
        blocking("end a move", move || shared.end_move(&tenant, at, token)).await?
    }
}

//! The server's disk: stores that outlive the server, behind calls that take time, fail, or never return because the
//! server crashed meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use farshore_store::catalog::{Catalog, CatalogError};
use farshore_store::copy::{Arrival, Arriving, CopyOut, RecordSink};
use farshore_store::devices::{DeviceRecord, DeviceStore};
use farshore_store::memory::MemoryCatalog;
use farshore_store::placement::MoveToken;
use farshore_store::schemas::{ApplySchemaError, SchemaStore};
use farshore_store::scope::{ScopeAuthority, TenantScope};
use farshore_store::signing_keys::{SigningKeyRecord, SigningKeyStore};
use farshore_store::sync::{
    Batch, BucketRow, Chunk, Committed, DeviceProgress, Greeting, Head, PageRead, PageRequest,
    RowKey, SyncStore,
};
use farshore_store::{SharedTenantStore, StoreError};
use farshore_sync_core::digest::{Buckets, DigestKey};
use farshore_sync_core::ids::{CollectionId, DeviceId, Scope, TenantId};
use farshore_sync_core::schema::Schema;
use test_chance::Chance;

use crate::time::Timeline;

/// Calls of one run after which the server is taken for one that goes round in circles: no run needs a tenth of them.
pub const MOST_CALLS: u64 = 100_000;

/// How the disk behaves.
#[derive(Debug, Clone, Copy)]
pub struct DiskProfile {
    /// The longest that a read takes, in milliseconds.
    pub read_ms: u64,
    /// The longest that a commit takes, in milliseconds.
    pub commit_ms: u64,
    /// Pages end with the row that reaches this many bytes, if the server did not want them shorter.
    pub page_bytes: usize,
    /// Pages end with this many rows, if the server did not want them shorter.
    pub page_rows: usize,
}

/// What outlives the server. Clones are the same disk.
#[derive(Clone)]
pub struct Disk(Arc<Shared>);

struct Shared {
    timeline: Timeline,
    seed: u64,
    profile: DiskProfile,
    catalog: Mutex<Arc<MemoryCatalog>>,
    backup: Mutex<Option<MemoryCatalog>>,
    /// Calls that fail before they do anything.
    failing_calls: AtomicU64,
    commits: AtomicU64,
    calls: AtomicU64,
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub fn new(timeline: Timeline, seed: u64, profile: DiskProfile) -> Self {
        let (catalog, _) = MemoryCatalog::open(seed);
        Self(Arc::new(Shared {
            timeline,
            seed,
            profile,
            catalog: Mutex::new(Arc::new(catalog)),
            backup: Mutex::default(),
            failing_calls: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            calls: AtomicU64::new(0),
        }))
    }

    /// The catalog as a server sees it that lives until `alive` is false.
    #[must_use]
    pub fn mount(&self, alive: Arc<AtomicBool>) -> MountedCatalog {
        MountedCatalog { disk: self.clone(), alive }
    }

    /// Creates a tenant.
    ///
    /// # Errors
    /// As [`Catalog::create`].
    pub async fn create(&self, tenant: &TenantId) -> Result<SharedTenantStore, CatalogError> {
        self.catalog().create(&scope(tenant), 0).await
    }

    /// The store of a tenant, without delays and failures: for the run itself and its oracles.
    ///
    /// # Errors
    /// As [`Catalog::open`].
    pub async fn store(&self, tenant: &TenantId) -> Result<SharedTenantStore, CatalogError> {
        self.catalog().open(&scope(tenant)).await
    }

    /// Takes a backup; it replaces the one before.
    pub fn back_up(&self) {
        let copy = self.catalog().backup();
        *lock(&self.0.backup) = Some(copy);
    }

    /// Puts the backup in the place of everything; whether there was one.
    #[must_use]
    pub fn restore(&self) -> bool {
        let copy = lock(&self.0.backup).as_ref().map(MemoryCatalog::backup);
        copy.map(|copy| *lock(&self.0.catalog) = Arc::new(copy)).is_some()
    }

    /// Lets the next calls of servers fail.
    pub fn fail_calls(&self, calls: u64) {
        self.0.failing_calls.store(calls, Ordering::Relaxed);
    }

    /// How many group commits became durable.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.0.commits.load(Ordering::Relaxed)
    }

    /// Whether the server has asked for more than [`MOST_CALLS`] calls: further ones never return.
    #[must_use]
    pub fn is_overworked(&self) -> bool {
        self.0.calls.load(Ordering::Relaxed) > MOST_CALLS
    }

    fn catalog(&self) -> Arc<MemoryCatalog> {
        Arc::clone(&lock(&self.0.catalog))
    }
}

/// The run may act for every tenant.
fn scope(tenant: &TenantId) -> TenantScope {
    ScopeAuthority::for_new_catalog().scope(tenant.clone())
}

/// The catalog in the hands of one life of the server.
pub struct MountedCatalog {
    disk: Disk,
    alive: Arc<AtomicBool>,
}

#[async_trait]
impl Catalog for MountedCatalog {
    async fn create(
        &self,
        scope: &TenantScope,
        now_ms: u64,
    ) -> Result<SharedTenantStore, CatalogError> {
        let store = self.disk.catalog().create(scope, now_ms).await?;
        Ok(self.mounted(store))
    }

    async fn open(&self, scope: &TenantScope) -> Result<SharedTenantStore, CatalogError> {
        let store = self.disk.catalog().open(scope).await?;
        Ok(self.mounted(store))
    }

    async fn erase(&self, scope: &TenantScope) -> Result<(), CatalogError> {
        self.disk.catalog().erase(scope).await
    }

    async fn receive(
        &self,
        scope: &TenantScope,
        arriving: Arriving,
    ) -> Result<Box<dyn Arrival>, CatalogError> {
        self.disk.catalog().receive(scope, arriving).await
    }

    async fn release(&self, scope: &TenantScope) -> Result<(), CatalogError> {
        self.disk.catalog().release(scope).await
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, CatalogError> {
        self.disk.catalog().tenants().await
    }
}

impl MountedCatalog {
    fn mounted(&self, inner: SharedTenantStore) -> SharedTenantStore {
        Arc::new(MountedStore { inner, disk: self.disk.clone(), alive: Arc::clone(&self.alive) })
    }
}

struct MountedStore {
    inner: SharedTenantStore,
    disk: Disk,
    alive: Arc<AtomicBool>,
}

impl MountedStore {
    /// Waits as long as the disk takes. A server that crashed meanwhile never gets further.
    ///
    /// How long depends on what is done and when, not on what was done before: which of two sessions that wake at
    /// one moment comes first is not decided by the run.
    async fn wait(&self, most_ms: u64, salt: u64) {
        let shared = &self.disk.0;
        let mut chance = Chance::apart(shared.seed ^ shared.timeline.elapsed_ms(), salt);
        tokio::time::sleep(Duration::from_millis(chance.below(most_ms + 1))).await;
        shared.calls.fetch_add(1, Ordering::Relaxed);
        if !self.alive.load(Ordering::Relaxed) || self.disk.is_overworked() {
            std::future::pending::<()>().await;
        }
    }

    /// The way to something that only reads.
    async fn reading(&self, operation: &'static str, salt: u64) -> Result<(), StoreError> {
        self.wait(self.disk.0.profile.read_ms, salt).await;
        self.failing(operation)
    }

    fn failing(&self, operation: &'static str) -> Result<(), StoreError> {
        let left = &self.disk.0.failing_calls;
        let fails = left
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |calls| calls.checked_sub(1))
            .is_ok();
        if fails {
            Err(StoreError::database(operation, "the disk of the run fails"))
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl SyncStore for MountedStore {
    async fn head(&self) -> Result<Head, StoreError> {
        self.reading("head", 1).await?;
        self.inner.head().await
    }

    async fn digest_key(&self) -> Result<DigestKey, StoreError> {
        self.inner.digest_key().await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        let commit_ms = self.disk.0.profile.commit_ms;
        self.wait(commit_ms, 2).await;
        self.failing("commit")?;
        let committed = self.inner.commit(batch).await;
        self.disk.0.commits.fetch_add(1, Ordering::Relaxed);
        // From here on it is durable, whether anybody learns of it or not.
        self.wait(commit_ms, 3).await;
        committed
    }

    async fn page(&self, mut request: PageRequest) -> Result<PageRead, StoreError> {
        let salt =
            request.scopes.iter().map(|read| salt_of(read.scope.as_str()) ^ read.after).sum();
        self.reading("page", salt).await?;
        let DiskProfile { page_bytes, page_rows, .. } = self.disk.0.profile;
        request.target_bytes = request.target_bytes.min(page_bytes);
        request.max_rows = request.max_rows.min(page_rows);
        let page = self.inner.page(request).await;
        self.wait(self.disk.0.profile.read_ms, salt).await;
        page
    }

    async fn device_progress(&self, device: DeviceId) -> Result<DeviceProgress, StoreError> {
        self.reading("device progress", salt_of(&device.to_string())).await?;
        self.inner.device_progress(device).await
    }

    async fn greeting(&self, device: DeviceId) -> Result<Greeting, StoreError> {
        Ok(Greeting {
            head: self.head().await?,
            progress: self.device_progress(device).await?,
            digest_key: self.digest_key().await?,
            schema_version: self.schema().await?.map_or(0, |schema| schema.version),
        })
    }

    async fn buckets(
        &self,
        scopes: &[Scope],
    ) -> Result<BTreeMap<(Scope, CollectionId), Buckets>, StoreError> {
        self.reading("buckets", scopes.iter().map(|scope| salt_of(scope.as_str())).sum()).await?;
        self.inner.buckets(scopes).await
    }

    async fn bucket_rows(
        &self,
        scope: &Scope,
        collection: CollectionId,
        bucket: u8,
    ) -> Result<Vec<BucketRow>, StoreError> {
        self.reading("bucket rows", salt_of(scope.as_str()) ^ u64::from(bucket)).await?;
        self.inner.bucket_rows(scope, collection, bucket).await
    }

    async fn chunks(&self, key: RowKey) -> Result<Vec<Chunk>, StoreError> {
        self.reading("chunks", salt_of(&key.1.to_string())).await?;
        self.inner.chunks(key).await
    }

    async fn scrub(&self) -> Result<Vec<(Scope, CollectionId, u8)>, StoreError> {
        self.inner.scrub().await
    }

    async fn purge(&self, older_than_ms: u64) -> Result<u64, StoreError> {
        self.wait(self.disk.0.profile.commit_ms, 4).await;
        self.inner.purge(older_than_ms).await
    }

    async fn freeze(&self, by: MoveToken) -> Result<(), StoreError> {
        self.inner.freeze(by).await
    }

    async fn thaw(&self, by: MoveToken) -> Result<(), StoreError> {
        self.inner.thaw(by).await
    }

    async fn begin_epoch(&self, entropy: u64) -> Result<u64, StoreError> {
        self.inner.begin_epoch(entropy).await
    }
}

#[async_trait]
impl CopyOut for MountedStore {
    async fn copy_out(&self, sink: &mut dyn RecordSink) -> Result<(), StoreError> {
        self.inner.copy_out(sink).await
    }

    async fn copy_since(&self, seq: u64, sink: &mut dyn RecordSink) -> Result<(), StoreError> {
        self.inner.copy_since(seq, sink).await
    }
}

#[async_trait]
impl DeviceStore for MountedStore {
    async fn device(&self, id: DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
        self.reading("device", salt_of(&id.to_string())).await?;
        self.inner.device(id).await
    }

    async fn put_device(&self, device: &DeviceRecord) -> Result<(), StoreError> {
        self.wait(self.disk.0.profile.commit_ms, salt_of(&device.id.to_string())).await;
        self.inner.put_device(device).await
    }

    async fn devices(
        &self,
        after: Option<DeviceId>,
        limit: u32,
    ) -> Result<Vec<DeviceRecord>, StoreError> {
        self.inner.devices(after, limit).await
    }
}

#[async_trait]
impl SigningKeyStore for MountedStore {
    async fn signing_keys(&self) -> Result<Vec<SigningKeyRecord>, StoreError> {
        self.inner.signing_keys().await
    }

    async fn rotate_signing_key(&self, key: &SigningKeyRecord) -> Result<(), StoreError> {
        self.inner.rotate_signing_key(key).await
    }
}

#[async_trait]
impl SchemaStore for MountedStore {
    async fn schema(&self) -> Result<Option<Arc<Schema>>, StoreError> {
        self.inner.schema().await
    }

    async fn apply_schema(&self, schema: &Schema, now_ms: u64) -> Result<(), ApplySchemaError> {
        self.wait(self.disk.0.profile.commit_ms, 5).await;
        self.inner.apply_schema(schema, now_ms).await
    }
}

/// A number that is another for other texts.
fn salt_of(text: &str) -> u64 {
    let hash = blake3::hash(text.as_bytes());
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes")) >> 16
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn a_server_that_goes_round_in_circles_is_stopped_and_seen() {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let profile = DiskProfile { read_ms: 0, commit_ms: 0, page_bytes: 1, page_rows: 1 };
            let disk = Disk::new(Timeline::begin(), 1, profile);
            let tenant: TenantId = "alpha".parse().unwrap();
            disk.create(&tenant).await.unwrap();
            let mounted = disk.mount(Arc::new(AtomicBool::new(true)));
            let store = mounted.open(&scope(&tenant)).await.unwrap();
            let circle = async { while store.head().await.is_ok() {} };
            assert!(tokio::time::timeout(Duration::from_secs(1), circle).await.is_err());
            assert!(disk.is_overworked());
        });
    }
}

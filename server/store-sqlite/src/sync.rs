//! The hot path of one tenant.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use farshore_store::StoreError;
use farshore_store::placement::MoveToken;
use farshore_store::sync::{
    Batch, BucketRow, Chunk, Committed, DeviceProgress, Greeting, Head, PageRead, PageRequest,
    RowKey, SyncStore,
};
use farshore_store::sync_core::digest::{Buckets, DigestKey};
use farshore_store::sync_core::ids::{CollectionId, DeviceId, Scope};

use crate::tenant::{SqliteTenant, blocking};

pub(crate) mod commit;
mod copy;
mod load;
mod page;
mod purge;
mod reception;
pub(crate) mod standing;
mod sums;
pub(crate) mod unwritten;
mod write;

#[async_trait]
impl SyncStore for SqliteTenant {
    async fn head(&self) -> Result<Head, StoreError> {
        self.read("read the head", |_, snapshot| Ok(standing::read(snapshot)?.head)).await
    }

    async fn digest_key(&self) -> Result<DigestKey, StoreError> {
        let read = self.read("read the digest key", |_, snapshot| standing::read(snapshot));
        Ok(read.await?.digest_key)
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        self.commit_batch(batch)
    }

    async fn page(&self, request: PageRequest) -> Result<PageRead, StoreError> {
        self.read("read a page", move |tenant, snapshot| page::read(tenant, snapshot, &request))
            .await
    }

    async fn device_progress(&self, device: DeviceId) -> Result<DeviceProgress, StoreError> {
        self.read("read a device's progress", move |_, snapshot| {
            let mark = load::mark(snapshot, device)?.unwrap_or_default();
            Ok(DeviceProgress { high_water: mark.high_water, settled: mark.settled })
        })
        .await
    }

    async fn greeting(&self, device: DeviceId) -> Result<Greeting, StoreError> {
        self.read("greet a device", move |_, snapshot| {
            let standing = standing::read(snapshot)?;
            let mark = load::mark(snapshot, device)?.unwrap_or_default();
            Ok(Greeting {
                head: standing.head,
                progress: DeviceProgress { high_water: mark.high_water, settled: mark.settled },
                digest_key: standing.digest_key,
                schema_version: commit::schema_version(snapshot)?.unwrap_or(0),
            })
        })
        .await
    }

    async fn buckets(
        &self,
        scopes: &[Scope],
    ) -> Result<BTreeMap<(Scope, CollectionId), Buckets>, StoreError> {
        let scopes = scopes.to_vec();
        self.read("read sums", move |tenant, snapshot| sums::buckets(tenant, snapshot, &scopes))
            .await
    }

    async fn bucket_rows(
        &self,
        scope: &Scope,
        collection: CollectionId,
        bucket: u8,
    ) -> Result<Vec<BucketRow>, StoreError> {
        let scope = scope.clone();
        self.read("read the rows of a bucket", move |tenant, snapshot| {
            sums::bucket_rows(tenant, snapshot, &scope, collection, bucket)
        })
        .await
    }

    async fn chunks(&self, key: RowKey) -> Result<Vec<Chunk>, StoreError> {
        self.read("read document changes", move |_, snapshot| page::all_chunks(snapshot, key)).await
    }

    async fn scrub(&self) -> Result<Vec<(Scope, CollectionId, u8)>, StoreError> {
        self.read("scrub", sums::scrub).await
    }

    async fn purge(&self, older_than_ms: u64) -> Result<u64, StoreError> {
        self.write("purge", move |_, transaction| purge::purge(transaction, older_than_ms)).await
    }

    async fn freeze(&self, by: MoveToken) -> Result<(), StoreError> {
        let tenant = Arc::clone(&self.0);
        blocking("freeze a tenant", move || tenant.freeze(by)).await
    }

    async fn thaw(&self, by: MoveToken) -> Result<(), StoreError> {
        self.0.thaw(by);
        Ok(())
    }

    async fn begin_epoch(&self, entropy: u64) -> Result<u64, StoreError> {
        self.write("begin an epoch", move |_, transaction| {
            let epoch = standing::read(transaction)?.head.next_epoch(entropy);
            standing::set_epoch(transaction, epoch)?;
            Ok(epoch)
        })
        .await
    }
}

//! The hot path of one tenant.

use std::collections::BTreeMap;

use async_trait::async_trait;
use farshore_store::StoreError;
use farshore_store::placement::MoveToken;
use farshore_store::sync::{
    Batch, BucketRow, Chunk, Committed, DeviceProgress, Greeting, Head, PageRead, PageRequest,
    RowKey, SyncStore,
};
use farshore_store::sync_core::digest::{Buckets, DigestKey};
use farshore_store::sync_core::ids::{CollectionId, DeviceId, Scope};

use crate::database::Pace;
use crate::tenant::{PostgresTenant, Standing, TenantTransaction};

mod commit;
mod copy;
mod load;
mod page;
mod purge;
pub(crate) mod reception;
mod sums;
mod write;

impl PostgresTenant {
    async fn standing(&self, operation: &'static str) -> Result<Standing, StoreError> {
        self.during(operation, async {
            let read = self.0.read(Pace::Hot).await?;
            read.transaction.end(Ok(read.standing)).await
        })
        .await
    }
}

#[async_trait]
impl SyncStore for PostgresTenant {
    async fn head(&self) -> Result<Head, StoreError> {
        Ok(self.standing("read the head").await?.head)
    }

    async fn digest_key(&self) -> Result<DigestKey, StoreError> {
        Ok(self.standing("read the digest key").await?.digest_key)
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        self.during("commit", commit::commit(&self.0, batch)).await
    }

    async fn page(&self, request: PageRequest) -> Result<PageRead, StoreError> {
        self.during("read a page", async {
            let mut read = self.0.read(Pace::Hot).await?;
            let head = read.standing.head;
            let page = page::read(&self.0.names, &mut read.transaction, head, &request).await;
            read.transaction.end(page).await
        })
        .await
    }

    async fn device_progress(&self, device: DeviceId) -> Result<DeviceProgress, StoreError> {
        self.during("read a device's progress", async {
            let mut read = self.0.read(Pace::Hot).await?;
            let progress = load::progress(&self.0.names, &mut read.transaction, device).await;
            read.transaction.end(progress.map(|(progress, _)| progress)).await
        })
        .await
    }

    async fn greeting(&self, device: DeviceId) -> Result<Greeting, StoreError> {
        self.during("greet a device", async {
            let TenantTransaction { mut transaction, standing } = self.0.read(Pace::Hot).await?;
            let found = load::progress(&self.0.names, &mut transaction, device).await;
            let (progress, version) = transaction.end(found).await?;
            Ok(Greeting {
                head: standing.head,
                progress,
                digest_key: standing.digest_key,
                schema_version: version,
            })
        })
        .await
    }

    async fn buckets(
        &self,
        scopes: &[Scope],
    ) -> Result<BTreeMap<(Scope, CollectionId), Buckets>, StoreError> {
        self.during("read sums", async {
            let mut read = self.0.read(Pace::Hot).await?;
            let buckets = sums::buckets(&self.0.names, &mut read.transaction, scopes).await;
            read.transaction.end(buckets).await
        })
        .await
    }

    async fn bucket_rows(
        &self,
        scope: &Scope,
        collection: CollectionId,
        bucket: u8,
    ) -> Result<Vec<BucketRow>, StoreError> {
        self.during("read the rows of a bucket", async {
            let mut read = self.0.read(Pace::Hot).await?;
            let names = &self.0.names;
            let rows =
                sums::bucket_rows(names, &mut read.transaction, scope, collection, bucket).await;
            read.transaction.end(rows).await
        })
        .await
    }

    async fn chunks(&self, key: RowKey) -> Result<Vec<Chunk>, StoreError> {
        self.during("read document changes", async {
            let mut read = self.0.read(Pace::Hot).await?;
            let chunks = page::all_chunks(&self.0.names, &mut read.transaction, key).await;
            read.transaction.end(chunks).await
        })
        .await
    }

    async fn scrub(&self) -> Result<Vec<(Scope, CollectionId, u8)>, StoreError> {
        self.during("scrub", async {
            let mut read = self.0.read(Pace::Maintenance).await?;
            let digest_key = read.standing.digest_key;
            let differing = sums::scrub(&self.0.names, &mut read.transaction, digest_key).await;
            read.transaction.end(differing).await
        })
        .await
    }

    async fn purge(&self, older_than_ms: u64) -> Result<u64, StoreError> {
        self.during("purge", async {
            let mut write = self.0.write(Pace::Maintenance).await?;
            let purged = purge::purge(&self.0.names, &mut write.transaction, older_than_ms).await;
            write.transaction.end(purged).await
        })
        .await
    }

    fn may_begin_anew(&self) -> bool {
        true
    }

    async fn freeze(&self, by: MoveToken) -> Result<(), StoreError> {
        self.during(
            "freeze a tenant",
            self.0.set_frozen("UPDATE main.standing SET frozen_by = $1", by),
        )
        .await
    }

    async fn thaw(&self, by: MoveToken) -> Result<(), StoreError> {
        let thaw = "UPDATE main.standing SET frozen_by = NULL WHERE frozen_by = $1";
        self.during("thaw a tenant", self.0.set_frozen(thaw, by)).await
    }

    async fn begin_epoch(&self, entropy: u64) -> Result<u64, StoreError> {
        self.during("begin an epoch", async {
            let mut write = self.0.write(Pace::Hot).await?;
            let epoch = write.standing.head.next_epoch(entropy);
            let set = write::set_epoch(&self.0.names, &mut write.transaction, epoch).await;
            write.transaction.end(set.map(|()| epoch)).await
        })
        .await
    }
}

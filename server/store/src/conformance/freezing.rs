//! A tenant that is moved takes no writes.

use farshore_sync_core::schema::Schema;

use super::Storage;
use super::fixture::{commit_notes, note_batch, sample_store};
use super::reader::Reader;
use super::sample::schema;
use crate::StoreError;
use crate::placement::MoveToken;
use crate::schemas::ApplySchemaError;

const MOVE: MoveToken = MoveToken([1; 16]);
const LATER_MOVE: MoveToken = MoveToken([2; 16]);

/// A frozen tenant is read as ever; nothing of it changes, and nothing is lost by that.
pub async fn a_frozen_tenant_takes_no_writes(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    commit_notes(&store, 3).await;
    let before = Reader::everything(&store).await;
    let batch = note_batch(&*store, 2).await;
    store.freeze(MOVE).await.unwrap();
    let frozen = |error: StoreError| assert!(matches!(error, StoreError::Frozen), "{error}");
    frozen(store.commit(batch.clone()).await.unwrap_err());
    frozen(store.purge(u64::MAX).await.unwrap_err());
    frozen(store.begin_epoch(1).await.unwrap_err());
    let mut next: Schema = schema();
    next.version += 1;
    let refused = store.apply_schema(&next, 0).await.unwrap_err();
    assert!(matches!(refused, ApplySchemaError::Store(StoreError::Frozen)), "{refused}");
    assert!(Reader::everything(&store).await == before, "what is read is as it was");
    assert_eq!(store.scrub().await.unwrap(), []);
    store.thaw(MOVE).await.unwrap();
    assert_eq!(store.commit(batch).await.unwrap().seq, 5);
}

/// Who has taken a move over keeps the tenant frozen, whatever the one before does.
pub async fn only_the_last_mover_thaws(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    store.freeze(MOVE).await.unwrap();
    store.freeze(LATER_MOVE).await.unwrap();
    store.thaw(MOVE).await.unwrap();
    let batch = note_batch(&*store, 1).await;
    assert!(matches!(store.commit(batch).await, Err(StoreError::Frozen)));
    store.thaw(LATER_MOVE).await.unwrap();
    store.thaw(LATER_MOVE).await.unwrap();
    commit_notes(&store, 1).await;
}

//! The versions of a schema.

use farshore_sync_core::schema::Schema;

use super::Storage;
use super::fixture::{sample_store, scope_of};
use super::sample::{NOW_MS, schema};
use crate::schemas::ApplySchemaError;

/// The sample schema with one more column.
fn second_version() -> Schema {
    let json = schema().to_json().replace("\"version\":1", "\"version\":2");
    let more = r#"{"id":6,"name":"memo","type":"text"},{"id":1,"name":"title""#;
    Schema::parse(&json.replacen(r#"{"id":1,"name":"title""#, more, 1)).unwrap()
}

/// Before the first version there is none.
pub async fn a_tenant_begins_without_a_schema(storage: &dyn Storage) {
    let (catalog, authority) = storage.open().await;
    let store = catalog.create(&scope_of(&authority, "demo"), NOW_MS).await.unwrap();
    assert_eq!(store.schema().await.unwrap(), None);
}

/// A version that only adds becomes the newest one.
pub async fn a_new_version_replaces_the_last_one(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    assert_eq!(store.schema().await.unwrap().as_deref(), Some(&schema()));
    store.apply_schema(&second_version(), NOW_MS).await.unwrap();
    assert_eq!(store.schema().await.unwrap().as_deref(), Some(&second_version()));
}

/// Registering the newest version again is no error.
pub async fn the_same_version_again_changes_nothing(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    store.apply_schema(&schema(), NOW_MS + 1).await.unwrap();
    assert_eq!(store.schema().await.unwrap().as_deref(), Some(&schema()));
}

/// An earlier version, and one that takes something away, are refused.
pub async fn what_breaks_the_last_version_is_refused(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    store.apply_schema(&second_version(), NOW_MS).await.unwrap();
    let mut broken = second_version();
    broken.version = 3;
    broken.collections.pop();
    for refused in [schema(), broken] {
        let result = store.apply_schema(&refused, NOW_MS).await;
        assert!(matches!(result, Err(ApplySchemaError::Refused(_))), "{result:?}");
        assert_eq!(store.schema().await.unwrap().as_deref(), Some(&second_version()));
    }
}

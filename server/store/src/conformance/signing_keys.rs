//! The signing keys of a tenant.

use super::Storage;
use super::fixture::sample_store;
use super::sample::NOW_MS;
use crate::signing_keys::{SigningAlgorithm, SigningKeyRecord};

fn key(kid: &str, algorithm: SigningAlgorithm, created_at_ms: u64) -> SigningKeyRecord {
    SigningKeyRecord {
        kid: kid.to_owned(),
        algorithm,
        sealed_private_key: vec![0, 1, 255],
        public_jwk: r#"{"kty":"OKP"}"#.to_owned(),
        created_at_ms,
        retired_at_ms: None,
    }
}

/// Before the first rotation there is none.
pub async fn a_tenant_begins_without_keys(storage: &dyn Storage) {
    assert_eq!(sample_store(storage).await.signing_keys().await.unwrap(), []);
}

/// The newest key comes first and is the only one in use; an earlier retirement stays as it was.
pub async fn rotation_retires_the_earlier_key(storage: &dyn Storage) {
    let store = sample_store(storage).await;
    let first = key("first", SigningAlgorithm::Rs256, NOW_MS);
    // In the same millisecond: the order of rotation counts, not the clock.
    let second = key("second", SigningAlgorithm::EdDsa, NOW_MS);
    let third = key("third", SigningAlgorithm::EdDsa, NOW_MS + 9);
    for key in [&first, &second, &third] {
        store.rotate_signing_key(key).await.unwrap();
    }
    let first = SigningKeyRecord { retired_at_ms: Some(NOW_MS), ..first };
    let second = SigningKeyRecord { retired_at_ms: Some(NOW_MS + 9), ..second };
    assert_eq!(store.signing_keys().await.unwrap(), [third, second, first]);
}

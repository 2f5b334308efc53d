//! Nothing on the disk can be read without the keys.

use std::fs;

use farshore_store::catalog::Catalog as _;
use farshore_store::signing_keys::{SigningAlgorithm, SigningKeyRecord};

use super::{Disk, scope};

/// Stands in for what nobody may read; no word of it is in any file by chance.
const CANARY: &str = "canary-4f1c9a7be2d8";

#[tokio::test]
async fn no_file_holds_plain_text() {
    let disk = Disk::new();
    let (catalog, authority) = disk.catalog();
    let store = catalog.create(&scope(&authority, "demo"), 0).await.unwrap();
    let key = SigningKeyRecord {
        kid: CANARY.to_owned(),
        algorithm: SigningAlgorithm::EdDsa,
        sealed_private_key: CANARY.as_bytes().to_vec(),
        public_jwk: CANARY.repeat(2_000),
        created_at_ms: 0,
        retired_at_ms: None,
    };
    store.rotate_signing_key(&key).await.unwrap();
    // While it is open, with a log, and after a restart.
    for _ in 0..2 {
        let names = disk.files();
        assert!(names.contains(&"demo.db".to_owned()), "{names:?}");
        for name in names {
            let content = fs::read(disk.tenants().join(&name)).unwrap();
            for plain in [CANARY.as_bytes(), b"SQLite format 3", b"signing_keys"] {
                let found = content.windows(plain.len()).any(|window| window == plain);
                assert!(!found, "{name} holds {}", String::from_utf8_lossy(plain));
            }
        }
        let (catalog, authority) = disk.catalog();
        let store = catalog.open(&scope(&authority, "demo")).await.unwrap();
        assert_eq!(store.signing_keys().await.unwrap(), std::slice::from_ref(&key));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_folder_belongs_to_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let disk = Disk::new();
    let (catalog, authority) = disk.catalog();
    catalog.create(&scope(&authority, "demo"), 0).await.unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(disk.tenants()), 0o700);
    assert_eq!(mode(disk.tenants().join("demo.key")), 0o600);
}

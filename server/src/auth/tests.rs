//! Principals, rights that change under them, and keys that come and go.
//!
//! - `attacks`: tokens that must be refused, each for its own reason.

mod attacks;

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD as BASE64;
use farshore_api::grant::parse_grant;
use farshore_store::SharedTenantStore;
use farshore_store::catalog::Catalog;
use farshore_store::devices::DeviceRecord;
use farshore_store::memory::MemoryCatalog;
use farshore_store::sealing::MasterKey;
use farshore_store::signing_keys::{SigningAlgorithm, SigningKeyRecord};
use farshore_sync_core::ids::{DeviceId, TenantId, UserId};
use serde_json::{Value, json};

use super::authenticator::DeviceToken;
use super::operator_key::{OperatorKey, OperatorKeyError};
use super::*;
use crate::clock::{Clock as _, ManualClock};
use crate::config::{Config, Settings, TokenConfig};

const NOW_MS: u64 = 1_800_000_000_000;
const DAY_MS: u64 = 86_400_000;
const DEVICE: DeviceId = DeviceId::from_bytes([7; 16]);
const USER: UserId = UserId::from_bytes([9; 16]);

/// Two tenants, each with a key and the same device.
struct World {
    auth: Authenticator,
    operator_key: OperatorKey,
    catalog: Arc<MemoryCatalog>,
    master_key: MasterKey,
    clock: ManualClock,
    tokens: TokenConfig,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let clock = ManualClock::at(NOW_MS);
        let master_key = MasterKey::generate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let key = || OperatorKey::open_or_create(dir.path(), &master_key, NOW_MS).unwrap();
        let tokens = Config::from_settings(&Settings::defaults()).unwrap().tokens;
        let (catalog, authority) = MemoryCatalog::open(1);
        let catalog = Arc::new(catalog);
        let auth = Authenticator::new(
            catalog.clone(),
            authority,
            master_key.clone(),
            key(),
            tokens.clone(),
            Arc::new(clock.clone()),
        );
        let operator_key = key();
        let world = Self { auth, operator_key, catalog, master_key, clock, tokens, _dir: dir };
        world.add_tenant("acme", SigningAlgorithm::EdDsa).await;
        world.add_tenant("other", SigningAlgorithm::Rs256).await;
        world
    }

    async fn add_tenant(&self, slug: &str, algorithm: SigningAlgorithm) {
        let scope = self.auth.workflow_scope(tenant(slug));
        let store = self.catalog.create(&scope, NOW_MS).await.unwrap();
        store
            .rotate_signing_key(&self.auth.new_key(&scope, algorithm).await.unwrap())
            .await
            .unwrap();
        store.put_device(&device(&["tenant:rw", "site/7:r"])).await.unwrap();
    }

    async fn store(&self, slug: &str) -> SharedTenantStore {
        self.catalog.open(&self.auth.workflow_scope(tenant(slug))).await.unwrap()
    }

    async fn key(&self, slug: &str) -> SigningKeyRecord {
        self.store(slug).await.signing_keys().await.unwrap().remove(0)
    }

    /// A good token of a tenant.
    async fn token(&self, slug: &str, scopes: &[&str]) -> String {
        let token =
            DeviceToken { device: DEVICE, user: USER, grants: grants(scopes), lifetime_ms: DAY_MS };
        let scope = self.auth.workflow_scope(tenant(slug));
        self.auth.sign(&scope, &self.key(slug).await, &token).unwrap().0
    }

    /// A token that a tenant's key signed, whatever it says.
    async fn signed(&self, slug: &str, claims: &Value) -> String {
        let record = self.key(slug).await;
        signing_key::SigningKey::open(&record, &self.master_key).unwrap().sign(claims).unwrap()
    }

    /// What a good token of a tenant says.
    fn claims(&self, slug: &str) -> Value {
        let now_s = self.clock.now_ms() / 1_000;
        json!({
            "iss": self.auth.issuer(&tenant(slug)), "tid": slug, "sub": DEVICE, "uid": USER,
            "aud": "farshore.sync", "scopes": ["tenant:rw"], "iat": now_s, "nbf": now_s,
            "exp": now_s + 3_600, "jti": "1",
        })
    }

    async fn refusal(&self, token: &str) -> String {
        let error = self.auth.device(token).await.expect_err("the token was accepted");
        let debug = format!("{error:?}");
        debug.split([' ', '(']).next().unwrap_or_default().to_owned()
    }
}

fn tenant(slug: &str) -> TenantId {
    slug.parse().unwrap()
}

fn grants(scopes: &[&str]) -> Vec<farshore_sync_core::wire::Grant> {
    scopes.iter().map(|scope| parse_grant(scope).unwrap()).collect()
}

fn device(scopes: &[&str]) -> DeviceRecord {
    let (name, grants) = ("tablet".to_owned(), grants(scopes));
    DeviceRecord { id: DEVICE, user: USER, name, grants, suspended: false, created_at_ms: NOW_MS }
}

fn part(token: &str, index: usize) -> Value {
    serde_json::from_slice(&BASE64.decode(token.split('.').nth(index).unwrap().as_bytes()).unwrap())
        .unwrap()
}

#[tokio::test]
async fn a_good_token_gives_the_rights_that_token_and_record_both_give() {
    let world = World::new().await;
    for slug in ["acme", "other"] {
        let token = world.token(slug, &["tenant:r", "site/7:rw", "site/8:rw"]).await;
        let principal = world.auth.device(&token).await.unwrap();
        assert_eq!(principal.tenant().as_str(), slug);
        assert_eq!((principal.device(), principal.user()), (DEVICE, USER));
        assert_eq!(principal.grants(), grants(&["site/7:r", "tenant:r"]));
        assert_eq!(principal.expires_at_ms(), NOW_MS + DAY_MS + world.tokens.leeway_ms);
    }
}

#[tokio::test]
async fn a_token_is_good_until_it_expires_with_the_leeway() {
    let world = World::new().await;
    let token = world.token("acme", &["tenant:rw"]).await;
    let principal = world.auth.device(&token).await.unwrap();
    world.clock.advance(DAY_MS + world.tokens.leeway_ms - 1);
    world.auth.device(&token).await.unwrap();
    world.auth.reauthorise(&principal).await.unwrap();
    world.clock.advance(1);
    assert_eq!(world.refusal(&token).await, "Expired");
    assert!(matches!(world.auth.reauthorise(&principal).await.unwrap_err(), AuthError::Expired));
}

#[tokio::test]
async fn rights_that_change_are_seen_by_the_next_look() {
    let world = World::new().await;
    let token = world.token("acme", &["tenant:rw", "site/7:rw"]).await;
    let principal = world.auth.device(&token).await.unwrap();
    let store = world.store("acme").await;

    store.put_device(&device(&["tenant:r"])).await.unwrap();
    let narrower = world.auth.reauthorise(&principal).await.unwrap();
    assert_eq!(narrower.grants(), grants(&["tenant:r"]));
    store.put_device(&device(&["tenant:rw", "site/9:rw"])).await.unwrap();
    let again = world.auth.reauthorise(&narrower).await.unwrap();
    assert_eq!(again.grants(), grants(&["tenant:rw"]), "no more than the token says");

    store.put_device(&DeviceRecord { suspended: true, ..device(&["tenant:rw"]) }).await.unwrap();
    assert!(matches!(world.auth.reauthorise(&principal).await.unwrap_err(), AuthError::Suspended));
    assert_eq!(world.refusal(&token).await, "Suspended");
    let user = UserId::from_bytes([1; 16]);
    store.put_device(&DeviceRecord { user, ..device(&["tenant:rw"]) }).await.unwrap();
    assert!(matches!(world.auth.reauthorise(&principal).await.unwrap_err(), AuthError::WrongUser));

    world.catalog.erase(&world.auth.workflow_scope(tenant("acme"))).await.unwrap();
    world.auth.keys_changed(&tenant("acme"));
    assert!(matches!(world.auth.reauthorise(&principal).await.unwrap_err(), AuthError::UnknownKey));
}

#[tokio::test]
async fn a_rotated_key_verifies_until_nothing_that_it_signed_can_be_valid() {
    let world = World::new().await;
    let scope = world.auth.workflow_scope(tenant("acme"));
    let before = world.token("acme", &["tenant:rw"]).await;
    world.auth.device(&before).await.unwrap();
    let new = world.auth.new_key(&scope, SigningAlgorithm::EdDsa).await.unwrap();
    world.store("acme").await.rotate_signing_key(&new).await.unwrap();

    // Nobody told the authenticator: it looks again for a key that it does not know, but not at once.
    let after = world.token("acme", &["tenant:rw"]).await;
    assert_eq!(world.refusal(&after).await, "UnknownKey");
    world.clock.advance(5_000);
    world.auth.device(&after).await.unwrap();
    world.auth.device(&before).await.unwrap();
    assert_eq!(world.auth.key_set(&tenant("acme")).await.unwrap().len(), 2);

    // The old key was retired when the new one was made.
    world.clock.advance(world.tokens.device_max_ms + world.tokens.leeway_ms - 5_001);
    assert_eq!(world.auth.key_set(&tenant("acme")).await.unwrap().len(), 2);
    world.clock.advance(1);
    assert_eq!(world.refusal(&before).await, "UnknownKey");
    assert_eq!(world.auth.key_set(&tenant("acme")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_of_which_the_authenticator_is_told_verifies_at_once() {
    let world = World::new().await;
    let scope = world.auth.workflow_scope(tenant("acme"));
    world.auth.device(&world.token("acme", &["tenant:rw"]).await).await.unwrap();
    let new = world.auth.new_key(&scope, SigningAlgorithm::EdDsa).await.unwrap();
    world.store("acme").await.rotate_signing_key(&new).await.unwrap();
    world.auth.keys_changed(&tenant("acme"));
    world.auth.device(&world.token("acme", &["tenant:rw"]).await).await.unwrap();
}

#[tokio::test]
async fn a_token_has_a_name_of_its_own_and_says_when_it_expires() {
    let world = World::new().await;
    let scope = world.auth.workflow_scope(tenant("acme"));
    let key = world.key("acme").await;
    let lifetime_ms = 61_999;
    let token = DeviceToken { device: DEVICE, user: USER, grants: vec![], lifetime_ms };
    let (one, expires_at_ms) = world.auth.sign(&scope, &key, &token).unwrap();
    assert_eq!(expires_at_ms, NOW_MS + 61_000, "claims count in seconds");
    assert_eq!(part(&one, 1)["exp"], json!(expires_at_ms / 1_000));
    let (other, _) = world.auth.sign(&scope, &key, &token).unwrap();
    let names = [&one, &other].map(|token| part(token, 1)["jti"].as_str().unwrap().to_owned());
    assert_ne!(names[0], names[1]);
    assert!(names.iter().all(|name| name.len() == 32), "{names:?}");
}

#[tokio::test]
async fn a_key_that_was_moved_or_altered_verifies_nothing() {
    let world = World::new().await;
    let good = world.key("acme").await;
    let other_jwk = world.key("other").await.public_jwk;
    let foreign_kid = good.kid.replace("acme", "other");
    for (what, record) in [
        ("another tenant's", SigningKeyRecord { kid: foreign_kid, ..good.clone() }),
        ("another public half", SigningKeyRecord { public_jwk: other_jwk, ..good.clone() }),
        (
            "another algorithm",
            SigningKeyRecord { algorithm: SigningAlgorithm::Rs256, ..good.clone() },
        ),
        ("no JWK", SigningKeyRecord { public_jwk: "{}".to_owned(), ..good.clone() }),
    ] {
        let owner = key_id::KeyOwner::Tenant(tenant("acme"));
        assert!(verifying_key::VerifyingKey::from_record(&owner, &record).is_err(), "{what}");
    }
    let moved = SigningKeyRecord { kid: world.key("other").await.kid, ..good.clone() };
    assert!(signing_key::SigningKey::open(&moved, &world.master_key).is_err());
    let another = MasterKey::generate().unwrap();
    let error = signing_key::SigningKey::open(&good, &another).unwrap_err().to_string();
    assert!(error.ends_with("it was sealed under another master key"), "{error}");
}

#[tokio::test]
async fn operators_and_devices_cannot_stand_in_for_each_other() {
    let world = World::new().await;
    let operator = world.operator_key.mint("ops", &world.tokens, NOW_MS).unwrap();
    assert_eq!(world.auth.operator(&operator).unwrap().subject(), "ops");
    assert_eq!(world.refusal(&operator).await, "UnknownKey");
    let device = world.token("acme", &["tenant:rw"]).await;
    assert!(matches!(world.auth.operator(&device).unwrap_err(), AuthError::UnknownKey));

    // A tenant that signs what an operator's token says.
    let mut claims = part(&operator, 1);
    claims["iss"] = json!(world.auth.issuer(&tenant("acme")));
    let forged = world.signed("acme", &claims).await;
    assert!(matches!(world.auth.operator(&forged).unwrap_err(), AuthError::UnknownKey));
    // Operators of another server, whatever this one may call itself.
    let elsewhere = tempfile::tempdir().unwrap();
    let key = OperatorKey::open_or_create(elsewhere.path(), &world.master_key, NOW_MS).unwrap();
    let foreign = key.mint("ops", &world.tokens, NOW_MS).unwrap();
    assert!(matches!(world.auth.operator(&foreign).unwrap_err(), AuthError::UnknownKey));

    world.clock.advance(world.tokens.operator_ms + world.tokens.leeway_ms);
    assert!(matches!(world.auth.operator(&operator).unwrap_err(), AuthError::Expired));
}

#[tokio::test]
async fn nothing_secret_shows() {
    let world = World::new().await;
    let token = world.token("acme", &["tenant:rw"]).await;
    let principal = world.auth.device(&token).await.unwrap();
    let key = world.key("acme").await;
    let signing = signing_key::SigningKey::open(&key, &world.master_key).unwrap();
    for shown in [
        format!("{principal:?}"),
        format!("{:?} {:?}", world.auth, world.operator_key),
        format!("{signing:?} {key:?}"),
    ] {
        assert!(!shown.contains(&token) && !shown.contains("content: \""), "{shown}");
        assert!(shown.len() < 2_000, "{shown}");
    }
    assert_eq!(format!("{:?}", world.auth), "Authenticator { .. }");
    assert!(format!("{principal:?}").contains("acme"));
    assert!(format!("{signing:?}").contains(&key.kid));
}

#[test]
fn the_operators_key_opens_with_its_master_key_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let master_key = MasterKey::generate().unwrap();
    let missing = OperatorKey::open(dir.path(), &master_key).unwrap_err().to_string();
    assert!(
        missing.ends_with("there is no operator key; start the server on this directory first"),
        "{missing}"
    );
    let made = OperatorKey::open_or_create(dir.path(), &master_key, NOW_MS).unwrap();
    let again = OperatorKey::open_or_create(dir.path(), &master_key, NOW_MS).unwrap();
    assert_eq!(made.verifying().kid, again.verifying().kid);

    let another = MasterKey::generate().unwrap();
    let error = OperatorKey::open_or_create(dir.path(), &another, NOW_MS).unwrap_err().to_string();
    assert!(error.ends_with("it was sealed under another master key"), "{error}");
    std::fs::write(dir.path().join(operator_key::OPERATOR_KEY_FILE), "{}").unwrap();
    let error =
        OperatorKey::open_or_create(dir.path(), &master_key, NOW_MS).unwrap_err().to_string();
    assert!(error.ends_with("the operator key is damaged"), "{error}");

    // What cannot be read is not taken for nothing, and nothing is written over it.
    let path = dir.path().join(operator_key::OPERATOR_KEY_FILE);
    std::fs::write(&path, [0xff]).unwrap();
    let error = OperatorKey::open_or_create(dir.path(), &master_key, NOW_MS).unwrap_err();
    assert!(matches!(error, OperatorKeyError::File { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), [0xff]);
}

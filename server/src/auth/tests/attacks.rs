//! Tokens that must be refused, each for its own reason.

use data_encoding::BASE64URL_NOPAD as BASE64;
use farshore_sync_core::ids::{DeviceId, UserId};
use farshore_sync_core::wire::limits::MAX_TOKEN_BYTES;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{NOW_MS, World, part, tenant};

/// A token with one of its three parts replaced.
fn with_part(token: &str, index: usize, part: &str) -> String {
    let mut parts: Vec<&str> = token.split('.').collect();
    parts[index] = part;
    parts.join(".")
}

fn encoded(json: &Value) -> String {
    BASE64.encode(json.to_string().as_bytes())
}

#[tokio::test]
async fn an_attack_through_the_header_is_refused() {
    let world = World::new().await;
    let token = world.token("other", &["tenant:rw"]).await;
    let with = |claim: &str, value: Value| {
        let mut header = part(&token, 0);
        header[claim] = value;
        with_part(&token, 0, &encoded(&header))
    };
    let acme = world.key("acme").await.kid;
    let operators = world.operator_key.verifying().kid.clone();
    let jwk: Value = serde_json::from_str(&world.key("other").await.public_jwk).unwrap();
    for (attack, token, refusal) in [
        ("no algorithm", with("alg", json!("none")), "Malformed"),
        ("nothing signed", with_part(&with("alg", json!("none")), 2, ""), "Malformed"),
        ("no algorithm, disguised", with("alg", json!("nOnE")), "Malformed"),
        ("another one of the family", with("alg", json!("RS384")), "WrongAlgorithm"),
        ("another padding", with("alg", json!("PS256")), "WrongAlgorithm"),
        ("another family", with("alg", json!("EdDSA")), "WrongAlgorithm"),
        ("a symmetric one", with("alg", json!("HS256")), "WrongAlgorithm"),
        ("no kid", with("kid", json!(null)), "Malformed"),
        ("kid of another tenant", with("kid", json!(acme)), "WrongAlgorithm"),
        ("kid of the operators", with("kid", json!(operators)), "UnknownKey"),
        ("kid of nobody", with("kid", json!("tenant.nobody.RS256.x")), "UnknownKey"),
        ("kid that is a path", with("kid", json!("../../operator.key")), "UnknownKey"),
        ("kid that is SQL", with("kid", json!("' OR 1=1 --")), "UnknownKey"),
        ("kid that is huge", with("kid", json!("k".repeat(4_000))), "UnknownKey"),
        ("kid that is a number", with("kid", json!(1)), "Malformed"),
        ("a key", with("jwk", jwk), "BadSignature"),
        ("a key's address", with("jku", json!("http://127.0.0.1/")), "BadSignature"),
        ("critical headers", with("crit", json!(["exp"])), "Malformed"),
    ] {
        assert_eq!(world.refusal(&token).await, refusal, "{attack}");
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret_of_a_symmetric_algorithm() {
    let world = World::new().await;
    let record = world.key("other").await;
    let jwk: Value = serde_json::from_str(&record.public_jwk).unwrap();
    let modulus = BASE64.decode(jwk["n"].as_str().unwrap().as_bytes()).unwrap();
    // In each form in which a server may hold it.
    for secret in [record.public_jwk.as_bytes(), &modulus, b""] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(record.kid.clone());
        let key = EncodingKey::from_secret(secret);
        let forged = jsonwebtoken::encode(&header, &world.claims("other"), &key).unwrap();
        assert_eq!(world.refusal(&forged).await, "WrongAlgorithm");
    }
}

#[tokio::test]
async fn a_token_that_was_cut_or_altered_is_refused() {
    let world = World::new().await;
    let token = world.token("other", &["tenant:rw"]).await;
    let mut claims = part(&token, 1);
    claims["scopes"] = json!(["everything:rw"]);
    for (attack, token, refusal) in [
        ("an altered claim", with_part(&token, 1, &encoded(&claims)), "BadSignature"),
        ("no signature", with_part(&token, 2, ""), "BadSignature"),
        ("a cut signature", token[..token.len() - 2].to_owned(), "BadSignature"),
        ("a cut token", token[..token.len() / 2].to_owned(), "Malformed"),
        ("two parts", token.rsplit_once('.').unwrap().0.to_owned(), "Malformed"),
        ("four parts", format!("{token}.x"), "Malformed"),
        ("a line break behind it", format!("{token}\n"), "Malformed"),
        ("padding behind it", format!("{token}="), "Malformed"),
        ("not base64", with_part(&token, 0, "{}"), "Malformed"),
        ("JSON", json!({"payload": "e30", "signatures": []}).to_string(), "Malformed"),
        ("nothing", String::new(), "Missing"),
        ("oversized", format!("{token}{}", "A".repeat(MAX_TOKEN_BYTES)), "TooLong"),
    ] {
        assert_eq!(world.refusal(&token).await, refusal, "{attack}");
    }
}

#[tokio::test]
async fn a_signed_token_that_says_the_wrong_thing_is_refused() {
    let world = World::new().await;
    let now_s = NOW_MS / 1_000;
    let leeway_s = world.tokens.leeway_ms / 1_000;
    let other_issuer = world.auth.issuer(&tenant("other"));
    for (claim, value, refusal) in [
        ("tid", json!("other"), "WrongTenant"),
        ("tid", json!("nobody"), "WrongTenant"),
        ("tid", json!("../acme"), "Malformed"),
        ("iss", json!(other_issuer), "WrongIssuer"),
        ("iss", json!("https://evil.example"), "WrongIssuer"),
        ("aud", json!("farshore.admin"), "WrongAudience"),
        ("aud", json!(["farshore.sync"]), "Malformed"),
        ("exp", json!(now_s - leeway_s), "Expired"),
        ("exp", json!(0), "Expired"),
        ("exp", json!((now_s + 3_600).to_string()), "Malformed"),
        ("exp", json!(1.8e9), "Malformed"),
        ("exp", json!(-1), "Malformed"),
        ("nbf", json!(now_s + leeway_s + 1), "NotYetValid"),
        ("nbf", json!("soon"), "Malformed"),
        ("sub", json!("admin"), "Malformed"),
        ("sub", json!(DeviceId::from_bytes([1; 16])), "UnknownDevice"),
        ("uid", json!(UserId::from_bytes([1; 16])), "WrongUser"),
        ("scopes", json!("tenant:rw"), "Malformed"),
        ("scopes", json!(["a b:rw"]), "Malformed"),
    ] {
        let mut claims = world.claims("acme");
        claims[claim] = value.clone();
        let token = world.signed("acme", &claims).await;
        assert_eq!(world.refusal(&token).await, refusal, "{claim} = {value}");
    }
    for claim in ["iss", "tid", "sub", "uid", "aud", "scopes", "iat", "nbf", "exp", "jti"] {
        let mut claims = world.claims("acme");
        claims.as_object_mut().unwrap().remove(claim);
        let token = world.signed("acme", &claims).await;
        assert_eq!(world.refusal(&token).await, "Malformed", "without {claim}");
    }
    let good = world.signed("acme", &world.claims("acme")).await;
    world.auth.device(&good).await.unwrap();
    let mut claims = world.claims("acme");
    claims["nbf"] = json!(now_s + leeway_s);
    let just_begun = world.signed("acme", &claims).await;
    world.auth.device(&just_begun).await.unwrap();
}

#[tokio::test]
async fn a_claim_that_comes_twice_is_refused() {
    let world = World::new().await;
    let header = encoded(&part(&world.token("acme", &["tenant:r"]).await, 0));
    let claims = world.claims("acme").to_string();
    let twice = format!("{},\"tid\":\"acme\"}}", claims.strip_suffix('}').unwrap());
    let message = format!("{header}.{}", BASE64.encode(twice.as_bytes()));
    let record = world.key("acme").await;
    let purpose = format!("signing-key/{}", record.kid);
    let private = world.master_key.open(&purpose, &record.sealed_private_key).unwrap();
    let key = EncodingKey::from_ed_der(&private);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::EdDSA).unwrap();
    assert_eq!(world.refusal(&format!("{message}.{signature}")).await, "Malformed");
}

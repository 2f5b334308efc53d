//! What operators do to tenants, devices, tokens and keys.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::testing::{TestServer, problem};

#[tokio::test]
async fn a_tenant_lives_from_its_creation_to_its_end() {
    let server = TestServer::start().await;
    server.tenant("acme").await;
    server.tenant("other").await;
    let tenants: Value =
        server.admin(Method::GET, "/tenants").send().await.unwrap().json().await.unwrap();
    assert_eq!(
        tenants["tenants"],
        json!([
            { "tenant": "acme", "issuer": "https://farshore.invalid/t/acme" },
            { "tenant": "other", "issuer": "https://farshore.invalid/t/other" },
        ])
    );

    let file = crate::app::demo::DEMO_SCHEMA;
    let apply = server
        .admin(Method::PUT, "/tenants/acme/schema")
        .header("content-type", "application/json");
    let applied: Value = apply.body(file).send().await.unwrap().json().await.unwrap();
    assert_eq!(applied, json!({ "name": "flights-demo", "version": 1 }));
    let shown: Value = server
        .admin(Method::GET, "/tenants/acme/schema")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(shown["collections"].as_array().unwrap().len(), 7);

    let (token, device) = server.token("acme").await;
    let devices: Value = server
        .admin(Method::GET, "/tenants/acme/devices")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(devices["devices"][0]["id"], device);
    assert_eq!(devices.get("next"), None);
    server.app.auth().device(&token).await.unwrap();

    server.post(&format!("/tenants/acme/devices/{device}/suspend"), json!({})).await;
    problem(server.handshake("/v1/sync", &token).send().await.unwrap(), 403, "device_suspended")
        .await;
    let again = json!({ "device": device, "grants": [{ "scope": "tenant", "rights": "read" }] });
    let refused =
        server.admin(Method::POST, "/tenants/acme/tokens").json(&again).send().await.unwrap();
    problem(refused, 403, "device_suspended").await;
    server.post(&format!("/tenants/acme/devices/{device}/resume"), json!({})).await;
    server.app.auth().device(&token).await.unwrap();

    let digest = server.post("/tenants/acme/digest", json!({ "scopes": ["tenant"] })).await;
    assert_eq!((&digest["seq"], &digest["sums"]), (&json!(0), &json!([])));
    assert_eq!(server.post("/tenants/acme/scrub", json!(null)).await, json!({ "altered": [] }));

    let erased = server.admin(Method::DELETE, "/tenants/acme").send().await.unwrap();
    assert_eq!(erased.status(), StatusCode::NO_CONTENT);
    problem(
        server.admin(Method::GET, "/tenants/acme/keys").send().await.unwrap(),
        410,
        "tenant_erased",
    )
    .await;
    problem(server.handshake("/v1/sync", &token).send().await.unwrap(), 401, "unauthenticated")
        .await;
    let keys = server.request(Method::GET, "/t/acme/.well-known/jwks.json").send().await.unwrap();
    problem(keys, 404, "not_found").await;
}

#[tokio::test]
async fn minting_adds_rights_and_grants_are_set_whole() {
    let server = TestServer::start().await;
    server.tenant("acme").await;
    let (first, device) = server.token("acme").await;
    let more = json!({ "device": device, "name": "tablet", "grants": [{ "scope": "site/7", "rights": "read" }] });
    let second = server.post("/tenants/acme/tokens", more).await;
    let rights = async |token: &str| {
        let principal = server.app.auth().device(token).await.unwrap();
        principal.grants().iter().map(farshore_api::grant::grant_text).collect::<Vec<_>>()
    };
    assert_eq!(rights(&first).await, ["tenant:rw"]);
    assert_eq!(rights(second["token"].as_str().unwrap()).await, ["site/7:r"]);

    let path = format!("/tenants/acme/devices/{device}");
    let grants = json!({ "grants": [{ "scope": "tenant", "rights": "read" }] });
    let set =
        server.admin(Method::PUT, &format!("{path}/grants")).json(&grants).send().await.unwrap();
    let set: Value = set.json().await.unwrap();
    assert_eq!((&set["name"], &set["grants"]), (&json!("tablet"), &grants["grants"]));
    assert_eq!(rights(&first).await, ["tenant:r"]);
    assert!(rights(second["token"].as_str().unwrap()).await.is_empty());

    let user = "01890a5d-ac96-774b-bcce-b302099a8057";
    let another = json!({ "device": device, "user": user, "grants": [{ "scope": "tenant", "rights": "read" }] });
    let refused =
        server.admin(Method::POST, "/tenants/acme/tokens").json(&another).send().await.unwrap();
    problem(refused, 409, "device_of_another_user").await;
}

#[tokio::test]
async fn devices_come_in_pages() {
    let server = TestServer::start().await;
    server.tenant("acme").await;
    let mut minted = Vec::new();
    for _ in 0..5 {
        minted.push(server.token("acme").await.1);
    }
    minted.sort();
    let mut listed = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let path = format!("/tenants/acme/devices{query}");
        let page: Value =
            server.admin(Method::GET, &path).send().await.unwrap().json().await.unwrap();
        listed.extend(
            page["devices"]
                .as_array()
                .unwrap()
                .iter()
                .map(|device| device["id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?limit=2&after={next}");
    }
    assert_eq!(listed, minted);
}

#[tokio::test]
async fn the_key_set_shows_public_halves_and_keeps_retired_keys() {
    let server = TestServer::start().await;
    server.tenant("acme").await;
    let key_set = async || {
        let response =
            server.request(Method::GET, "/t/acme/.well-known/jwks.json").send().await.unwrap();
        assert_eq!(response.headers()["cache-control"], "public, max-age=300");
        response.json::<Value>().await.unwrap()["keys"].as_array().unwrap().clone()
    };
    let (before, _) = server.token("acme").await;
    let first = key_set().await;
    assert_eq!(first.len(), 1);
    let rotated = server.post("/tenants/acme/keys", json!({})).await;
    let (after, _) = server.token("acme").await;
    let both = key_set().await;
    assert_eq!(both.len(), 2);
    assert_eq!(
        (&both[0]["kid"], &both[0]["alg"], &both[0]["kty"]),
        (&rotated["kid"], &json!("RS256"), &json!("RSA"))
    );
    assert_eq!(both[1], first[0]);
    for key in &both {
        assert_eq!(key["use"], "sig");
        for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert_eq!(key.get(private), None, "{private}");
        }
    }
    for token in [before, after] {
        server.app.auth().device(&token).await.unwrap();
    }
    let listed: Value =
        server.admin(Method::GET, "/tenants/acme/keys").send().await.unwrap().json().await.unwrap();
    assert_eq!(listed["keys"][0].get("retired_at_ms"), None);
    assert!(listed["keys"][1]["retired_at_ms"].is_u64());
}

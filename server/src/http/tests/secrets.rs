//! What metrics and log do not tell.

use reqwest::Method;
use serde_json::json;

use crate::testing::{TestServer, captured_log, problem};

#[tokio::test]
async fn metrics_and_log_tell_no_tenant_and_no_secret() {
    let server = TestServer::start().await;
    server.tenant("acme").await;
    let (token, device) = server.token("acme").await;
    let cut = &token[..token.len() - 2];
    server.handshake("/v1/sync", &token).send().await.unwrap();
    problem(server.handshake("/v1/sync", cut).send().await.unwrap(), 401, "unauthenticated").await;
    problem(
        server.handshake("/v1/sync", &server.operator).send().await.unwrap(),
        401,
        "unauthenticated",
    )
    .await;
    let query = format!("/v1/sync?access_token={token}");
    problem(server.request(Method::GET, &query).send().await.unwrap(), 401, "unauthenticated")
        .await;
    let path = format!("/nowhere/{token}");
    problem(server.request(Method::GET, &path).send().await.unwrap(), 404, "not_found").await;
    let body = server.admin(Method::POST, "/tenants").json(&json!({ "tenant": token }));
    body.send().await.unwrap();
    server.post("/tenants/acme/keys", json!({})).await;

    let metrics =
        server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("route=\"/v1/admin/tenants/{tenant}/tokens\",status=\"201\""),
        "{metrics}"
    );
    for private in ["acme", &device, cut] {
        assert!(!metrics.contains(private), "{private}");
    }
    let log = captured_log();
    for expected in
        ["token minted", "a token was refused", "signing key rotated", "\"message\":\"request\""]
    {
        assert!(log.contains(expected), "the log lacks {expected:?}");
    }
    let signature = token.rsplit_once('.').unwrap().1;
    let operator_signature = server.operator.rsplit_once('.').unwrap().1;
    let master_key = data_encoding::HEXLOWER.encode(server.master_key.as_bytes());
    for secret in [cut, &signature[..40], operator_signature, &master_key, "PRIVATE KEY"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

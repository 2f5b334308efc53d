//! How a device gets in.

use reqwest::{Method, StatusCode};

use crate::testing::{TestServer, problem};

#[tokio::test]
async fn the_sync_socket_takes_a_handshake_with_its_subprotocol() {
    let server = TestServer::start().await;
    server.tenant("acme").await;
    let (token, _) = server.token("acme").await;
    let accepted = server.handshake("/v1/sync", &token).send().await.unwrap();
    assert_eq!(accepted.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(accepted.headers()["sec-websocket-protocol"], "farshore.sync.v1");

    let plain = server.request(Method::GET, "/v1/sync").bearer_auth(&token);
    let response = plain.send().await.unwrap();
    assert_eq!(response.headers()["upgrade"], "websocket");
    problem(response, 426, "upgrade_required").await;
    let mut another = server.handshake("/v1/sync", &token).build().unwrap();
    another.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().unwrap());
    problem(reqwest::Client::new().execute(another).await.unwrap(), 426, "upgrade_required").await;

    server.clock.advance(server.app.config().tokens.device_default_ms * 2);
    problem(server.handshake("/v1/sync", &token).send().await.unwrap(), 401, "token_expired").await;
}

#[tokio::test]
async fn the_tenant_of_path_and_host_must_be_that_of_the_token() {
    let server =
        TestServer::configured(|config| config.server.tenant_domain = Some("sync.test".to_owned()))
            .await;
    server.tenant("acme").await;
    server.tenant("other").await;
    let (token, _) = server.token("acme").await;
    for (path, host, accepted) in [
        ("/v1/sync", "127.0.0.1", true),
        ("/t/acme/v1/sync", "127.0.0.1", true),
        ("/t/other/v1/sync", "127.0.0.1", false),
        ("/t/Not-A-Slug/v1/sync", "127.0.0.1", false),
        ("/v1/sync", "acme.sync.test", true),
        ("/v1/sync", "ACME.Sync.Test:7400", true),
        ("/v1/sync", "other.sync.test", false),
        ("/v1/sync", "a.acme.sync.test", false),
        ("/t/acme/v1/sync", "other.sync.test", false),
        ("/v1/sync", "acme.sync.test.example.com", true),
        ("/v1/sync", "sync.test", true),
    ] {
        let response = server.handshake(path, &token).header("host", host).send().await.unwrap();
        if accepted {
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS, "{host}{path}");
        } else {
            problem(response, 404, "not_found").await;
        }
    }
    let keys = server
        .request(Method::GET, "/t/acme/.well-known/jwks.json")
        .header("host", "other.sync.test");
    problem(keys.send().await.unwrap(), 404, "not_found").await;
}

#[tokio::test]
async fn a_full_server_says_when_to_come_back() {
    let server = TestServer::configured(|config| {
        config.max_sync_connections = 2;
        config.max_sync_connections_per_tenant = 1;
    })
    .await;
    for slug in ["acme", "other", "third"] {
        server.tenant(slug).await;
    }
    let mut held = Vec::new();
    for slug in ["acme", "other"] {
        let (token, _) = server.token(slug).await;
        held.push(
            server.handshake("/v1/sync", &token).send().await.unwrap().upgrade().await.unwrap(),
        );
        let refused = server.handshake("/v1/sync", &token).send().await.unwrap();
        assert_eq!(refused.headers()["retry-after"], "5");
        problem(refused, 503, "overloaded").await;
    }
    let metrics =
        server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    for line in ["farshore_connections_open 2", "farshore_connections_total 2"] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    let (token, _) = server.token("third").await;
    problem(server.handshake("/v1/sync", &token).send().await.unwrap(), 503, "overloaded").await;
    server.app.connections().close();
    problem(server.handshake("/v1/sync", &token).send().await.unwrap(), 503, "shutting_down").await;
    problem(server.request(Method::GET, "/readyz").send().await.unwrap(), 503, "not_ready").await;
    let metrics =
        server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    for reason in ["server_full", "tenant_full", "shutting_down"] {
        assert!(
            metrics.contains(&format!("farshore_connections_refused_total{{reason=\"{reason}\"}}")),
            "{metrics}"
        );
    }
}

//! Who may call what.

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::super::{for_devices, for_operators, token_less};
use crate::testing::{TestServer, problem};

const METHODS: [Method; 4] = [Method::GET, Method::POST, Method::PUT, Method::DELETE];

fn concrete(path: &str) -> String {
    path.replace("{tenant}", "acme").replace("{device}", "01890a5d-ac96-774b-bcce-b302099a8057")
}

#[tokio::test]
async fn what_needs_a_token_is_refused_without_the_right_one() {
    let server = TestServer::start().await;
    server.tenant("acme").await;
    let (device, _) = server.token("acme").await;
    let wrong_tokens = |route: &str| match for_operators().iter().any(|(path, _)| *path == route) {
        true => vec![None, Some("x.y.z".to_owned()), Some(device.clone())],
        false => vec![None, Some("x.y.z".to_owned()), Some(server.operator.clone())],
    };
    for (path, _) in for_operators().into_iter().chain(for_devices()) {
        for token in wrong_tokens(path) {
            let mut known = 0;
            for method in METHODS {
                let mut request = server.request(method.clone(), &concrete(path)).json(&json!({}));
                if let Some(token) = &token {
                    request = request.bearer_auth(token);
                }
                let response = request.send().await.unwrap();
                if response.status() != StatusCode::METHOD_NOT_ALLOWED {
                    assert_eq!(response.headers()["www-authenticate"], "Bearer", "{method} {path}");
                    problem(response, 401, "unauthenticated").await;
                    known += 1;
                }
            }
            assert!(known > 0, "{path} knows no method");
        }
    }
}

#[tokio::test]
async fn what_needs_no_token_is_all_that_answers_without_one() {
    let server = TestServer::start().await;
    server.tenant("acme").await;
    for (path, _) in token_less() {
        let response = server.request(Method::GET, &concrete(path)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }
    let without_token = ["/healthz", "/readyz", "/metrics", "/t/{tenant}/.well-known/jwks.json"];
    assert_eq!(token_less().iter().map(|(path, _)| *path).collect::<Vec<_>>(), without_token);
}

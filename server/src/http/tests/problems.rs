//! Every mistake of a caller gets a problem document.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::testing::{TestServer, problem};

const UNKNOWN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const SCHEMA: &str = "/tenants/acme/schema";
const TOKENS: &str = "/tenants/acme/tokens";

async fn check(request: RequestBuilder, status: u16, code: &str) {
    problem(request.send().await.unwrap(), status, code).await;
}

async fn acme() -> TestServer {
    let server = TestServer::start().await;
    server.tenant("acme").await;
    server
}

fn body(request: RequestBuilder, json: &str) -> RequestBuilder {
    request.header("content-type", "application/json").body(json.to_owned())
}

#[tokio::test]
async fn a_path_or_a_method_that_is_not_there() {
    let server = acme().await;
    check(server.request(Method::GET, "/nowhere"), 404, "not_found").await;
    check(server.admin(Method::GET, "/nowhere"), 404, "not_found").await;
    let response = server.request(Method::POST, "/healthz").send().await.unwrap();
    assert!(response.headers().contains_key("allow"));
    problem(response, 405, "method_not_allowed").await;
    for (path, code) in [
        ("/tenants/Not-A-Slug/keys", "not_found"),
        ("/tenants/acme/devices/1", "not_found"),
        ("/tenants/nobody/keys", "tenant_not_found"),
        (SCHEMA, "schema_not_found"),
        (&format!("/tenants/acme/devices/{UNKNOWN}"), "device_not_found"),
    ] {
        check(server.admin(Method::GET, path), 404, code).await;
    }
}

#[tokio::test]
async fn a_body_or_a_query_that_cannot_be_read() {
    let server = acme().await;
    let create = || server.admin(Method::POST, "/tenants");
    let apply = || server.admin(Method::PUT, SCHEMA);
    check(create().body("{}"), 415, "unsupported_media_type").await;
    check(apply().body("{}"), 415, "unsupported_media_type").await;
    let deep = "[".repeat(100_000);
    for text in [
        "",
        "{",
        "[]",
        "{\"tenant\":1}",
        "{\"tenant\":\"acme\",\"more\":1}",
        "{\"tenant\":\"../x\"}",
        "{\"tenant\":\"\u{0}\"}",
        &deep,
    ] {
        check(body(create(), text), 400, "invalid_request").await;
    }
    check(server.admin(Method::GET, "/tenants/acme/devices?limit=x"), 400, "invalid_request").await;
    let longer_than_any_body = " ".repeat(server.app.config().server.max_body_bytes + 1);
    let longer_than_a_schema = " ".repeat((1 << 20) + 1);
    check(body(create(), &longer_than_any_body), 413, "payload_too_large").await;
    check(body(apply(), &longer_than_any_body), 413, "payload_too_large").await;
    check(body(apply(), &longer_than_a_schema), 413, "payload_too_large").await;
    check(body(apply(), "{}"), 422, "schema_refused").await;
}

#[tokio::test]
async fn a_request_that_cannot_be_met() {
    let server = acme().await;
    let grants = json!([{ "scope": "tenant", "rights": "read" }]);
    let scopes = |count: usize| -> Value {
        (0..count).map(|n| json!({ "scope": format!("site/{n}"), "rights": "read" })).collect()
    };
    let again = server.admin(Method::POST, "/tenants").json(&json!({ "tenant": "acme" }));
    check(again, 409, "tenant_exists").await;
    for refused in [
        json!({ "grants": [] }),
        json!({ "grants": grants, "expires_in_s": 0 }),
        json!({ "grants": grants, "expires_in_s": u64::MAX }),
        json!({ "grants": grants, "name": "n".repeat(201) }),
        json!({ "grants": scopes(1_001) }),
        json!({ "grants": scopes(900) }),
    ] {
        check(server.admin(Method::POST, TOKENS).json(&refused), 422, "out_of_range").await;
    }
}

//! Callers that are slow, endless or unlucky.

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::layers;
use crate::testing::{PATIENCE, TestServer, problem};

#[tokio::test]
async fn a_body_that_does_not_come_meets_the_deadline() {
    let server = TestServer::configured(|config| config.server.request_timeout_ms = 200).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /v1/admin/tenants HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n",
        server.operator
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4_096];
    let length = timeout(PATIENCE, stream.read(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\"code\":\"timeout\""), "{answer}");
}

#[tokio::test]
async fn a_head_that_does_not_come_or_never_ends_is_cut_off() {
    let server = TestServer::configured(|config| config.server.header_timeout_ms = 200).await;
    for beginning in
        ["", "GET /healthz HTTP/1.1\r\nhost:", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("the connection stays open")
            .unwrap();
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let endless = format!("GET /healthz HTTP/1.1\r\nx: {}", "y".repeat(1 << 20));
    // The server may hang up before all of it was sent.
    let _ = stream.write_all(endless.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the connection stays open");
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn a_panic_in_a_handler_is_one_failed_request() {
    async fn broken() -> &'static str {
        panic!("this handler is broken")
    }
    let server = TestServer::serving(
        |_| {},
        |app| {
            let router = Router::new().route("/", get(broken));
            router.layer(from_fn_with_state(app.clone(), layers::guarded)).with_state(app)
        },
    )
    .await;
    for _ in 0..2 {
        let said =
            problem(server.request(Method::GET, "/").send().await.unwrap(), 500, "internal").await;
        assert!(!said.to_string().contains("broken"), "{said}");
    }
}

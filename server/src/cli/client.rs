//! HTTP to a server, as an operator.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use farshore_api::ADMIN_PATH;
use futures_util::Stream;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::error::CliError;

/// How long the command line waits for an answer. Longer than the server's own deadline, so that its problem
/// document arrives.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it waits for what takes as long as it takes.
const LONG_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// A client that is signed in.
pub struct Client {
    url: String,
    token: String,
    http: reqwest::Client,
}

impl Client {
    pub fn new(url: String, token: String) -> Self {
        // The server is on this machine or named in full: neither a proxy nor a redirect may have the token.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWER_TIMEOUT);
        Self {
            url,
            token,
            http: http.build().expect("a client without files or proxies can be built"),
        }
    }

    /// Asks for something.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.answer(self.request(Method::GET, path)).await
    }

    /// Sends something and reads the answer.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        self.answer(self.request(method, path).json(body)).await
    }

    /// Sends something, and waits for as long as the server works on it.
    pub async fn send_long<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        self.answer(self.request(method, path).timeout(LONG_TIMEOUT).json(body)).await
    }

    /// Sends a file of JSON as it is.
    pub async fn put_file<T: DeserializeOwned>(
        &self,
        path: &str,
        file: String,
    ) -> Result<T, CliError> {
        let request =
            self.request(Method::PUT, path).header(CONTENT_TYPE, "application/json").body(file);
        self.answer(request).await
    }

    /// Asks for something that comes in pieces, for as long as pieces come.
    pub async fn stream(&self, path: &str) -> Result<Pieces, CliError> {
        let request = self.request(Method::GET, path).timeout(LONG_TIMEOUT);
        Ok(Pieces { url: self.url.clone(), response: self.accepted(request).await? })
    }

    /// Sends pieces of bytes, and waits for as long as the server works on them.
    pub async fn upload<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<T, CliError> {
        let body = reqwest::Body::wrap_stream(pieces);
        self.answer(self.request(method, path).timeout(LONG_TIMEOUT).body(body)).await
    }

    /// Does something to which there is no answer.
    pub async fn delete(&self, path: &str) -> Result<(), CliError> {
        self.accepted(self.request(Method::DELETE, path)).await.map(drop)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{ADMIN_PATH}{path}", self.url))
            .bearer_auth(&self.token)
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, CliError> {
        let response = self.accepted(request).await?;
        let status = response.status().as_u16();
        response.json().await.map_err(|_| CliError::Unexpected { url: self.url.clone(), status })
    }

    async fn accepted(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let response = request
            .send()
            .await
            .map_err(|error| CliError::NoAnswer { url: self.url.clone(), cause: cause(&error) })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        match response.json().await {
            Ok(problem) => Err(CliError::Refused(Box::new(problem))),
            Err(_) => Err(CliError::Unexpected { url: self.url.clone(), status: status.as_u16() }),
        }
    }
}

/// An answer that comes in pieces.
pub struct Pieces {
    url: String,
    response: Response,
}

impl Pieces {
    /// The next piece; `None` after the last one. An answer that ends early is an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CliError> {
        let piece = timeout(ANSWER_TIMEOUT, self.response.chunk()).await;
        let cause = match piece {
            Ok(Ok(piece)) => return Ok(piece),
            Ok(Err(error)) => cause(&error),
            Err(_) => "it stopped in the middle of its answer".to_owned(),
        };
        Err(CliError::NoAnswer { url: self.url.clone(), cause })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What is at the bottom of a network error, such as `Connection refused`.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

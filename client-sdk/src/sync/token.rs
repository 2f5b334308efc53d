//! Access tokens and where they come from: a fixed text, a file that something else renews, or the app itself.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use farshore_sync_core::wire::limits::MAX_TOKEN_BYTES;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::claims::{Claims, ClaimsError};

/// How long a token source may take, in milliseconds.
pub const TOKEN_TIMEOUT_MS: u64 = 30_000;

/// Why a token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenReason {
    /// To connect.
    Connect,
    /// The one in use expires soon.
    Expiring,
    /// The server refused the last one.
    Refused,
}

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// What came is no access token of a device.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
    /// The token file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// The app has none, in its own words.
    #[error("no access token: {0}")]
    Source(String),
    /// The source did not answer in time.
    #[error("no access token within {TOKEN_TIMEOUT_MS} ms")]
    Timeout,
}

/// What an app's own token source answers with.
pub type TokenFuture = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

/// Where access tokens come from. Cloning it is cheap.
#[derive(Clone)]
pub struct TokenSource(Kind);

#[derive(Clone)]
enum Kind {
    Fixed(Token),
    File(Arc<Path>),
    App(Arc<dyn Fn(TokenReason) -> TokenFuture + Send + Sync>),
}

impl TokenSource {
    /// One token, until the app brings another one ([`crate::Client::set_token`]).
    ///
    /// # Errors
    /// See [`ClaimsError`].
    pub fn fixed(token: &str) -> Result<Self, ClaimsError> {
        Token::read(token).map(Self::of)
    }

    /// A file that holds the token and is read again whenever one is needed.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::File(path.into().into()))
    }

    /// A function of the app. It is called on the SDK's own threads: it must not block, and it has
    /// [`TOKEN_TIMEOUT_MS`] to answer.
    #[must_use]
    pub fn callback<F, A>(ask: F) -> Self
    where
        F: Fn(TokenReason) -> A + Send + Sync + 'static,
        A: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        Self(Kind::App(Arc::new(move |reason| Box::pin(ask(reason)))))
    }

    /// This token, until the app brings another one.
    pub(crate) const fn of(token: Token) -> Self {
        Self(Kind::Fixed(token))
    }

    /// Whether asking again may bring another token.
    pub(crate) const fn may_change(&self) -> bool {
        !matches!(self.0, Kind::Fixed(_))
    }

    /// Whether it answers without a network, so that it may be asked while a client is built.
    pub(crate) const fn answers_offline(&self) -> bool {
        !matches!(self.0, Kind::App(_))
    }

    /// Asks for a token.
    pub(crate) async fn fetch(&self, reason: TokenReason) -> Result<Token, TokenError> {
        let asking = async {
            let text = match &self.0 {
                Kind::Fixed(token) => return Ok(token.clone()),
                Kind::File(path) => {
                    let path = Arc::clone(path);
                    let reading = tokio::task::spawn_blocking(move || read_file(&path));
                    reading.await.map_err(|error| TokenError::Source(error.to_string()))??
                }
                Kind::App(ask) => ask(reason).await?.into(),
            };
            Token::read(text.trim()).map_err(TokenError::from)
        };
        let in_time = timeout(Duration::from_millis(TOKEN_TIMEOUT_MS), asking).await;
        in_time.unwrap_or(Err(TokenError::Timeout))
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Fixed(token) => formatter.debug_tuple("Fixed").field(token).finish(),
            Kind::File(path) => formatter.debug_tuple("File").field(path).finish(),
            Kind::App(_) => formatter.write_str("App(..)"),
        }
    }
}

/// An access token with what it says about itself. Its text is erased from memory with its last clone.
#[derive(Clone)]
pub(crate) struct Token {
    secret: Arc<Zeroizing<String>>,
    claims: Claims,
}

impl Token {
    pub(crate) fn read(text: &str) -> Result<Self, ClaimsError> {
        let claims = Claims::read(text)?;
        Ok(Self { secret: Arc::new(Zeroizing::new(text.to_owned())), claims })
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    pub(crate) const fn claims(&self) -> &Claims {
        &self.claims
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.secret == other.secret
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Token").field("claims", &self.claims).finish_non_exhaustive()
    }
}

fn read_file(path: &Path) -> Result<Zeroizing<String>, TokenError> {
    let failed =
        |source: std::io::Error| TokenError::File { path: path.to_owned(), source: source.into() };
    let mut text = Zeroizing::new(String::new());
    // A little more than a token may have, so that a longer one is noticed.
    let most = MAX_TOKEN_BYTES as u64 + 2;
    File::open(path).and_then(|file| file.take(most).read_to_string(&mut text)).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::claims::tests::forge;
    use super::*;

    const DEVICE: &str = "0198c0de-0000-7000-8000-000000000001";

    fn token() -> String {
        forge(&format!(r#"{{"sub":"{DEVICE}","tid":"demo"}}"#))
    }

    #[tokio::test]
    async fn every_source_gives_the_token_and_no_debug_output_shows_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, format!("{}\n", token())).unwrap();
        let app = TokenSource::callback(|reason| async move {
            assert_eq!(reason, TokenReason::Refused);
            Ok(token())
        });
        for source in [TokenSource::fixed(&token()).unwrap(), TokenSource::file(&path), app] {
            let fetched = source.fetch(TokenReason::Refused).await.unwrap();
            assert_eq!(fetched.secret(), token());
            let shown = format!("{source:?} {fetched:?}");
            assert!(!shown.contains(fetched.secret().split('.').nth(2).unwrap()), "{shown}");
        }
    }

    #[tokio::test]
    async fn a_source_without_a_token_says_why() {
        let missing = TokenSource::file("/nowhere/token").fetch(TokenReason::Connect).await;
        assert!(missing.unwrap_err().to_string().starts_with("/nowhere/token: "));
        let signed_out = || async { Err(TokenError::Source("signed out".into())) };
        let none = TokenSource::callback(move |_| signed_out()).fetch(TokenReason::Connect).await;
        assert_eq!(none.unwrap_err().to_string(), "no access token: signed out");
        let nonsense = TokenSource::callback(|_| async { Ok("x".into()) });
        let error = nonsense.fetch(TokenReason::Connect).await.unwrap_err();
        assert!(matches!(error, TokenError::Claims(_)), "{error}");
    }
}

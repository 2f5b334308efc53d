//! Which access token a connection uses, which one was refused, and when to ask for the next.
//!
//! It thinks and the driver acts: times come in, and what it wants done stands in its answers.

use std::future::Future;

use farshore_sync_core::replica::{Cause, RetryPolicy};
use tokio::task::JoinHandle;

use super::owner::{Owner, OwnerError};
use super::token::{Token, TokenError, TokenReason, TokenSource};

/// A token is renewed this long before it expires, in milliseconds, or after nine tenths of its life.
pub const RENEW_BEFORE_EXPIRY_MS: u64 = 60_000;
/// Before a source is asked again that had no good token, in milliseconds: doubling from the first to the most.
const ASK_AGAIN: RetryPolicy = RetryPolicy { first_ms: 1_000, most_ms: 60_000 };

/// The tokens of one replica.
pub(super) struct Tokens {
    source: TokenSource,
    owner: Owner,
    /// The newest good one.
    latest: Option<Token>,
    /// The one that the server knows the connection by.
    in_use: Option<Token>,
    refused: Option<Token>,
    /// The server's clock at a moment of the steady one.
    server_clock: Option<(u64, u64)>,
    due: Option<(u64, TokenReason)>,
    asking: Option<JoinHandle<Result<Token, TokenError>>>,
    /// Refusals and empty answers in a row.
    failures: u32,
    refused_at_ms: Option<u64>,
    mismatch: Option<OwnerError>,
}

/// A token for a connection, or why there is none.
pub(super) type Fetched = Result<Token, FetchError>;

/// Why there is no token to connect with.
#[derive(Debug)]
pub(super) enum FetchError {
    /// The source has none now.
    Source(TokenError),
    /// The token is for somebody else.
    Owner(OwnerError),
}

impl Tokens {
    pub(super) const fn new(source: TokenSource, owner: Owner) -> Self {
        Self {
            source,
            owner,
            latest: None,
            in_use: None,
            refused: None,
            server_clock: None,
            due: None,
            asking: None,
            failures: 0,
            refused_at_ms: None,
            mismatch: None,
        }
    }

    /// For whom the last token was, if it was for somebody else.
    pub(super) const fn mismatch(&self) -> Option<&OwnerError> {
        self.mismatch.as_ref()
    }

    /// A token to connect with: the newest one, unless it was refused or is about to expire.
    pub(super) fn for_connection(
        &self,
        wall_ms: u64,
    ) -> impl Future<Output = Fetched> + Send + use<> {
        let lasting = |token: &Token| {
            token.claims().expires_at_ms.is_none_or(|at| at > wall_ms + RENEW_BEFORE_EXPIRY_MS)
        };
        let known = self
            .latest
            .clone()
            .filter(|token| Some(token) != self.refused.as_ref() && lasting(token));
        let reason =
            if self.refused.is_some() { TokenReason::Refused } else { TokenReason::Connect };
        let (source, owner) = (self.source.clone(), self.owner.clone());
        async move {
            let token = match known {
                Some(token) => token,
                None => source.fetch(reason).await.map_err(FetchError::Source)?,
            };
            owner.check(token.claims()).map_err(FetchError::Owner)?;
            Ok(token)
        }
    }

    /// Why there is no connection, where there was no token for it.
    pub(super) fn not_fetched(&mut self, error: FetchError) -> Cause {
        match error {
            FetchError::Owner(error) => {
                let cause = Cause::Unauthenticated(error.to_string());
                self.mismatch = Some(error);
                cause
            }
            FetchError::Source(error @ TokenError::Claims(_)) => {
                Cause::Unauthenticated(error.to_string())
            }
            // A source that needs the network itself works again when the network does.
            FetchError::Source(error) => Cause::Network(error.to_string()),
        }
    }

    /// A socket is being opened with this token.
    pub(super) fn presented(&mut self, token: Token) {
        self.mismatch = None;
        self.latest = Some(token.clone());
        self.in_use = Some(token);
    }

    /// The server accepted the token and said what time it is, which may not be what the device thinks.
    pub(super) fn welcomed(&mut self, server_time_ms: u64, now_ms: u64) {
        // A server that accepts each token only to refuse it a moment later is not asked faster and faster.
        if self.refused_at_ms.is_none_or(|at| now_ms.saturating_sub(at) > ASK_AGAIN.most_ms) {
            self.failures = 0;
        }
        self.refused = None;
        self.server_clock = Some((server_time_ms, now_ms));
        self.plan_renewal(now_ms);
    }

    /// The server refused the token in use, or it was not fit to be sent.
    pub(super) fn refused(&mut self, now_ms: u64, entropy: u64) {
        self.refused = self.in_use.take().or(self.refused.take());
        self.refused_at_ms = Some(now_ms);
        if self.asking.is_none() && self.source.may_change() {
            self.ask_later(TokenReason::Refused, now_ms, entropy);
        }
    }

    /// The connection is over.
    pub(super) fn disconnected(&mut self) {
        self.in_use = None;
        self.due = None;
        self.asking = None;
    }

    /// The app brought a token.
    ///
    /// # Errors
    /// Where it is for somebody else.
    pub(super) fn brought(&mut self, token: Token) -> Result<(), OwnerError> {
        self.owner.check(token.claims())?;
        if !self.source.may_change() {
            self.source = TokenSource::of(token.clone());
        }
        self.mismatch = None;
        self.latest = Some(token);
        Ok(())
    }

    /// The server was told of this token.
    pub(super) fn sent(&mut self, token: Token, now_ms: u64) {
        self.in_use = Some(token);
        self.plan_renewal(now_ms);
    }

    /// When [`Tokens::ask`] is due.
    pub(super) fn due_at_ms(&self) -> Option<u64> {
        self.due.map(|(at, _)| at)
    }

    /// Asks the source; [`Tokens::answer`] has what it says.
    pub(super) fn ask(&mut self) {
        if let Some((_, reason)) = self.due.take() {
            let source = self.source.clone();
            self.asking = Some(tokio::spawn(async move { source.fetch(reason).await }));
        }
    }

    /// Waits for what the source says.
    pub(super) async fn answer(&mut self) -> Result<Token, TokenError> {
        let Some(asking) = &mut self.asking else { return std::future::pending().await };
        let answer = asking.await;
        self.asking = None;
        answer.unwrap_or_else(|error| Err(TokenError::Source(error.to_string())))
    }

    /// The token of an answer, if the server should hear of it.
    pub(super) fn answered(
        &mut self,
        answer: Result<Token, TokenError>,
        now_ms: u64,
        entropy: u64,
    ) -> Option<Token> {
        let known = |token: &Token| {
            [&self.refused, &self.in_use].into_iter().flatten().any(|old| old == token)
        };
        match answer {
            Ok(token) if !known(&token) => match self.owner.check(token.claims()) {
                Ok(()) => {
                    self.mismatch = None;
                    self.latest = Some(token.clone());
                    return Some(token);
                }
                Err(error) => self.mismatch = Some(error),
            },
            Ok(_) | Err(_) => {}
        }
        let reason =
            if self.in_use.is_some() { TokenReason::Expiring } else { TokenReason::Refused };
        self.ask_later(reason, now_ms, entropy);
        None
    }

    /// Plans to ask for the next token before the one in use expires, by the server's clock.
    fn plan_renewal(&mut self, now_ms: u64) {
        let expires_at_ms = self.in_use.as_ref().and_then(|token| token.claims().expires_at_ms);
        let server_ms = self
            .server_clock
            .map(|(server_ms, at_ms)| server_ms.saturating_add(now_ms.saturating_sub(at_ms)));
        self.due = match (expires_at_ms, server_ms) {
            (Some(expires_at_ms), Some(server_ms)) if self.source.may_change() => {
                let left_ms = expires_at_ms.saturating_sub(server_ms);
                let wait_ms = left_ms.saturating_sub(RENEW_BEFORE_EXPIRY_MS.min(left_ms / 10));
                Some((now_ms + wait_ms, TokenReason::Expiring))
            }
            _ => None,
        };
    }

    /// At once the first time, then later and later.
    fn ask_later(&mut self, reason: TokenReason, now_ms: u64, entropy: u64) {
        let cause = Cause::Unauthenticated(String::new());
        let wait_ms = match self.failures {
            0 => 0,
            failures => ASK_AGAIN.delay_ms(failures, &cause, entropy),
        };
        self.failures = self.failures.saturating_add(1);
        self.due = Some((now_ms + wait_ms, reason));
    }
}

#[cfg(test)]
mod tests {
    use super::super::claims::tests::forge;
    use super::*;

    const DEVICE: &str = "0198c0de-0000-7000-8000-000000000001";
    const OTHER: &str = "0198c0de-0000-7000-8000-000000000002";

    fn token(device: &str, expires_at_s: u64) -> Token {
        let text = forge(&format!(r#"{{"sub":"{device}","tid":"demo","exp":{expires_at_s}}}"#));
        Token::read(&text).unwrap()
    }

    fn asking_app() -> Tokens {
        let source = TokenSource::callback(|_| async { Err(TokenError::Timeout) });
        Tokens::new(source, Owner { device: DEVICE.parse().unwrap(), tenant: None })
    }

    #[test]
    fn a_token_is_renewed_before_it_expires_by_the_clock_of_the_server() {
        let mut tokens = asking_app();
        tokens.presented(token(DEVICE, 10_000));
        tokens.welcomed(10_000_000 - 3_600_000, 5);
        assert_eq!(tokens.due_at_ms(), Some(5 + 3_600_000 - RENEW_BEFORE_EXPIRY_MS));
        tokens.welcomed(10_000_000 - 1_000, 5);
        assert_eq!(tokens.due_at_ms(), Some(5 + 900));
        tokens.welcomed(20_000_000, 5);
        assert_eq!(tokens.due_at_ms(), Some(5));
        tokens.disconnected();
        assert_eq!(tokens.due_at_ms(), None);
    }

    #[test]
    fn a_refused_token_is_not_accepted_again_and_the_source_is_asked_later_and_later() {
        let mut tokens = asking_app();
        tokens.presented(token(DEVICE, 1));
        tokens.refused(100, 0);
        assert_eq!(tokens.due_at_ms(), Some(100));
        assert_eq!(tokens.answered(Ok(token(DEVICE, 1)), 200, 0), None);
        assert_eq!(tokens.due_at_ms(), Some(200 + 500));
        assert_eq!(tokens.answered(Err(TokenError::Timeout), 800, 0), None);
        assert_eq!(tokens.due_at_ms(), Some(800 + 1_000));
        assert_eq!(tokens.answered(Ok(token(DEVICE, 2)), 900, 0), Some(token(DEVICE, 2)));
    }

    #[test]
    fn a_token_for_another_device_is_refused_by_name() {
        let mut tokens = asking_app();
        assert_eq!(tokens.answered(Ok(token(OTHER, 1)), 0, 0), None);
        let mismatch = tokens.mismatch().unwrap().to_string();
        assert!(mismatch.contains(OTHER) && mismatch.contains(DEVICE), "{mismatch}");
        assert!(tokens.brought(token(OTHER, 1)).is_err());
        assert!(tokens.brought(token(DEVICE, 1)).is_ok());
        assert!(tokens.mismatch().is_none());
    }

    #[tokio::test]
    async fn a_fixed_token_is_used_until_the_app_brings_another() {
        let owner = Owner { device: DEVICE.parse().unwrap(), tenant: None };
        let mut tokens = Tokens::new(TokenSource::of(token(DEVICE, 1)), owner);
        let first = tokens.for_connection(u64::MAX / 2).await.unwrap();
        assert_eq!(first, token(DEVICE, 1));
        tokens.presented(first);
        tokens.refused(0, 0);
        assert_eq!(tokens.due_at_ms(), None, "asking again brings nothing new");
        tokens.brought(token(DEVICE, 2)).unwrap();
        assert_eq!(tokens.for_connection(0).await.unwrap(), token(DEVICE, 2));
    }
}

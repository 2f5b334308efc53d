//! What it means when a socket cannot be opened: the server's answer, or the network's, as a [`Cause`].

use farshore_api::problem::Problem;
use farshore_sync_core::replica::Cause;
use farshore_sync_core::wire::limits::MAX_SENTENCE_BYTES;
use farshore_sync_core::wire::{Fault, FaultCode};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::http::header::RETRY_AFTER;
use tokio_tungstenite::tungstenite::http::{Response, StatusCode};

/// When to ask an overloaded server again that does not say when itself, in milliseconds.
pub const DEFAULT_RETRY_AFTER_MS: u64 = 1_000;
/// The longest wait that is taken over from a server, in seconds.
pub const MAX_RETRY_AFTER_S: u64 = 3_600;

/// Why a socket was not opened.
pub(super) fn cause_of(error: &Error) -> Cause {
    match error {
        Error::Http(response) => cause_of_answer(response),
        Error::Capacity(_) | Error::Protocol(_) | Error::Utf8(_) => {
            Cause::Network(format!("the server does not speak this protocol: {error}"))
        }
        _ => Cause::Network(error.to_string()),
    }
}

fn cause_of_answer(response: &Response<Option<Vec<u8>>>) -> Cause {
    let status = response.status();
    let sentence = sentence_of(response);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Cause::Unauthenticated(sentence),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Cause::Fault(Fault {
            code: FaultCode::Overloaded,
            message: sentence,
            retry_after_ms: Some(retry_after_ms(response)),
        }),
        _ => Cause::Network(format!("the server answered {status}: {sentence}")),
    }
}

/// What the server says is the matter; never more than a sentence of it.
fn sentence_of(response: &Response<Option<Vec<u8>>>) -> String {
    let problem: Option<Problem> =
        response.body().as_deref().and_then(|body| serde_json::from_slice(body).ok());
    let mut sentence = problem.map_or_else(
        || response.status().canonical_reason().unwrap_or("no reason given").to_lowercase(),
        |problem| problem.detail,
    );
    sentence.truncate(sentence.floor_char_boundary(MAX_SENTENCE_BYTES));
    sentence
}

/// Seconds only: a date would need a clock that agrees with the server's.
fn retry_after_ms(response: &Response<Option<Vec<u8>>>) -> u64 {
    let seconds =
        response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    seconds.map_or(DEFAULT_RETRY_AFTER_MS, |seconds: u64| seconds.min(MAX_RETRY_AFTER_S) * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>, body: &str) -> Cause {
        let mut response = Response::builder().status(status);
        if let Some(value) = retry_after {
            response = response.header(RETRY_AFTER, value);
        }
        cause_of(&Error::Http(Box::new(response.body(Some(body.into())).unwrap())))
    }

    const EXPIRED: &str = r#"{"type":"urn:farshore:problem:token_expired","title":"The token has expired",
        "status":401,"detail":"the token expired at noon","code":"token_expired"}"#;

    #[test]
    fn a_refused_token_is_told_from_a_busy_server_and_a_broken_network() {
        assert_eq!(
            answer(401, None, EXPIRED),
            Cause::Unauthenticated("the token expired at noon".into())
        );
        assert_eq!(answer(403, None, "<html>"), Cause::Unauthenticated("forbidden".into()));
        let overloaded = |retry_after_ms| {
            Cause::Fault(Fault {
                code: FaultCode::Overloaded,
                message: "service unavailable".into(),
                retry_after_ms: Some(retry_after_ms),
            })
        };
        assert_eq!(answer(503, Some("7"), ""), overloaded(7_000));
        assert_eq!(answer(503, Some("Wed, 21 Oct 2026 07:28:00 GMT"), ""), overloaded(1_000));
        assert_eq!(answer(503, Some("99999999999"), ""), overloaded(3_600_000));
        assert!(matches!(answer(502, None, ""), Cause::Network(text) if text.contains("502")));
        assert!(matches!(cause_of(&Error::ConnectionClosed), Cause::Network(_)));
    }

    #[test]
    fn a_long_reason_is_cut() {
        let long = EXPIRED.replace("at noon", &"é".repeat(MAX_SENTENCE_BYTES));
        let Cause::Unauthenticated(sentence) = answer(401, None, &long) else { panic!() };
        assert!(sentence.len() <= MAX_SENTENCE_BYTES);
    }
}

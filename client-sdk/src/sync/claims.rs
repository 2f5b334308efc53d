//! What an access token says about itself, read without checking its signature: the server is the one who checks.
//!
//! The SDK needs to know for which device a token is and when to ask for the next one. A forged token gains
//! nothing here: the server refuses it.

use data_encoding::BASE64URL_NOPAD;
use farshore_sync_core::ids::{DeviceId, TenantId};
use farshore_sync_core::wire::limits::MAX_TOKEN_BYTES;
use serde::Deserialize;

/// What a token says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The device that it is for (`sub`).
    pub device: DeviceId,
    /// The tenant that it is for (`tid`).
    pub tenant: TenantId,
    /// When it expires, in milliseconds since 1970 (`exp`).
    pub expires_at_ms: Option<u64>,
}

/// Why a text is no access token of a device. The text itself is never part of the error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// It is longer than a token may be.
    #[error("the access token is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// It is not three parts of base64url with JSON in the middle.
    #[error("the access token is no JWT: {0}")]
    NotAToken(&'static str),
    /// Its subject is no device id.
    #[error("the access token is for no device: its `sub` must be a device id")]
    NoDevice,
    /// It names no tenant.
    #[error("the access token is for no tenant: its `tid` must be a tenant id")]
    NoTenant,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    tid: Option<String>,
    #[serde(default)]
    exp: Option<f64>,
}

impl Claims {
    /// Reads a token's claims.
    ///
    /// # Errors
    /// See [`ClaimsError`].
    pub fn read(token: &str) -> Result<Self, ClaimsError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(ClaimsError::TooLong);
        }
        let mut parts = token.split('.');
        let (Some(_), Some(payload), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ClaimsError::NotAToken("it has three parts with a dot between them"));
        };
        let json = BASE64URL_NOPAD
            .decode(payload.as_bytes())
            .map_err(|_| ClaimsError::NotAToken("its payload is not base64url"))?;
        let payload: Payload = serde_json::from_slice(&json)
            .map_err(|_| ClaimsError::NotAToken("its payload is not the JSON of claims"))?;
        Ok(Self {
            device: parsed(payload.sub).ok_or(ClaimsError::NoDevice)?,
            tenant: parsed(payload.tid).ok_or(ClaimsError::NoTenant)?,
            // Seconds, possibly with a fraction; a negative or absurd number saturates.
            expires_at_ms: payload.exp.map(|seconds| (seconds * 1_000.0) as u64),
        })
    }
}

fn parsed<T: std::str::FromStr>(claim: Option<String>) -> Option<T> {
    claim?.parse().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A token with these claims and a signature that nobody would accept.
    pub(crate) fn forge(payload: &str) -> String {
        let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        format!("{}.{}.{}", part("{\"alg\":\"RS256\"}"), part(payload), part("signature"))
    }

    /// A token for this device of this tenant.
    pub(crate) fn forged_token(device: DeviceId, tenant: &str) -> String {
        forge(&format!(r#"{{"sub":"{device}","tid":"{tenant}"}}"#))
    }

    const DEVICE: &str = "0198c0de-0000-7000-8000-000000000001";

    #[test]
    fn a_token_says_for_whom_and_until_when_it_is() {
        let claims = Claims::read(&forge(&format!(
            r#"{{"sub":"{DEVICE}","tid":"demo","exp":1700000000,"aud":["x"]}}"#
        )));
        let expected = Claims {
            device: DEVICE.parse().unwrap(),
            tenant: "demo".parse().unwrap(),
            expires_at_ms: Some(1_700_000_000_000),
        };
        assert_eq!(claims.unwrap(), expected);
    }

    #[test]
    fn what_is_no_token_of_a_device_says_why() {
        for (token, expected) in [
            (String::new(), "three parts"),
            ("a.b".to_owned(), "three parts"),
            ("a.b.c.d".to_owned(), "three parts"),
            ("a.%.c".to_owned(), "base64url"),
            (forge("7"), "JSON"),
            (forge("{}"), "no device"),
            (forge(r#"{"sub":"alice","tid":"demo"}"#), "no device"),
            (forge(&format!(r#"{{"sub":"{DEVICE}"}}"#)), "no tenant"),
            (forge(&format!(r#"{{"sub":"{DEVICE}","tid":"../x"}}"#)), "no tenant"),
            ("x".repeat(MAX_TOKEN_BYTES + 1), "longer than"),
        ] {
            let error = Claims::read(&token).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

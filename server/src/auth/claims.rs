//! What tokens say. A token that lacks a claim, has one twice or has one of another type is not read at all.

use farshore_sync_core::ids::{DeviceId, TenantId, UserId};
use serde::{Deserialize, Serialize};

use super::error::AuthError;

/// The `aud` of tokens with which devices sync.
pub const DEVICE_AUDIENCE: &str = "farshore.sync";
/// The `aud` of tokens with which operators call.
pub const OPERATOR_AUDIENCE: &str = "farshore.admin";

/// Milliseconds of a second: claims count in seconds, the server in milliseconds.
const SECOND_MS: u64 = 1_000;

/// What a device's token says.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeviceClaims {
    /// Who signed it: the tenant.
    pub iss: String,
    /// The tenant; it decides.
    pub tid: TenantId,
    /// The device.
    pub sub: DeviceId,
    /// The person who uses it.
    pub uid: UserId,
    /// [`DEVICE_AUDIENCE`].
    pub aud: String,
    /// What it is good for, each as `SCOPE:r` or `SCOPE:rw`.
    pub scopes: Vec<String>,
    /// When it was signed.
    pub iat: u64,
    /// From when it is valid.
    pub nbf: u64,
    /// Until when.
    pub exp: u64,
    /// Its own name, unique.
    pub jti: String,
}

/// What an operator's token says.
#[derive(Debug, Serialize, Deserialize)]
pub struct OperatorClaims {
    /// Who signed it: the platform.
    pub iss: String,
    /// Who calls.
    pub sub: String,
    /// [`OPERATOR_AUDIENCE`].
    pub aud: String,
    /// When it was signed.
    pub iat: u64,
    /// From when it is valid.
    pub nbf: u64,
    /// Until when.
    pub exp: u64,
    /// Its own name, unique.
    pub jti: String,
}

/// The claims that every token has.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// Who signed it.
    pub issuer: &'a str,
    /// What it is for.
    pub audience: &'a str,
    /// From when it is valid, in seconds since 1970.
    pub not_before_s: u64,
    /// Until when.
    pub expires_s: u64,
}

/// What a verifier expects of every token.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Who must have signed it.
    pub issuer: &'a str,
    /// What it must be for.
    pub audience: &'a str,
    /// What time it is.
    pub now_ms: u64,
    /// How far clocks may be apart.
    pub leeway_ms: u64,
}

impl Envelope<'_> {
    /// Checks who signed it, what for, and for when. Returns the moment from which it is no longer good, the
    /// leeway included.
    ///
    /// # Errors
    /// The first thing that is not as expected.
    pub fn check(&self, expected: Expected<'_>) -> Result<u64, AuthError> {
        if self.issuer != expected.issuer {
            return Err(AuthError::WrongIssuer);
        }
        if self.audience != expected.audience {
            return Err(AuthError::WrongAudience);
        }
        let starts_at_ms = self.not_before_s.saturating_mul(SECOND_MS);
        if expected.now_ms.saturating_add(expected.leeway_ms) < starts_at_ms {
            return Err(AuthError::NotYetValid);
        }
        let expires_at_ms =
            self.expires_s.saturating_mul(SECOND_MS).saturating_add(expected.leeway_ms);
        if expected.now_ms >= expires_at_ms { Err(AuthError::Expired) } else { Ok(expires_at_ms) }
    }
}

impl DeviceClaims {
    /// The claims that every token has.
    #[must_use]
    pub fn envelope(&self) -> Envelope<'_> {
        let (not_before_s, expires_s) = (self.nbf, self.exp);
        Envelope { issuer: &self.iss, audience: &self.aud, not_before_s, expires_s }
    }
}

impl OperatorClaims {
    /// The claims that every token has.
    #[must_use]
    pub fn envelope(&self) -> Envelope<'_> {
        let (not_before_s, expires_s) = (self.nbf, self.exp);
        Envelope { issuer: &self.iss, audience: &self.aud, not_before_s, expires_s }
    }
}

/// A time in the unit of claims, rounded down.
#[must_use]
pub const fn seconds(ms: u64) -> u64 {
    ms / SECOND_MS
}

/// Seconds as milliseconds.
#[must_use]
pub const fn milliseconds(seconds: u64) -> u64 {
    seconds.saturating_mul(SECOND_MS)
}

/// A name that no other token has.
///
/// # Errors
/// Where the system has no randomness to give.
pub fn unique_token_name() -> Result<String, super::error::KeyError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| super::error::KeyError::Generate)?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

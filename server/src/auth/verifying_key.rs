//! Public halves of keys, and what is checked before and with a signature.

use farshore_store::signing_keys::{SigningAlgorithm, SigningKeyRecord};
use farshore_sync_core::wire::limits::MAX_TOKEN_BYTES;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, ThumbprintHash};
use jsonwebtoken::{DecodingKey, Validation};
use serde::de::DeserializeOwned;

use super::error::{AuthError, KeyError};
use super::key_id::KeyOwner;
use super::signing_key::jwt_algorithm;

/// A token whose outer form is in order. Nothing in it is verified.
#[derive(Debug, Clone, Copy)]
pub struct UnverifiedToken<'a> {
    text: &'a str,
}

impl<'a> UnverifiedToken<'a> {
    /// Looks at length and form.
    ///
    /// # Errors
    /// Where it is none of ours from afar.
    pub fn new(text: &'a str) -> Result<Self, AuthError> {
        if text.is_empty() {
            return Err(AuthError::Missing);
        }
        if text.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::TooLong);
        }
        Ok(Self { text })
    }

    /// The name of the key that is said to have signed it, and whose key that is. It selects a key; what the
    /// token says is believed only once that key has verified it.
    ///
    /// # Errors
    /// Where it has no readable header, or one that demands what is not understood here.
    pub fn key_id(&self) -> Result<(String, KeyOwner), AuthError> {
        // `none` and other algorithms that jsonwebtoken does not know do not even parse.
        let header = jsonwebtoken::decode_header(self.text).map_err(|_| AuthError::Malformed)?;
        if header.crit.is_some() {
            return Err(AuthError::Malformed);
        }
        let kid = header.kid.ok_or(AuthError::Malformed)?;
        let owner = KeyOwner::of_key_id(&kid).ok_or(AuthError::UnknownKey)?;
        Ok((kid, owner))
    }
}

/// A key that verifies.
#[derive(Debug, Clone)]
pub struct VerifyingKey {
    /// Its name.
    pub kid: String,
    /// When it stopped signing.
    pub retired_at_ms: Option<u64>,
    /// The public half as key sets show it.
    pub jwk: serde_json::Value,
    algorithm: SigningAlgorithm,
    key: DecodingKey,
}

impl VerifyingKey {
    /// The public half of a stored key, if name, owner, algorithm and key belong together.
    ///
    /// # Errors
    /// Where they do not: the record was moved or altered.
    pub fn from_record(owner: &KeyOwner, record: &SigningKeyRecord) -> Result<Self, KeyError> {
        let damaged = |detail| KeyError::damaged(&record.kid, detail);
        let jwk: Jwk = serde_json::from_str(&record.public_jwk)
            .map_err(|_| damaged("the public half is no JWK"))?;
        let fits = matches!(
            (&jwk.algorithm, record.algorithm),
            (AlgorithmParameters::RSA(_), SigningAlgorithm::Rs256)
                | (AlgorithmParameters::OctetKeyPair(_), SigningAlgorithm::EdDsa)
        );
        if !fits {
            return Err(damaged("the public half is for another algorithm"));
        }
        let thumbprint =
            jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| damaged("it has no thumbprint"))?;
        if record.kid != owner.key_id(record.algorithm, &thumbprint) {
            return Err(damaged("its name belongs to another key or owner"));
        }
        Ok(Self {
            kid: record.kid.clone(),
            retired_at_ms: record.retired_at_ms,
            algorithm: record.algorithm,
            key: DecodingKey::from_jwk(&jwk).map_err(|_| damaged("the public half is no key"))?,
            jwk: serde_json::to_value(&jwk).expect("a JWK has string keys only"),
        })
    }

    /// What the token says, if this key signed it. The algorithm is the key's: a header that names another one is
    /// refused. Times, issuer and audience are the caller's to check.
    ///
    /// # Errors
    /// Where the signature is not this key's, or a claim is missing, double or of another type.
    pub fn verify<C: DeserializeOwned>(&self, token: UnverifiedToken<'_>) -> Result<C, AuthError> {
        let mut validation = Validation::new(jwt_algorithm(self.algorithm));
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let verified = jsonwebtoken::decode::<C>(token.text, &self.key, &validation);
        verified.map(|token| token.claims).map_err(|error| match error.kind() {
            ErrorKind::InvalidAlgorithm => AuthError::WrongAlgorithm,
            ErrorKind::InvalidSignature => AuthError::BadSignature,
            _ => AuthError::Malformed,
        })
    }
}

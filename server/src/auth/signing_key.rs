//! Private halves of keys: made, sealed, opened, used. They never leave this file in the clear.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::Ed25519KeyPair;
use data_encoding::BASE64;
use farshore_store::sealing::MasterKey;
use farshore_store::signing_keys::{SigningAlgorithm, SigningKeyRecord};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use zeroize::Zeroizing;

use super::error::KeyError;
use super::key_id::KeyOwner;

/// Size of new RSA keys. RS256 with 2048 bits is what every library verifies.
const RSA_SIZE: rsa::KeySize = rsa::KeySize::Rsa2048;
/// Characters of a line of PEM.
const PEM_LINE_CHARS: usize = 64;

/// A key that can sign.
pub struct SigningKey {
    kid: String,
    algorithm: SigningAlgorithm,
    key: EncodingKey,
}

impl SigningKey {
    /// Opens the private half of a stored key.
    ///
    /// # Errors
    /// Tells a wrong master key from damage.
    pub fn open(record: &SigningKeyRecord, master_key: &MasterKey) -> Result<Self, KeyError> {
        let private = master_key
            .open(&sealing_purpose(&record.kid), &record.sealed_private_key)
            .map_err(|source| KeyError::Unseal { kid: record.kid.clone(), source })?;
        let key = encoding_key(record.algorithm, &private)
            .ok_or_else(|| KeyError::damaged(&record.kid, "the private half is no key"))?;
        Ok(Self { kid: record.kid.clone(), algorithm: record.algorithm, key })
    }

    /// A token with these claims.
    ///
    /// # Errors
    /// Where the key cannot sign.
    pub fn sign<C: Serialize>(&self, claims: &C) -> Result<String, KeyError> {
        let mut header = Header::new(jwt_algorithm(self.algorithm));
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.key)
            .map_err(|_| KeyError::Sign { kid: self.kid.clone() })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Makes a key and seals its private half. An RSA key takes a good part of a second: not for an async worker.
///
/// # Errors
/// Where the system has no randomness to give.
pub fn generate(
    owner: &KeyOwner,
    algorithm: SigningAlgorithm,
    master_key: &MasterKey,
    now_ms: u64,
) -> Result<SigningKeyRecord, KeyError> {
    let private = private_key(algorithm).ok_or(KeyError::Generate)?;
    let key = encoding_key(algorithm, &private).ok_or(KeyError::Generate)?;
    let mut jwk =
        Jwk::from_encoding_key(&key, jwt_algorithm(algorithm)).map_err(|_| KeyError::Generate)?;
    let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| KeyError::Generate)?;
    let kid = owner.key_id(algorithm, &thumbprint);
    jwk.common.key_id = Some(kid.clone());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok(SigningKeyRecord {
        algorithm,
        sealed_private_key: master_key.seal(&sealing_purpose(&kid), &private)?,
        public_jwk: serde_json::to_string(&jwk).expect("a JWK has string keys only"),
        created_at_ms: now_ms,
        retired_at_ms: None,
        kid,
    })
}

/// The name of an algorithm in jsonwebtoken.
#[must_use]
pub const fn jwt_algorithm(algorithm: SigningAlgorithm) -> Algorithm {
    match algorithm {
        SigningAlgorithm::Rs256 => Algorithm::RS256,
        SigningAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}

fn sealing_purpose(kid: &str) -> String {
    format!("signing-key/{kid}")
}

/// A new private key as PKCS #8.
fn private_key(algorithm: SigningAlgorithm) -> Option<Zeroizing<Vec<u8>>> {
    let der: Pkcs8V1Der<'static> = match algorithm {
        SigningAlgorithm::Rs256 => rsa::KeyPair::generate(RSA_SIZE).ok()?.as_der().ok()?,
        SigningAlgorithm::EdDsa => Ed25519KeyPair::generate().ok()?.as_der().ok()?,
    };
    Some(Zeroizing::new(der.as_ref().to_vec()))
}

/// The key of a PKCS #8 document.
fn encoding_key(algorithm: SigningAlgorithm, pkcs8: &[u8]) -> Option<EncodingKey> {
    match algorithm {
        // jsonwebtoken unwraps the RSA key inside from PEM alone.
        SigningAlgorithm::Rs256 => EncodingKey::from_rsa_pem(pem(pkcs8).as_bytes()).ok(),
        SigningAlgorithm::EdDsa => {
            Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
            Some(EncodingKey::from_ed_der(pkcs8))
        }
    }
}

fn pem(pkcs8: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(BASE64.encode(pkcs8));
    // Room for everything at once: growing would leave a copy of the key behind.
    let mut pem = Zeroizing::new(String::with_capacity(base64.len() * 2 + 128));
    pem.push_str("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(PEM_LINE_CHARS));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

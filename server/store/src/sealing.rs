//! Secrets at rest: sealed under the server's master key with AES-256-GCM.
//!
//! A sealed secret is version (1 byte), fingerprint of the master key (8), nonce (12), ciphertext, tag (16).
//! Everything before the nonce and the purpose are authenticated with it, so that a secret that was moved to
//! another place does not open there. The fingerprint tells a wrong master key from damage, which cryptography
//! alone cannot.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

/// Bytes of a master key.
pub const MASTER_KEY_BYTES: usize = 32;
/// What sealing adds to the length of a secret, in bytes.
pub const SEALING_OVERHEAD_BYTES: usize = SECRET_START + TAG_BYTES;

const VERSION: u8 = 1;
const FINGERPRINT_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
const NONCE_START: usize = 1 + FINGERPRINT_BYTES;
const SECRET_START: usize = NONCE_START + NONCE_LEN;
const CONTEXT: &[u8] = b"farshore sealed secret\0";
const FINGERPRINT_CONTEXT: &[u8] = b"farshore master key fingerprint v1";

/// The key under which the server's secrets rest. Clones share one place in memory, which is erased with the
/// last of them.
#[derive(Clone)]
pub struct MasterKey(Arc<Zeroizing<[u8; MASTER_KEY_BYTES]>>);

/// The system has no randomness to give, or the cipher failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the random source or the cipher of the system failed")]
pub struct SealError;

/// Why a sealed secret does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// It was sealed under another master key.
    #[error("it was sealed under another master key")]
    WrongMasterKey,
    /// It is not what was sealed, or not for this purpose.
    #[error("it is damaged, or was sealed for another purpose")]
    Damaged,
}

impl MasterKey {
    /// A new key from the system's random source.
    ///
    /// # Errors
    /// Where the system has no randomness to give.
    pub fn generate() -> Result<Self, SealError> {
        let mut key = Zeroizing::new([0; MASTER_KEY_BYTES]);
        aws_lc_rs::rand::fill(&mut key[..]).map_err(|_| SealError)?;
        Ok(Self(Arc::new(key)))
    }

    /// The key with these bytes, whose caller erases them; `None` unless they are [`MASTER_KEY_BYTES`].
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; MASTER_KEY_BYTES]);
        (bytes.len() == MASTER_KEY_BYTES).then(|| {
            key.copy_from_slice(bytes);
            Self(Arc::new(key))
        })
    }

    /// The key itself, to write it down. Whoever copies it erases the copy.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; MASTER_KEY_BYTES] {
        &self.0
    }

    /// Seals a secret for one purpose, such as `tenant-key/demo`.
    ///
    /// # Errors
    /// Where the system has no randomness to give.
    pub fn seal(&self, purpose: &str, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut sealed = Vec::with_capacity(secret.len() + SEALING_OVERHEAD_BYTES);
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.fingerprint());
        // The capacity holds the tag as well: growing would leave a copy of the plain secret behind.
        let mut body = Zeroizing::new(Vec::with_capacity(secret.len() + TAG_BYTES));
        body.extend_from_slice(secret);
        let aad = Aad::from(authenticated(purpose, &sealed));
        let nonce =
            self.cipher().seal_in_place_append_tag(aad, &mut *body).map_err(|_| SealError)?;
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens what [`MasterKey::seal`] made for the same purpose.
    ///
    /// # Errors
    /// Tells a wrong key from damage.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
        if sealed.len() < SEALING_OVERHEAD_BYTES || sealed[0] != VERSION {
            return Err(UnsealError::Damaged);
        }
        let (header, rest) = sealed.split_at(NONCE_START);
        if header[1..] != self.fingerprint() {
            return Err(UnsealError::WrongMasterKey);
        }
        let (nonce, body) = rest.split_at(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| UnsealError::Damaged)?;
        let mut body = Zeroizing::new(body.to_vec());
        let aad = Aad::from(authenticated(purpose, header));
        let length = self
            .cipher()
            .open_in_place(nonce, aad, &mut body)
            .map_err(|_| UnsealError::Damaged)?
            .len();
        body.truncate(length);
        Ok(body)
    }

    /// Tells this key from another without giving it away.
    fn fingerprint(&self) -> [u8; FINGERPRINT_BYTES] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.as_bytes());
        let tag = hmac::sign(&key, FINGERPRINT_CONTEXT);
        *tag.as_ref().first_chunk().expect("an HMAC-SHA256 tag is 32 bytes long")
    }

    fn cipher(&self) -> RandomizedNonceKey {
        RandomizedNonceKey::new(&AES_256_GCM, self.as_bytes())
            .expect("AES-256-GCM takes every key of 32 bytes")
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

fn authenticated(purpose: &str, header: &[u8]) -> Vec<u8> {
    [CONTEXT, header, purpose.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> MasterKey {
        MasterKey::from_slice(&[byte; MASTER_KEY_BYTES]).unwrap()
    }

    #[test]
    fn a_secret_opens_under_its_key_and_for_its_purpose_only() {
        let sealed = key(1).seal("tenant-key/demo", b"secret").unwrap();
        assert_eq!(sealed.len(), b"secret".len() + SEALING_OVERHEAD_BYTES);
        assert_eq!(key(1).open("tenant-key/demo", &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(key(1).open("tenant-key/other", &sealed).unwrap_err(), UnsealError::Damaged);
        assert_eq!(
            key(2).open("tenant-key/demo", &sealed).unwrap_err(),
            UnsealError::WrongMasterKey
        );
        assert_ne!(sealed, key(1).seal("tenant-key/demo", b"secret").unwrap(), "nonces differ");
    }

    #[test]
    fn every_altered_or_cut_byte_is_noticed() {
        let sealed = key(1).seal("p", b"secret").unwrap();
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(key(1).open("p", &altered).is_err(), "byte {at}");
            assert!(key(1).open("p", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn keys_have_32_bytes_and_do_not_show() {
        assert!(MasterKey::from_slice(&[0; 31]).is_none());
        assert_ne!(
            MasterKey::generate().unwrap().as_bytes(),
            MasterKey::generate().unwrap().as_bytes()
        );
        assert_eq!(format!("{:?}", key(7)), "MasterKey(..)");
    }
}

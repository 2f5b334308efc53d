//! The envelope: a data key sealed under a vault key with AES-256-GCM.
//!
//! Layout: version (1 byte), fingerprint of the vault key (8), nonce (12), sealed key (32), tag (16).
//! The label and everything before the sealed key are authenticated with it, so an envelope moved to another label does not open.
//! The fingerprint tells a wrong vault key from a damaged envelope; cryptography alone cannot.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use super::secret::{FINGERPRINT_BYTES, VaultKey};
use super::{DataKey, KEY_BYTES, VaultError, VaultLabel};

/// Longest wrapped key, in bytes, of any vault.
pub const MAX_WRAPPED_KEY_BYTES: usize = 1024;

const VERSION: u8 = 1;
const CONTEXT: &[u8] = b"farshore data key envelope\0";
const TAG_BYTES: usize = 16;
const NONCE_START: usize = 1 + FINGERPRINT_BYTES;
const SEALED_START: usize = NONCE_START + NONCE_LEN;
const ENVELOPE_BYTES: usize = SEALED_START + KEY_BYTES + TAG_BYTES;

/// A data key as a vault wrapped it. It is no secret: without the vault it says nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey(Vec<u8>);

impl WrappedKey {
    /// Takes what a vault made; `None` if it is empty or longer than [`MAX_WRAPPED_KEY_BYTES`].
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        (1..=MAX_WRAPPED_KEY_BYTES).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The bytes that the vault made.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "WrappedKey({} bytes)", self.0.len())
    }
}

/// Seals `key` for `label`.
pub(super) fn seal(
    label: &VaultLabel,
    vault_key: &VaultKey,
    key: &DataKey,
) -> Result<WrappedKey, VaultError> {
    let mut envelope = Vec::with_capacity(ENVELOPE_BYTES);
    envelope.push(VERSION);
    envelope.extend_from_slice(&vault_key.fingerprint());

    // The capacity holds the tag as well: growing would leave a copy of the plain key behind.
    let mut sealed = Zeroizing::new(Vec::with_capacity(KEY_BYTES + TAG_BYTES));
    sealed.extend_from_slice(key.as_bytes());
    let aad = Aad::from(authenticated(label, &envelope));
    let nonce = cipher(vault_key)
        .seal_in_place_append_tag(aad, &mut *sealed)
        .map_err(|_| VaultError::unavailable("the random source or the cipher failed"))?;

    envelope.extend_from_slice(nonce.as_ref());
    envelope.extend_from_slice(&sealed);
    assert_eq!(envelope.len(), ENVELOPE_BYTES, "the layout is fixed");
    Ok(WrappedKey(envelope))
}

/// Opens what [`seal`] made for the same label.
pub(super) fn open(
    label: &VaultLabel,
    vault_key: &VaultKey,
    wrapped: &WrappedKey,
) -> Result<DataKey, VaultError> {
    let damaged =
        |detail| VaultError::Damaged { what: format!("the wrapped key of `{label}`"), detail };
    let envelope = wrapped.as_bytes();
    if envelope.len() != ENVELOPE_BYTES || envelope[0] != VERSION {
        return Err(damaged("it is no envelope of this version"));
    }
    let (header, rest) = envelope.split_at(NONCE_START);
    let (nonce, sealed) = rest.split_at(NONCE_LEN);
    if header[1..] != vault_key.fingerprint() {
        return Err(VaultError::WrongKey { label: label.clone() });
    }
    let nonce = Nonce::try_assume_unique_for_key(nonce).expect("the layout is fixed");
    let mut opened = Zeroizing::new(sealed.to_vec());
    let key = cipher(vault_key)
        .open_in_place(nonce, Aad::from(authenticated(label, header)), &mut opened)
        .map_err(|_| damaged("it does not authenticate under the key that sealed it"))?;
    Ok(DataKey::from_slice(key).expect("the layout is fixed"))
}

fn cipher(vault_key: &VaultKey) -> RandomizedNonceKey {
    RandomizedNonceKey::new(&AES_256_GCM, vault_key.as_bytes())
        .expect("AES-256-GCM takes every key of 32 bytes")
}

fn authenticated(label: &VaultLabel, header: &[u8]) -> Vec<u8> {
    [CONTEXT, header, label.as_str().as_bytes()].concat()
}

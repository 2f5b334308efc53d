//! Secret keys: 32 random bytes in one place on the heap, erased when dropped.
//!
//! The bytes are boxed so that moving a key leaves no copy behind on the stack.

use std::fmt;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::VaultError;

/// Length of a data key and of a vault key.
pub const KEY_BYTES: usize = 32;

/// Length of a fingerprint: it tells keys apart and is no authenticator.
pub(super) const FINGERPRINT_BYTES: usize = 8;

/// What a vault key's fingerprint is computed over, so that it says nothing about the key's other uses.
const FINGERPRINT_CONTEXT: &[u8] = b"farshore vault key fingerprint v1";

/// What a vault key starts with when it is written down.
const VAULT_KEY_PREFIX: &str = "farshore-vault-key:1:";

/// Longest written vault key: prefix, key, `:`, fingerprint, and a line end that an editor may have added.
pub(super) const MAX_VAULT_KEY_TEXT_BYTES: usize =
    VAULT_KEY_PREFIX.len() + 2 * KEY_BYTES + 1 + 2 * FINGERPRINT_BYTES + 2;

/// The raw key of one encrypted database.
pub struct DataKey(Secret);

/// The key that seals the data keys of one label.
pub(super) struct VaultKey(Secret);

struct Secret(Box<Zeroizing<[u8; KEY_BYTES]>>);

impl Secret {
    fn generate() -> Result<Self, VaultError> {
        let mut secret = Self::zeros();
        getrandom::fill(&mut secret.0[..]).map_err(VaultError::unavailable)?;
        Ok(secret)
    }

    fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut secret = Self::zeros();
        (bytes.len() == KEY_BYTES).then(|| {
            secret.0.copy_from_slice(bytes);
            secret
        })
    }

    fn zeros() -> Self {
        Self(Box::new(Zeroizing::new([0; KEY_BYTES])))
    }
}

impl DataKey {
    /// Makes a new key from the system's random source.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`] if the system has no randomness to give.
    pub fn generate() -> Result<Self, VaultError> {
        Secret::generate().map(Self)
    }

    /// Copies a key out of `bytes`, which the caller erases; `None` unless they are [`KEY_BYTES`] long.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Secret::from_slice(bytes).map(Self)
    }

    /// The key itself. Whoever copies it erases the copy.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0.0
    }
}

impl VaultKey {
    pub(super) fn generate() -> Result<Self, VaultError> {
        Secret::generate().map(Self)
    }

    pub(super) fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0.0
    }

    /// Tells this key from another without giving it away.
    pub(super) fn fingerprint(&self) -> [u8; FINGERPRINT_BYTES] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.as_bytes());
        let tag = hmac::sign(&key, FINGERPRINT_CONTEXT);
        *tag.as_ref().first_chunk().expect("an HMAC-SHA256 tag is 32 bytes long")
    }

    /// The key as one line of text with its fingerprint: keychains and people handle text better than bytes.
    pub(super) fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(MAX_VAULT_KEY_TEXT_BYTES));
        text.push_str(VAULT_KEY_PREFIX);
        HEXLOWER.encode_append(self.as_bytes(), &mut text);
        text.push(':');
        HEXLOWER.encode_append(&self.fingerprint(), &mut text);
        text
    }

    /// Reads what [`VaultKey::to_text`] wrote; the error says what is wrong with it.
    pub(super) fn from_text(text: &[u8]) -> Result<Self, &'static str> {
        let text = text.trim_ascii_end();
        let body = text
            .strip_prefix(VAULT_KEY_PREFIX.as_bytes())
            .ok_or("it does not start like a vault key of this version")?;
        let (key, fingerprint) = body.split_at_checked(2 * KEY_BYTES).ok_or("it is cut short")?;
        let mut secret = Secret::zeros();
        HEXLOWER.decode_mut(key, &mut secret.0[..]).map_err(|_| "its key is not hexadecimal")?;
        let key = Self(secret);
        let expected = format!(":{}", HEXLOWER.encode(&key.fingerprint()));
        if fingerprint == expected.as_bytes() {
            Ok(key)
        } else {
            Err("its key and its fingerprint disagree")
        }
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DataKey(..)")
    }
}

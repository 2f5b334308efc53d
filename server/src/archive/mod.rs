//! A tenant in one file: what a backup is.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `FARSHARC` |
//! | 1 | the version of the format, 1 |
//! | 4 + n | length and CBOR of the [`Label`]: whose archive it is, of when, and its key, sealed with the master key |
//! | 4 + n, again and again | length and ciphertext of a frame: AES-256-GCM with the archive's key; the nonce counts the frames, and the label is authenticated with each |
//!
//! A frame is, in the clear, one byte for its kind and zstd of either records, each behind its length, or of the
//! [`Contents`] that end the archive. So nothing can be altered, left out, put in another order or cut off unnoticed, and
//! none of it can be read without the master key.
//!
//! - `write`: [`ArchiveWriter`]: records in, bytes out.
//! - `read`: [`ArchiveReader`]: bytes in, records out.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use farshore_store::copy::CopyDigest;
use farshore_store::sealing::MasterKey;
use farshore_sync_core::ids::TenantId;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{ArchiveError, ArchiveReader, Step};
pub use write::ArchiveWriter;

/// Longest frame, in bytes: a batch of records, the last of which may be a large one.
pub const MAX_FRAME_BYTES: usize = 64 << 20;
/// Longest label, in bytes.
pub const MAX_LABEL_BYTES: usize = 4 << 10;

const MAGIC: &[u8; 8] = b"FARSHARC";
const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
/// Of a length.
const LENGTH_BYTES: usize = 4;
const RECORDS: u8 = 0;
const CONTENTS: u8 = 1;

/// What can be read of an archive without the master key. It says nothing that the name of the file would not.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Label {
    /// The slug of the tenant.
    #[n(0)]
    pub tenant: String,
    /// When the archive was made, in milliseconds since 1970.
    #[n(1)]
    pub made_at_ms: u64,
    /// The archive's key, sealed.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    sealed_key: Vec<u8>,
}

/// What an archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    /// What its records add up to.
    pub digest: CopyDigest,
    /// Living rows.
    pub rows: u64,
    /// All records.
    pub records: u64,
}

impl Contents {
    const BYTES: usize = 32 + 8 + 8;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..32].copy_from_slice(&self.digest.0);
        bytes[32..40].copy_from_slice(&self.rows.to_le_bytes());
        bytes[40..].copy_from_slice(&self.records.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let number = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("8 bytes"));
        let digest = CopyDigest(*bytes.first_chunk().expect("32 bytes"));
        Some(Self { digest, rows: number(32), records: number(40) })
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Label({}, {})", self.tenant, self.made_at_ms)
    }
}

/// Seals and opens frames, in their order.
struct FrameCipher {
    key: LessSafeKey,
    /// Everything before the first frame.
    authenticated: Vec<u8>,
    frames: u64,
}

impl FrameCipher {
    fn new(key: &Zeroizing<Vec<u8>>, authenticated: Vec<u8>) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
        Some(Self { key: LessSafeKey::new(key), authenticated, frames: 0 })
    }

    /// A key encrypts one archive, so a counter never gives a nonce twice.
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&self.frames.to_be_bytes());
        self.frames += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&mut self, mut frame: Vec<u8>) -> Vec<u8> {
        let nonce = self.next_nonce();
        let sealed =
            self.key.seal_in_place_append_tag(nonce, Aad::from(&self.authenticated), &mut frame);
        sealed.expect("AES-256-GCM takes every frame");
        frame
    }

    fn open(&mut self, mut frame: Vec<u8>) -> Option<Vec<u8>> {
        let nonce = self.next_nonce();
        let length =
            self.key.open_in_place(nonce, Aad::from(&self.authenticated), &mut frame).ok()?.len();
        frame.truncate(length);
        Some(frame)
    }
}

fn purpose(tenant: &str) -> String {
    format!("tenant-archive/{tenant}")
}

/// The bytes before the first frame.
fn preamble(label: &Label) -> Vec<u8> {
    let label = minicbor::to_vec(label).expect("writing to memory cannot fail");
    let length = u32::try_from(label.len()).expect("a label is short");
    [&MAGIC[..], &[VERSION], &length.to_le_bytes(), &label].concat()
}

/// A fresh key for an archive, and the label that carries it.
fn new_label(
    tenant: &TenantId,
    made_at_ms: u64,
    master_key: &MasterKey,
) -> Result<(Label, Zeroizing<Vec<u8>>), farshore_store::sealing::SealError> {
    let mut key = Zeroizing::new(vec![0; KEY_BYTES]);
    aws_lc_rs::rand::fill(&mut key).map_err(|_| farshore_store::sealing::SealError)?;
    let sealed_key = master_key.seal(&purpose(tenant.as_str()), &key)?;
    Ok((Label { tenant: tenant.as_str().to_owned(), made_at_ms, sealed_key }, key))
}

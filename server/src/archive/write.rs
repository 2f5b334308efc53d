//! Records in, bytes out.

use farshore_store::copy::{Record, Tally};
use farshore_store::sealing::{MasterKey, SealError};
use farshore_sync_core::ids::TenantId;

use super::{CONTENTS, Contents, FrameCipher, LENGTH_BYTES, RECORDS, new_label, preamble};

/// How hard zstd tries: a backup is read seldom and written often.
const COMPRESSION_LEVEL: i32 = 3;

/// An archive that is being written.
pub struct ArchiveWriter {
    cipher: FrameCipher,
    tally: Tally,
}

impl ArchiveWriter {
    /// Begins an archive; its first bytes come along.
    ///
    /// # Errors
    /// Where the system has no randomness to give.
    pub fn begin(
        tenant: &TenantId,
        made_at_ms: u64,
        master_key: &MasterKey,
    ) -> Result<(Self, Vec<u8>), SealError> {
        let (label, key) = new_label(tenant, made_at_ms, master_key)?;
        let preamble = preamble(&label);
        let cipher = FrameCipher::new(&key, preamble.clone()).ok_or(SealError)?;
        Ok((Self { cipher, tally: Tally::default() }, preamble))
    }

    /// The bytes of the next records.
    pub fn frame(&mut self, records: &[Record]) -> Vec<u8> {
        let mut plain = Vec::new();
        for record in records {
            let bytes = record.to_bytes();
            self.tally.count(record, &bytes);
            let length = u32::try_from(bytes.len()).expect("a record is shorter than a frame");
            plain.extend_from_slice(&length.to_le_bytes());
            plain.extend_from_slice(&bytes);
        }
        self.seal(RECORDS, &plain)
    }

    /// The last bytes, and what the archive holds.
    #[must_use]
    pub fn finish(mut self) -> (Vec<u8>, Contents) {
        let Tally { rows, records, .. } = self.tally;
        let contents = Contents { digest: self.tally.digest(), rows, records };
        (self.seal(CONTENTS, &contents.to_bytes()), contents)
    }

    fn seal(&mut self, kind: u8, plain: &[u8]) -> Vec<u8> {
        let compressed =
            zstd::bulk::compress(plain, COMPRESSION_LEVEL).expect("zstd compresses any bytes");
        let mut frame = Vec::with_capacity(1 + compressed.len());
        frame.push(kind);
        frame.extend_from_slice(&compressed);
        let sealed = self.cipher.seal(frame);
        let mut bytes = Vec::with_capacity(LENGTH_BYTES + sealed.len());
        bytes.extend_from_slice(
            &u32::try_from(sealed.len()).expect("a frame is short").to_le_bytes(),
        );
        bytes.extend_from_slice(&sealed);
        bytes
    }
}

impl std::fmt::Debug for ArchiveWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveWriter").field("tally", &self.tally).finish_non_exhaustive()
    }
}

//! Bytes in, records out.

use farshore_store::copy::{Record, RecordError, Tally};
use farshore_store::sealing::{MasterKey, UnsealError};

use super::{
    CONTENTS, Contents, FrameCipher, LENGTH_BYTES, Label, MAGIC, MAX_FRAME_BYTES, MAX_LABEL_BYTES,
    RECORDS, VERSION, purpose,
};

/// Bytes before the label.
const PREFIX_BYTES: usize = MAGIC.len() + 1 + LENGTH_BYTES;

/// Why an archive cannot be read. Each is one line; none of them changes anything on the server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// It begins with something else.
    #[error("this is no archive of a tenant")]
    NoArchive,
    /// A newer server made it.
    #[error(
        "the archive has format {found}, and this version reads format {VERSION}; upgrade the server"
    )]
    NewerFormat {
        /// Its format.
        found: u8,
    },
    /// It was made under another master key.
    #[error("the archive was made under another master key; start with that one to restore it")]
    WrongMasterKey,
    /// It is not what was written.
    #[error("the archive is damaged in frame {frame}: nothing was changed")]
    Damaged {
        /// Which frame; 0 is the label.
        frame: u64,
    },
    /// It ends before its end.
    #[error("the archive is cut off after {frames} frames: nothing was changed")]
    CutOff {
        /// How many frames are whole.
        frames: u64,
    },
    /// Something follows its end.
    #[error("something follows the end of the archive: nothing was changed")]
    Longer,
}

/// What the next bytes gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until there are more.
    More,
    /// Whose archive it is; the first frame proves it.
    Label(Label),
    /// The next records.
    Records(Vec<Record>),
    /// The end.
    End(Contents),
}

/// An archive that is being read, in whatever pieces it comes.
pub struct ArchiveReader {
    master_key: MasterKey,
    waiting: Vec<u8>,
    cipher: Option<FrameCipher>,
    tally: Tally,
    ended: bool,
}

impl ArchiveReader {
    /// Nothing read yet.
    #[must_use]
    pub fn new(master_key: MasterKey) -> Self {
        let (waiting, tally) = (Vec::new(), Tally::default());
        Self { master_key, waiting, cipher: None, tally, ended: false }
    }

    /// Takes more bytes in. [`ArchiveReader::step`] is to be called until it wants more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// What the bytes give that came so far.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn step(&mut self) -> Result<Step, ArchiveError> {
        if self.ended {
            return if self.waiting.is_empty() {
                Ok(Step::More)
            } else {
                Err(ArchiveError::Longer)
            };
        }
        match &mut self.cipher {
            None => self.label(),
            Some(_) => self.frame(),
        }
    }

    /// Checks, once all bytes came, that the archive has come to its end.
    ///
    /// # Errors
    /// [`ArchiveError::CutOff`] where it has not.
    pub fn finish(&self) -> Result<(), ArchiveError> {
        let frames = self.frames();
        self.ended.then_some(()).ok_or(ArchiveError::CutOff { frames })
    }

    fn frames(&self) -> u64 {
        self.cipher.as_ref().map_or(0, |cipher| cipher.frames)
    }

    fn label(&mut self) -> Result<Step, ArchiveError> {
        let known = self.waiting.len().min(MAGIC.len());
        if self.waiting[..known] != MAGIC[..known] {
            return Err(ArchiveError::NoArchive);
        }
        let Some(prefix) = self.waiting.get(..PREFIX_BYTES) else { return Ok(Step::More) };
        if prefix[MAGIC.len()] != VERSION {
            return Err(ArchiveError::NewerFormat { found: prefix[MAGIC.len()] });
        }
        let length = length_at(prefix, MAGIC.len() + 1);
        if length > MAX_LABEL_BYTES {
            return Err(ArchiveError::Damaged { frame: 0 });
        }
        if self.waiting.len() < PREFIX_BYTES + length {
            return Ok(Step::More);
        }
        let rest = self.waiting.split_off(PREFIX_BYTES + length);
        let preamble = std::mem::replace(&mut self.waiting, rest);
        let damaged = ArchiveError::Damaged { frame: 0 };
        let label: Label =
            minicbor::decode(&preamble[PREFIX_BYTES..]).map_err(|_| damaged.clone())?;
        let key = self.master_key.open(&purpose(&label.tenant), &label.sealed_key);
        let key = key.map_err(|error| match error {
            UnsealError::WrongMasterKey => ArchiveError::WrongMasterKey,
            UnsealError::Damaged => damaged.clone(),
        })?;
        self.cipher = Some(FrameCipher::new(&key, preamble).ok_or(damaged)?);
        Ok(Step::Label(label))
    }

    fn frame(&mut self) -> Result<Step, ArchiveError> {
        let damaged = ArchiveError::Damaged { frame: self.frames() + 1 };
        if self.waiting.len() < LENGTH_BYTES {
            return Ok(Step::More);
        }
        let length = length_at(&self.waiting, 0);
        if length > MAX_FRAME_BYTES {
            return Err(damaged);
        }
        if self.waiting.len() < LENGTH_BYTES + length {
            return Ok(Step::More);
        }
        let rest = self.waiting.split_off(LENGTH_BYTES + length);
        let mut frame = std::mem::replace(&mut self.waiting, rest);
        frame.drain(..LENGTH_BYTES);
        let cipher = self.cipher.as_mut().ok_or_else(|| damaged.clone())?;
        let frame = cipher.open(frame).ok_or_else(|| damaged.clone())?;
        let (kind, compressed) = frame.split_first().ok_or_else(|| damaged.clone())?;
        let plain =
            zstd::bulk::decompress(compressed, MAX_FRAME_BYTES).map_err(|_| damaged.clone())?;
        match *kind {
            RECORDS => self.records(&plain).map(Step::Records).ok_or(damaged),
            CONTENTS => {
                let contents = Contents::from_bytes(&plain).ok_or_else(|| damaged.clone())?;
                // Every frame was authenticated: a difference is a fault of whoever wrote it.
                if contents.digest != self.tally.digest() || contents.records != self.tally.records
                {
                    return Err(damaged);
                }
                self.ended = true;
                Ok(Step::End(contents))
            }
            _ => Err(damaged),
        }
    }

    fn records(&mut self, mut plain: &[u8]) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        while !plain.is_empty() {
            let (length, rest) = plain.split_first_chunk::<LENGTH_BYTES>()?;
            let length = u32::from_le_bytes(*length) as usize;
            let (bytes, rest) = rest.split_at_checked(length)?;
            let record: Result<Record, RecordError> = Record::from_bytes(bytes);
            let record = record.ok()?;
            self.tally.count(&record, bytes);
            records.push(record);
            plain = rest;
        }
        Some(records)
    }
}

impl std::fmt::Debug for ArchiveReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveReader").field("tally", &self.tally).finish_non_exhaustive()
    }
}

fn length_at(bytes: &[u8], at: usize) -> usize {
    let length = bytes[at..].first_chunk().expect("the caller looked at its end");
    u32::from_le_bytes(*length) as usize
}

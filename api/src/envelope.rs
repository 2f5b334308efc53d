//! What one message of the sync socket holds: a byte that says how, then a frame.
//!
//! | first byte | the rest |
//! |---|---|
//! | 0 | the frame as it is |
//! | 1 | one zstd frame that states the size of its content |
//!
//! A decoder never allocates more than [`MAX_FRAME_BYTES`], whatever a message claims: the stated size is
//! checked first, and the decompressed bytes must be exactly as many.

use std::borrow::Cow;
use std::cell::RefCell;

use farshore_sync_core::wire::limits::MAX_FRAME_BYTES;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

/// Frames up to this length travel as they are: there is too little in them to find a pattern.
pub const COMPRESS_ABOVE_BYTES: usize = 256;
/// Compression must save at least one byte in this many, else the frame travels as it is and the receiver is
/// spared the work.
pub const WORTHWHILE_SAVING: usize = 8;

/// A frame that has more different byte values than two for five of its bytes is taken for random, such as a key, a
/// photo's piece or what is encrypted already, and is not tried: that would be most of the work of making its message.
/// Of 640 bytes and more none has so many.
const RANDOM_FROM: (usize, usize) = (2, 5);

/// The level at which a socket compresses: above it the ratio gains little and the time grows much.
const LEVEL: i32 = 1;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

// A context is large, and setting one up costs as much as a small frame.
thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Why a message holds no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The message has no byte at all.
    #[error("the message is empty")]
    Empty,
    /// The first byte is none of the known ones.
    #[error("the message is encoded in a way that is not known: {0}")]
    UnknownEncoding(u8),
    /// The frame is longer than [`MAX_FRAME_BYTES`], or says that it will be.
    #[error("the frame has {bytes} bytes; the limit is {MAX_FRAME_BYTES}")]
    TooLong {
        /// Its size as stated.
        bytes: u64,
    },
    /// The compressed part does not state the size of its content.
    #[error("the compressed frame does not state its size")]
    SizeNotStated,
    /// The compressed part is no zstd frame, or not exactly one, or not of the stated size.
    #[error("the compressed frame is damaged")]
    Damaged,
}

/// Wraps a frame for the socket.
///
/// # Panics
/// Where the frame is longer than [`MAX_FRAME_BYTES`]: whoever builds frames keeps them shorter.
#[must_use]
pub fn seal(frame: &[u8]) -> Vec<u8> {
    assert!(frame.len() <= MAX_FRAME_BYTES, "a frame of {} bytes was built", frame.len());
    if let Some(message) = compressed(frame) {
        return message;
    }
    let mut message = Vec::with_capacity(1 + frame.len());
    message.push(PLAIN);
    message.extend_from_slice(frame);
    message
}

/// The frame in a message; borrowed where it travelled as it is.
///
/// # Errors
/// See [`EnvelopeError`]; hostile bytes never panic.
pub fn open(message: &[u8]) -> Result<Cow<'_, [u8]>, EnvelopeError> {
    match message.split_first() {
        None => Err(EnvelopeError::Empty),
        Some((&PLAIN, frame)) if frame.len() > MAX_FRAME_BYTES => {
            Err(EnvelopeError::TooLong { bytes: frame.len() as u64 })
        }
        Some((&PLAIN, frame)) => Ok(Cow::Borrowed(frame)),
        Some((&ZSTD, body)) => decompressed(body).map(Cow::Owned),
        Some((&other, _)) => Err(EnvelopeError::UnknownEncoding(other)),
    }
}

/// The message with the frame compressed, where that is worth it.
fn compressed(frame: &[u8]) -> Option<Vec<u8>> {
    if frame.len() <= COMPRESS_ABOVE_BYTES || looks_random(frame) {
        return None;
    }
    // Room for what is worth sending and no more: a frame that does not fit fails early.
    let most = frame.len() - frame.len() / WORTHWHILE_SAVING;
    let mut message = vec![0; 1 + most];
    message[0] = ZSTD;
    let length = COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => kept.insert(Compressor::new(LEVEL).ok()?),
        };
        compressor.compress_to_buffer(frame, &mut message[1..]).ok()
    })?;
    message.truncate(1 + length);
    Some(message)
}

/// Whether so many different byte values are in a frame that there is no use in compressing it.
fn looks_random(frame: &[u8]) -> bool {
    let (part, of) = RANDOM_FROM;
    let most = frame.len() * part / of;
    if most >= 256 {
        return false;
    }
    let mut seen = [false; 256];
    frame.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    seen.iter().filter(|seen| **seen).count() > most
}

fn decompressed(body: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let stated = zstd_safe::get_frame_content_size(body).map_err(|_| EnvelopeError::Damaged)?;
    let stated = stated.ok_or(EnvelopeError::SizeNotStated)?;
    let size = usize::try_from(stated)
        .ok()
        .filter(|size| *size <= MAX_FRAME_BYTES)
        .ok_or(EnvelopeError::TooLong { bytes: stated })?;
    // One zstd frame and nothing behind it: further frames would decompress into the same buffer.
    if zstd_safe::find_frame_compressed_size(body) != Ok(body.len()) {
        return Err(EnvelopeError::Damaged);
    }
    let frame = DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new().map_err(|_| EnvelopeError::Damaged)?),
        };
        decompressor.decompress(body, size).map_err(|_| EnvelopeError::Damaged)
    })?;
    if frame.len() == size { Ok(frame) } else { Err(EnvelopeError::Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repetitive(bytes: usize) -> Vec<u8> {
        b"flights/2013-01-".iter().copied().cycle().take(bytes).collect()
    }

    /// Bytes without a pattern, the same in every run.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .take(bytes)
        .collect()
    }

    #[test]
    fn what_was_sealed_opens() {
        let lengths =
            [0, 1, COMPRESS_ABOVE_BYTES, COMPRESS_ABOVE_BYTES + 1, 100_000, MAX_FRAME_BYTES];
        for length in lengths {
            for frame in [repetitive(length), noise(length)] {
                assert_eq!(open(&seal(&frame)).unwrap(), frame, "{length} bytes");
            }
        }
    }

    #[test]
    fn a_frame_is_compressed_only_where_that_pays() {
        assert_eq!(seal(&repetitive(COMPRESS_ABOVE_BYTES))[0], PLAIN, "too short");
        assert_eq!(seal(&noise(10_000))[0], PLAIN, "no pattern");
        let message = seal(&repetitive(10_000));
        assert_eq!(message[0], ZSTD);
        assert!(message.len() < 500, "{} bytes", message.len());
    }

    #[test]
    fn a_short_frame_of_random_bytes_is_not_tried() {
        let values: Vec<u8> = (0..=u8::MAX).collect();
        // The zeros alone would be worth it.
        let random = [&values[..200], &[0; 250][..]].concat();
        assert_eq!(seal(&random)[0], PLAIN);
        let (part, of) = RANDOM_FROM;
        let text = [&values[..200], &vec![0; 200 * of / part - 200 + of][..]].concat();
        assert_eq!(seal(&text)[0], ZSTD);
        let long = [&values[..], &[0; 400][..]].concat();
        assert_eq!(seal(&long)[0], ZSTD);
    }

    #[test]
    fn a_bomb_is_refused_by_the_size_that_it_states() {
        let bytes = 256 << 20;
        let mut bomb = vec![ZSTD];
        bomb.extend(zstd::bulk::compress(&vec![0; bytes], 1).unwrap());
        assert!(bomb.len() < 100_000, "{} bytes", bomb.len());
        assert_eq!(open(&bomb).unwrap_err(), EnvelopeError::TooLong { bytes: bytes as u64 });
    }

    #[test]
    fn a_bomb_that_lies_about_its_size_is_refused() {
        let honest = zstd::bulk::compress(&vec![0; MAX_FRAME_BYTES * 8], 1).unwrap();
        // Frame header: magic (4), descriptor (1), then the content size, here 4 bytes (RFC 8878, 3.1.1.1).
        assert_eq!(honest[4] >> 6, 2, "the size has 4 bytes");
        let window = usize::from(honest[4] & 0x20 == 0);
        let mut lying = vec![ZSTD];
        lying.extend(&honest);
        lying[1 + 5 + window..1 + 9 + window].copy_from_slice(&1_000_u32.to_le_bytes());
        assert_eq!(open(&lying).unwrap_err(), EnvelopeError::Damaged);
    }

    #[test]
    fn a_frame_that_does_not_state_its_size_is_refused() {
        let mut message = vec![ZSTD];
        message.extend(zstd::stream::encode_all(&repetitive(10_000)[..], 1).unwrap());
        assert_eq!(open(&message).unwrap_err(), EnvelopeError::SizeNotStated);
    }

    #[test]
    fn exactly_one_frame_is_accepted() {
        let message = seal(&repetitive(10_000));
        let twice = [&message[..], &message[1..]].concat();
        assert_eq!(open(&twice).unwrap_err(), EnvelopeError::Damaged);
    }

    #[test]
    fn hostile_bytes_are_typed_errors() {
        assert_eq!(open(&[]).unwrap_err(), EnvelopeError::Empty);
        assert_eq!(open(&[7, 1, 2]).unwrap_err(), EnvelopeError::UnknownEncoding(7));
        let too_long = vec![PLAIN; MAX_FRAME_BYTES + 2];
        assert!(matches!(open(&too_long).unwrap_err(), EnvelopeError::TooLong { .. }));
        let frame = repetitive(2_000);
        let message = seal(&frame);
        for cut in 1..message.len() {
            assert!(open(&message[..cut]).is_err(), "cut at {cut}");
        }
        for at in 1..message.len() {
            for bit in 0..8 {
                let mut altered = message.clone();
                altered[at] ^= 1 << bit;
                // Without a checksum some changes go unnoticed here; the frame's own decoder comes after.
                if let Ok(opened) = open(&altered) {
                    assert!(opened.len() <= MAX_FRAME_BYTES);
                }
            }
        }
    }
}

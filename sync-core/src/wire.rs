//! The sync protocol: one WebSocket, binary frames, CBOR with integer keys.
//!
//! The golden files in `sync-core/tests/golden` pin the bytes of each frame; changing one of them is changing
//! the protocol. Compression wraps whole frames and is the transport's business.

pub mod limits;

mod client_frame;
#[cfg(test)]
mod golden;
mod rows;
mod server_frame;

pub use client_frame::{BucketListing, ClientFrame, Hello, Push, ScopePosition};
pub use server_frame::{
    Checkpoint, ChunkEntry, Fault, FaultCode, Grant, Page, PositionUpdate, PushOutcome, Refill,
    RefusedMutation, Repair, Rights, RowEntry, RowPayload, ServerFrame, SumsEntry, Welcome,
};

use crate::digest::Sum;
use crate::ids::Scope;

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "farshore.sync.v1";
/// The version inside the subprotocol; a server answers a higher one with a fault.
pub const PROTOCOL_VERSION: u16 = 1;

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than [`limits::MAX_FRAME_BYTES`].
    #[error("the frame has {bytes} bytes; the limit is {}", limits::MAX_FRAME_BYTES)]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// Not the encoding of a frame.
    #[error("not a frame: {0}")]
    Malformed(#[from] minicbor::decode::Error),
    /// A list in the frame is longer than its cap.
    #[error("{list} has {entries} entries; the limit is {limit}")]
    TooMany {
        /// Which list.
        list: &'static str,
        /// How many entries.
        entries: usize,
        /// How many are allowed.
        limit: usize,
    },
}

/// Something that travels as one frame.
pub trait Frame: Sized + minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()> {
    /// Checks what the encoding alone does not bound.
    ///
    /// # Errors
    /// Names the list that is too long.
    fn check(&self) -> Result<(), FrameError>;

    /// The bytes of the frame.
    #[must_use]
    fn to_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory cannot fail")
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// See [`FrameError`]; hostile bytes never panic, and memory is bounded by their length.
    fn from_bytes(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() > limits::MAX_FRAME_BYTES {
            return Err(FrameError::TooLong { bytes: bytes.len() });
        }
        let mut decoder = minicbor::Decoder::new(bytes);
        let frame: Self = decoder.decode()?;
        if decoder.position() != bytes.len() {
            return Err(minicbor::decode::Error::message("bytes after the frame").into());
        }
        frame.check()?;
        Ok(frame)
    }
}

fn within(list: &'static str, entries: usize, limit: usize) -> Result<(), FrameError> {
    if entries > limit { Err(FrameError::TooMany { list, entries, limit }) } else { Ok(()) }
}

/// The hash by which device and server see that they mean the same scopes: over sorted names and rights.
#[must_use]
pub fn scopes_hash(grants: &[Grant]) -> Sum {
    let mut sorted: Vec<&Grant> = grants.iter().collect();
    sorted.sort_by(|a, b| a.scope.cmp(&b.scope));
    let mut hasher = blake3::Hasher::new();
    for grant in sorted {
        hasher.update(&(grant.scope.as_str().len() as u64).to_le_bytes());
        hasher.update(grant.scope.as_str().as_bytes());
        hasher.update(&[u8::from(grant.rights == Rights::Write)]);
    }
    let mut head = [0; 16];
    head.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    Sum(u128::from_le_bytes(head))
}

/// Where one scope stands, by its index among the sorted scopes of the device.
pub type ScopeIndex = u16;

/// Sorts grants and joins doubles to the larger right, so that scope indexes mean the same on both sides.
#[must_use]
pub fn sorted_grants(grants: impl IntoIterator<Item = Grant>) -> Vec<Grant> {
    let mut by_scope: std::collections::BTreeMap<Scope, Rights> = std::collections::BTreeMap::new();
    for grant in grants {
        let rights = by_scope.entry(grant.scope).or_insert(grant.rights);
        *rights = (*rights).max(grant.rights);
    }
    by_scope.into_iter().map(|(scope, rights)| Grant { scope, rights }).collect()
}

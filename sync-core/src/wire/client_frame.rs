//! What a device says.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::limits::{
    MAX_BUCKETS_PER_REPAIR, MAX_HASHES_PER_REPAIR, MAX_SCOPES_PER_DEVICE, MAX_TOKEN_BYTES,
    MAX_TOTALS, MAX_TRANSACTIONS_PER_PUSH,
};
use super::{Frame, FrameError, within};
use crate::digest::Sum;
use crate::ids::{CollectionId, Scope};

/// A frame from a device to the server.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ClientFrame {
    /// The first frame: where the device stands, and its first transactions.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// The positions of every scope, in answer to scopes that differ from the device's.
    #[n(1)]
    Resume(#[n(0)] Vec<ScopePosition>),
    /// Transactions.
    #[n(2)]
    Push(#[n(0)] Push),
    /// The totals of the device, in answer to a root that differs from its own.
    #[n(3)]
    Compare(#[n(0)] Vec<(Scope, CollectionId, Sum)>),
    /// The rows of the buckets that differ.
    #[n(4)]
    Buckets(#[n(0)] Vec<BucketListing>),
    /// A fresh access token, before the one of the connection expires.
    #[n(5)]
    Token(#[n(0)] String),
    /// Are you there?
    #[n(6)]
    Ping(#[n(0)] u64),
    /// I am.
    #[n(7)]
    Pong(#[n(0)] u64),
}

/// Where a device stands.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// [`super::PROTOCOL_VERSION`] of the device.
    #[n(0)]
    pub protocol: u16,
    /// The version of the schema that the app was built with.
    #[n(1)]
    pub schema_version: u32,
    /// The server's epoch as the device knows it; 0 before the first contact.
    #[n(2)]
    pub epoch: u64,
    /// [`super::scopes_hash`] of the scopes that the device holds.
    #[n(3)]
    pub scopes_hash: Sum,
    /// The seq up to which all scopes are in step.
    #[n(4)]
    pub cursor: u64,
    /// The scopes that are still being filled, or all scopes while a long catch-up is staged.
    #[n(5)]
    #[cbor(default, skip_if = "Vec::is_empty")]
    pub positions: Vec<ScopePosition>,
    /// The transaction up to which the device has recorded the server's answers.
    #[n(6)]
    pub settled: u64,
    /// The number that the device's next transaction will have.
    #[n(7)]
    pub next_number: u64,
    /// The first transactions of the outbox, encoded.
    #[n(8)]
    #[cbor(default, skip_if = "Vec::is_empty")]
    pub transactions: Vec<ByteVec>,
}

/// Up to which seq the device holds one scope.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ScopePosition {
    /// The scope.
    #[n(0)]
    pub scope: Scope,
    /// Its seq.
    #[n(1)]
    pub seq: u64,
}

/// Transactions of a device, in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Push {
    /// The transaction up to which the device has recorded the server's answers.
    #[n(0)]
    pub settled: u64,
    /// The transactions, encoded.
    #[n(1)]
    pub transactions: Vec<ByteVec>,
}

/// What a device holds in one bucket that differs: the short hashes of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct BucketListing {
    /// The scope.
    #[n(0)]
    pub scope: Scope,
    /// The collection.
    #[n(1)]
    pub collection: CollectionId,
    /// The bucket.
    #[n(2)]
    pub bucket: u8,
    /// [`Sum::short`] of each live row, 8 bytes each, little-endian.
    #[n(3)]
    pub hashes: ByteVec,
}

impl ClientFrame {
    /// The name of the frame, for logs and metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Resume(_) => "resume",
            Self::Push(_) => "push",
            Self::Compare(_) => "compare",
            Self::Buckets(_) => "buckets",
            Self::Token(_) => "token",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
        }
    }
}

impl Frame for ClientFrame {
    fn check(&self) -> Result<(), FrameError> {
        match self {
            Self::Hello(hello) => {
                within("positions", hello.positions.len(), MAX_SCOPES_PER_DEVICE)?;
                within("transactions", hello.transactions.len(), MAX_TRANSACTIONS_PER_PUSH)
            }
            Self::Resume(positions) => within("positions", positions.len(), MAX_SCOPES_PER_DEVICE),
            Self::Push(push) => {
                within("transactions", push.transactions.len(), MAX_TRANSACTIONS_PER_PUSH)
            }
            Self::Compare(totals) => within("totals", totals.len(), MAX_TOTALS),
            Self::Buckets(listings) => {
                within("buckets", listings.len(), MAX_BUCKETS_PER_REPAIR)?;
                let hashes = listings.iter().map(|listing| listing.hashes.len() / 8).sum();
                within("hashes", hashes, MAX_HASHES_PER_REPAIR)
            }
            Self::Token(token) => within("token bytes", token.len(), MAX_TOKEN_BYTES),
            Self::Ping(_) | Self::Pong(_) => Ok(()),
        }
    }
}

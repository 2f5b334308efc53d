//! What the server says.

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use super::limits::{MAX_ROWS_PER_PAGE, MAX_SCOPES_PER_DEVICE, MAX_TRANSACTIONS_IN_FLIGHT};
use super::{Frame, FrameError, ScopeIndex, rows, within};
use crate::digest::Sum;
use crate::hlc::{Hlc, Stamp};
use crate::ids::{CollectionId, ColumnId, RowId, Scope};
use crate::reason::ReasonCode;

/// A frame from the server to a device.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ServerFrame {
    /// The answer to Hello; rows follow at once.
    #[n(0)]
    Welcome(#[n(0)] Welcome),
    /// Rows and document changes.
    #[n(1)]
    Page(#[n(0)] Page),
    /// What became of transactions, after their commit is durable.
    #[n(2)]
    Outcomes(#[n(0)] Vec<PushOutcome>),
    /// The buckets of the collections that differ, at the seq of the last page.
    #[n(3)]
    Sums(#[n(0)] Vec<SumsEntry>),
    /// The rows of the buckets that differ.
    #[n(4)]
    Repair(#[n(0)] Repair),
    /// The device's rights changed; what is no longer there is to be purged.
    #[n(5)]
    Scopes(#[n(0)] Vec<Grant>),
    /// Why the server closes the connection.
    #[n(6)]
    Fault(#[n(0)] Fault),
    /// Are you there?
    #[n(7)]
    Ping(#[n(0)] u64),
    /// I am.
    #[n(8)]
    Pong(#[n(0)] u64),
}

/// What a device may do in a scope; writing includes reading.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Rights {
    /// The device receives the scope's rows.
    #[n(0)]
    Read,
    /// It may also change them.
    #[n(1)]
    Write,
}

/// A scope and what the device may do in it.
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    serde::Serialize,
    serde::Deserialize,
)]
#[cbor(array)]
pub struct Grant {
    /// The scope.
    #[n(0)]
    pub scope: Scope,
    /// What the device may do.
    #[n(1)]
    pub rights: Rights,
}

/// Whether the device's copy has to be filled anew, and what becomes of rows that do not come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Default)]
#[cbor(index_only)]
pub enum Refill {
    /// No: the stream continues at the device's cursor.
    #[n(0)]
    #[default]
    No,
    /// The cursor is below the horizon: rows that do not come again were deleted, and are removed.
    #[n(1)]
    BelowHorizon,
    /// The server was restored from a backup: rows that do not come again, or come older, are offered again.
    #[n(2)]
    NewEpoch,
}

/// The answer to Hello.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// The server's wall clock, in milliseconds since 1970.
    #[n(0)]
    pub server_time_ms: u64,
    /// The server's epoch.
    #[n(1)]
    pub epoch: u64,
    /// The tenant's newest seq.
    #[n(2)]
    pub head: u64,
    /// The highest transaction number that the server has seen of this device.
    #[n(3)]
    pub high_water: u64,
    /// The version of the tenant's schema.
    #[n(4)]
    pub schema_version: u32,
    /// The device's scopes, where the hash in Hello was another; the device then answers with `Resume`.
    #[n(5)]
    #[cbor(default, skip_if = "Option::is_none")]
    pub grants: Option<Vec<Grant>>,
    /// The tenant's digest key, on first contact.
    #[n(6)]
    #[cbor(default, skip_if = "Option::is_none")]
    pub digest_key: Option<ByteArray<32>>,
    /// Whether the device's copy is filled anew.
    #[n(7)]
    #[cbor(default)]
    pub refill: Refill,
}

/// Rows and document changes, in the order of their seq within each scope.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Default)]
#[cbor(map)]
pub struct Page {
    /// The rows.
    #[n(0)]
    #[cbor(default, skip_if = "Vec::is_empty", with = "rows")]
    pub rows: Vec<RowEntry>,
    /// The changes of their documents.
    #[n(1)]
    #[cbor(default, skip_if = "Vec::is_empty")]
    pub chunks: Vec<ChunkEntry>,
    /// Where scopes stand after this page; those not named stand where they stood.
    #[n(2)]
    #[cbor(default, skip_if = "Vec::is_empty")]
    pub positions: Vec<PositionUpdate>,
    /// Present where all scopes are in step after this page.
    #[n(3)]
    #[cbor(default, skip_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
}

/// A scope's position after a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PositionUpdate {
    /// Which scope.
    #[n(0)]
    pub scope: ScopeIndex,
    /// Its seq.
    #[n(1)]
    pub seq: u64,
}

/// A state that is consistent: everything up to one seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Checkpoint {
    /// The seq.
    #[n(0)]
    pub seq: u64,
    /// [`crate::digest::root`] over the device's scopes at that seq.
    #[n(1)]
    pub root: Sum,
}

/// One row of a page; [`super::rows`] says how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowEntry {
    /// The scope that it is in.
    pub scope: ScopeIndex,
    /// Its collection.
    pub collection: CollectionId,
    /// Its identity.
    pub row: RowId,
    /// What became of it.
    pub payload: RowPayload,
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowPayload {
    /// The row as it is: its canonical bytes.
    State(ByteVec),
    /// The row was deleted under this stamp.
    Deleted(Stamp),
    /// The row left this scope.
    Departed,
}

/// One change of a document.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ChunkEntry {
    /// The collection of the row.
    #[n(0)]
    pub collection: CollectionId,
    /// The row.
    #[n(1)]
    pub row: RowId,
    /// The document column.
    #[n(2)]
    pub column: ColumnId,
    /// The bytes of the change chunk.
    #[n(3)]
    pub change: ByteVec,
}

/// What became of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PushOutcome {
    /// Its number.
    #[n(0)]
    pub number: u64,
    /// The tenant's seq after its commit: once a checkpoint reaches it, its effects have come back.
    #[n(1)]
    pub seq: u64,
    /// Why it was refused; its other mutations were not applied either.
    #[n(2)]
    #[cbor(default, skip_if = "Option::is_none")]
    pub refused: Option<RefusedMutation>,
    /// The stamp under which it was stored, where the device's clock ran ahead.
    #[n(3)]
    #[cbor(default, skip_if = "Option::is_none")]
    pub corrected: Option<Hlc>,
}

/// The mutation for which a transaction was refused.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RefusedMutation {
    /// Its index in the transaction.
    #[n(0)]
    pub index: u32,
    /// Why, for programs.
    #[n(1)]
    pub code: ReasonCode,
    /// Why, for people.
    #[n(2)]
    pub message: String,
}

/// The buckets of one collection in one scope.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SumsEntry {
    /// The scope.
    #[n(0)]
    pub scope: Scope,
    /// The collection.
    #[n(1)]
    pub collection: CollectionId,
    /// Its 256 sums, 4,096 bytes.
    #[n(2)]
    pub buckets: ByteVec,
}

/// The rows in which a bucket of the device differs from the server's.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Repair {
    /// The server's rows that the device does not hold like this, with all changes of their documents.
    #[n(0)]
    #[cbor(with = "rows")]
    pub rows: Vec<RowEntry>,
    /// The changes of their documents.
    #[n(1)]
    pub chunks: Vec<ChunkEntry>,
    /// The short hashes of the device's rows that the server does not hold like this, 8 bytes each.
    #[n(2)]
    pub unknown: ByteVec,
}

/// Why the server closes a connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
#[cbor(map)]
pub struct Fault {
    /// Why, for programs.
    #[n(0)]
    pub code: FaultCode,
    /// Why, for people.
    #[n(1)]
    pub message: String,
    /// When it makes sense to try again, in milliseconds from now.
    #[n(2)]
    #[cbor(default, skip_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

macro_rules! fault_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// The stable code of a fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
        #[cbor(index_only)]
        pub enum FaultCode {
            $($(#[$doc])* #[n($number)] $name,)*
        }

        impl FaultCode {
            /// The word that apps and operators see.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

fault_codes! {
    /// The frame could not be read, or came where the protocol does not allow it.
    Protocol = 0, "protocol_violation";
    /// The device speaks a version of the protocol that the server does not.
    UnsupportedVersion = 1, "unsupported_version";
    /// The token is missing, damaged, expired or for somebody else.
    Unauthenticated = 2, "unauthenticated";
    /// The device, user or tenant is suspended.
    Suspended = 3, "suspended";
    /// Two replicas use one device id: a number came with other content than before.
    ReplicaForked = 4, "replica_forked";
    /// The server has more work than it takes; try again later.
    Overloaded = 5, "overloaded";
    /// The server is shutting down.
    ShuttingDown = 6, "shutting_down";
    /// The server failed; its log says why.
    Internal = 7, "internal";
    /// Too long without a frame.
    Silent = 8, "silent";
    /// The app's schema is newer than the tenant's.
    SchemaTooNew = 9, "schema_too_new";
    /// Another connection of the same device took over.
    Superseded = 10, "superseded";
    /// The tenant was restored or moved under the connection; connect again, at once.
    BegunAnew = 11, "begun_anew";
    /// The tenant is being moved and takes no writes until that is done; try again later.
    Moving = 12, "moving";
    /// Tombstones that the device had not come to yet were purged: it is filled anew when it connects again.
    BelowHorizon = 13, "below_horizon";
}

impl ServerFrame {
    /// The name of the frame, for logs and metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "welcome",
            Self::Page(_) => "page",
            Self::Outcomes(_) => "outcomes",
            Self::Sums(_) => "sums",
            Self::Repair(_) => "repair",
            Self::Scopes(_) => "scopes",
            Self::Fault(_) => "fault",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
        }
    }
}

impl Frame for ServerFrame {
    fn check(&self) -> Result<(), FrameError> {
        match self {
            Self::Welcome(welcome) => {
                within("grants", welcome.grants.as_ref().map_or(0, Vec::len), MAX_SCOPES_PER_DEVICE)
            }
            Self::Page(page) => within("rows", page.rows.len(), MAX_ROWS_PER_PAGE),
            Self::Outcomes(outcomes) => {
                within("outcomes", outcomes.len(), MAX_TRANSACTIONS_IN_FLIGHT)
            }
            Self::Scopes(grants) => within("grants", grants.len(), MAX_SCOPES_PER_DEVICE),
            Self::Sums(_) | Self::Repair(_) | Self::Fault(_) | Self::Ping(_) | Self::Pong(_) => {
                Ok(())
            }
        }
    }
}

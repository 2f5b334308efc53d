//! The digests by which a server's copy is compared with others and with itself.

use farshore_sync_core::ids::{CollectionId, Scope};
use serde::{Deserialize, Serialize};

/// Most scopes of one [`Digest`].
pub const MAX_SCOPES_PER_DIGEST: usize = 1_000;

/// `POST /v1/admin/tenants/{tenant}/digest`: which scopes to sum up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DigestRequest {
    /// The scopes; at most [`MAX_SCOPES_PER_DIGEST`].
    pub scopes: Vec<Scope>,
}

/// Where a tenant stands, and the sums of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// The newest seq when the sums were read.
    pub seq: u64,
    /// Cursors below this seq get a snapshot.
    pub horizon: u64,
    /// Changes when the server was restored from a backup.
    pub epoch: u64,
    /// One sum for each collection that has rows in one of the scopes.
    pub sums: Vec<CollectionSum>,
}

/// The sum over the live rows of one collection in one scope.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CollectionSum {
    /// The scope.
    pub scope: Scope,
    /// The collection.
    pub collection: CollectionId,
    /// The sum, 32 hexadecimal digits.
    pub sum: String,
}

/// The answer to `POST /v1/admin/tenants/{tenant}/scrub`: every stored sum was recomputed from the rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrubbed {
    /// Where a stored sum differs from its rows: something was changed behind the server's back.
    pub altered: Vec<AlteredBucket>,
}

/// A bucket whose rows do not add up to its stored sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlteredBucket {
    /// The scope.
    pub scope: Scope,
    /// The collection.
    pub collection: CollectionId,
    /// The bucket: the last byte of its rows' ids.
    pub bucket: u8,
}

//! What the driver shows of the replica.

use farshore_sync_core::replica;

use super::owner::OwnerError;
use crate::latest::Latest;

/// Where the driver shows where the replica stands. It is also touched when something changes that only the store
/// knows about.
pub(crate) type Board = Latest<Shown>;

/// What the driver last showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The machine's status; its times are those of the steady clock.
    pub(crate) replica: replica::Status,
    /// [`replica::Status::retry_at_ms`] by the wall clock.
    pub(crate) retry_at_ms: Option<u64>,
    /// For whom the last token was, if for somebody else.
    pub(crate) mismatch: Option<OwnerError>,
}

//! Backups: a tenant as one file, and back.

use serde::{Deserialize, Serialize};

/// The media type of an archive.
pub const ARCHIVE_CONTENT_TYPE: &str = "application/vnd.farshore.tenant";

/// The query of `PUT /v1/admin/tenants/{tenant}/archive`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestoreQuery {
    /// Put the archive in the place of the tenant that is there.
    pub replace: bool,
    /// Read it and count everything anew, and change nothing.
    pub check: bool,
}

/// The answer to `PUT /v1/admin/tenants/{tenant}/archive`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Living rows.
    pub rows: u64,
    /// All records of the archive.
    pub records: u64,
    /// The SHA-256 of the records, in hexadecimal digits.
    pub digest: String,
    /// The epoch in which the tenant goes on; none where the archive was only checked.
    pub epoch: Option<u64>,
}

/// The answer to `POST /v1/admin/tenants/{tenant}/epoch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEpoch {
    /// The epoch that began.
    pub epoch: u64,
}

//! Values, rows and reports as JSON, and back.
//!
//! | type | in | out |
//! |---|---|---|
//! | bool, int, real, text | the JSON of that kind | the same |
//! | timestamp | microseconds since 1970, or RFC 3339 text | microseconds |
//! | uuid, row ids | text | text |
//! | bytes | `{"$bytes": base64}` | the same |
//! | json | any JSON; `null` is NULL | the same |
//! | set | elements one by one | array |
//! | counter | by `inc` | integer |
//! | document | by `text` | the document's JSON |
//!
//! A real that JSON has no word for (NaN, infinities) is `{"$real": "NaN"}` in both directions.

mod input;
mod render;
mod report;

pub(crate) use input::{RowInput, collection, element, parameters, row_id, row_input};
pub(crate) use render::{UuidColumns, row, rows};
pub(crate) use report::{digests, outbox, quarantine, status, sync_report};

//! The schema of the workloads: every kind of column, and a scope by row.

use std::sync::Arc;

use farshore_sync_core::ids::{CollectionId, ColumnId, DeviceId, RowId, Scope};
use farshore_sync_core::schema::Schema;
use farshore_sync_core::wire::{Grant, Rights, sorted_grants};

/// A moment in 2027 at which every workload begins, in milliseconds since 1970.
pub const NOW_MS: u64 = 1_800_000_000_000;

/// Notes of the whole tenant.
pub const NOTES: CollectionId = CollectionId(1);
/// Visits of a site.
pub const VISITS: CollectionId = CollectionId(2);
/// The title of a note.
pub const TITLE: ColumnId = ColumnId(1);
/// The likes of a note, a counter.
pub const LIKES: ColumnId = ColumnId(2);
/// The tags of a note, a set.
pub const TAGS: ColumnId = ColumnId(3);
/// The site of a visit.
pub const SITE: ColumnId = ColumnId(1);

/// The sites; at the last one devices may only read.
pub const SITES: [&str; 3] = ["a", "b", "c"];

const COLLECTIONS: &str = r#""collections":[
    {"name":"notes","scope":"tenant","columns":[
        {"name":"title","type":"text"},
        {"name":"likes","type":"counter"},
        {"name":"tags","type":"set"},
        {"name":"body","type":"document","root":{"text":"text"}}]},
    {"name":"visits","scope":"site/{site}","columns":[
        {"name":"site","type":"text"},
        {"name":"purpose","type":"text"}]}]"#;

/// The schema, in a version; versions differ in nothing else.
#[must_use]
pub fn schema(version: u32) -> Arc<Schema> {
    let json = format!(r#"{{"name":"storage","version":{version},{COLLECTIONS}}}"#);
    Arc::new(Schema::parse(&json).expect("the schema is a constant"))
}

/// A site's scope.
#[must_use]
pub fn site(name: &str) -> Scope {
    format!("site/{name}").parse().expect("names of sites are plain")
}

/// What devices may do.
#[must_use]
pub fn grants() -> Vec<Grant> {
    let tenant = Grant { scope: "tenant".parse().expect("a constant"), rights: Rights::Write };
    let sites = SITES.iter().map(|name| {
        let rights = if *name == "c" { Rights::Read } else { Rights::Write };
        Grant { scope: site(name), rights }
    });
    sorted_grants(std::iter::once(tenant).chain(sites))
}

/// A row by number; numbers fall into different buckets.
#[must_use]
pub fn row(maker: u8, number: u64) -> RowId {
    let mut bytes = [maker; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes[0] = number.to_le_bytes()[0];
    RowId::from_bytes(bytes)
}

/// A device by number.
#[must_use]
pub fn device(number: u8) -> DeviceId {
    DeviceId::from_bytes([number; 16])
}

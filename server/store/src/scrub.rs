//! Recomputing the sums of a tenant from its rows.

use std::collections::BTreeMap;

use farshore_sync_core::digest::{Buckets, DigestKey, bucket_of, row_sum};
use farshore_sync_core::ids::{CollectionId, Scope};

use crate::sync::RowKey;

/// The sums of every collection in every scope.
pub type AllBuckets = BTreeMap<(Scope, CollectionId), Buckets>;

/// Sums that are counted anew, row by row.
#[derive(Debug)]
pub struct Recount {
    key: DigestKey,
    sums: AllBuckets,
}

impl Recount {
    /// Nothing counted yet.
    #[must_use]
    pub const fn new(key: DigestKey) -> Self {
        Self { key, sums: BTreeMap::new() }
    }

    /// Counts one live row with its stored bytes.
    pub fn count(&mut self, scope: Scope, row: RowKey, state: &[u8]) {
        let sum = row_sum(&self.key, row.0, row.1, state);
        self.sums.entry((scope, row.0)).or_default().bucket_mut(bucket_of(row.1)).add(sum);
    }

    /// The buckets whose stored sums differ from the counted ones.
    #[must_use]
    pub fn differing(&self, stored: &AllBuckets) -> Vec<(Scope, CollectionId, u8)> {
        let none = Buckets::default();
        let mut places: Vec<_> = stored.keys().chain(self.sums.keys()).collect();
        places.sort();
        places.dedup();
        let differing = places.into_iter().flat_map(|place| {
            let counted = self.sums.get(place).unwrap_or(&none);
            let stored = stored.get(place).unwrap_or(&none);
            counted
                .differing(stored)
                .map(|bucket| (place.0.clone(), place.1, bucket))
                .collect::<Vec<_>>()
        });
        differing.collect()
    }
}

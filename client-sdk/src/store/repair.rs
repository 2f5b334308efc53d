//! Mending a copy whose digest is not the server's: from sums to buckets to rows.

use std::collections::{BTreeMap, HashSet};

use farshore_sync_core::digest::{Buckets, Sum, bucket_of};
use farshore_sync_core::ids::{CollectionId, Scope};
use farshore_sync_core::wire::limits::{MAX_BUCKETS_PER_REPAIR, MAX_HASHES_PER_REPAIR};
use farshore_sync_core::wire::{BucketListing, Repair, SumsEntry};

use super::error::Failure;
use super::numbers::ScopeNumber;
use super::rebase::Landed;
use super::rows::RowKey;
use super::transaction::Tx;

/// Bytes of one short hash.
const SHORT_BYTES: usize = 8;

impl Tx<'_> {
    /// The totals of everything held.
    pub(super) fn totals(&self) -> Vec<(Scope, CollectionId, Sum)> {
        let totals = self.known.totals.in_granted(&self.known.scopes);
        totals.map(|(scope, collection, total)| (scope.clone(), collection, total)).collect()
    }

    /// What is held in the buckets that differ from the server's, as far as one request may go: a difference that
    /// remains shows at the next checkpoint.
    pub(super) fn differing_buckets(
        &self,
        sums: &[SumsEntry],
    ) -> Result<Vec<BucketListing>, Failure> {
        let mut room_buckets = MAX_BUCKETS_PER_REPAIR;
        let mut room_hashes = MAX_HASHES_PER_REPAIR;
        let mut listings = Vec::new();
        for entry in sums {
            let theirs = Buckets::from_bytes(&entry.buckets)
                .ok_or_else(|| Failure::protocol("sums that are not 256"))?;
            let granted = self
                .known
                .scopes
                .granted()
                .iter()
                .find(|granted| granted.grant.scope == entry.scope);
            let Some(granted) = granted else { continue };
            let ours = self.buckets(granted.number, entry.collection)?;
            let mut differing: BTreeMap<u8, Vec<u8>> = ours
                .differing(&theirs)
                .take(room_buckets)
                .map(|bucket| (bucket, Vec::new()))
                .collect();
            if differing.is_empty() {
                continue;
            }
            room_buckets -= differing.len();
            self.fill_hashes(granted.number, entry.collection, &mut differing)?;
            for (bucket, hashes) in differing {
                let count = hashes.len() / SHORT_BYTES;
                if count <= room_hashes {
                    room_hashes -= count;
                    listings.push(BucketListing {
                        scope: entry.scope.clone(),
                        collection: entry.collection,
                        bucket,
                        hashes: hashes.into(),
                    });
                }
            }
        }
        Ok(listings)
    }

    fn fill_hashes(
        &self,
        scope: ScopeNumber,
        collection: CollectionId,
        buckets: &mut BTreeMap<u8, Vec<u8>>,
    ) -> Result<(), Failure> {
        self.each_counted(Some(collection), |key, held_in, sum| {
            if held_in == scope
                && let Some(hashes) = buckets.get_mut(&bucket_of(key.1))
            {
                hashes.extend_from_slice(&sum.short().to_le_bytes());
            }
        })
    }

    /// Takes over the server's rows, and removes those that it does not have; returns how many rows that changed.
    pub(super) fn repair(&mut self, repair: &Repair) -> Result<usize, Failure> {
        if !repair.unknown.len().is_multiple_of(SHORT_BYTES) {
            return Err(Failure::protocol("a short hash has 8 bytes"));
        }
        let chunks = repair.unknown.chunks_exact(SHORT_BYTES);
        let unknown: HashSet<&[u8]> = chunks.collect();
        let came: HashSet<RowKey> =
            repair.rows.iter().map(|entry| (entry.collection, entry.row)).collect();
        let mut gone = Vec::new();
        self.each_counted(None, |key, _, sum| {
            if unknown.contains(&sum.short().to_le_bytes()[..]) && !came.contains(&key) {
                gone.push(key);
            }
        })?;
        let mut landed = Landed::default();
        for key in &gone {
            let head = self.head(*key)?;
            self.set_base(*key, head, None, &mut landed)?;
        }
        self.apply_page(&repair.rows, &repair.chunks, &mut landed)?;
        Ok(gone.len() + came.len())
    }
}

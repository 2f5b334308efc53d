//! The keyed set hash by which a server and a device see whether they hold the same rows.
//!
//! For each (scope, collection) both keep 256 sums, one for each last byte of a row id. A sum is the wrapping
//! addition of a keyed hash over each live row's identity and canonical bytes, so that a write updates it in
//! O(1) and any order gives the same sum. The key is the tenant's own, so that nobody outside can aim for
//! equal sums. A deleted row does not count: purging its tombstone changes nothing.

use std::collections::BTreeMap;

use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::ids::{CollectionId, RowId, Scope};

/// Buckets of a collection in a scope.
pub const BUCKETS: usize = 256;
/// Bytes of a sum.
pub const SUM_BYTES: usize = 16;

/// The tenant's key for its digests. Every device of the tenant holds it; it protects no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct DigestKey(pub [u8; 32]);

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestKey(..)")
    }
}

/// The hash of one row, or the sum of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sum(pub u128);

impl Sum {
    /// Counts a row in.
    pub fn add(&mut self, row: Self) {
        self.0 = self.0.wrapping_add(row.0);
    }

    /// Takes a row out.
    pub fn remove(&mut self, row: Self) {
        self.0 = self.0.wrapping_sub(row.0);
    }

    /// Its first 8 bytes: enough to tell rows of one bucket apart.
    #[must_use]
    pub const fn short(self) -> u64 {
        self.0 as u64
    }
}

impl<C> Encode<C> for Sum {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0.to_le_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Sum {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes = <[u8; SUM_BYTES]>::try_from(d.bytes()?);
        bytes
            .map(|bytes| Self(u128::from_le_bytes(bytes)))
            .map_err(|_| minicbor::decode::Error::message("a sum has 16 bytes"))
    }
}

/// The hash of one live row over its identity and canonical bytes.
#[must_use]
pub fn row_sum(key: &DigestKey, collection: CollectionId, row: RowId, canonical: &[u8]) -> Sum {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    hasher.update(&collection.0.to_be_bytes());
    hasher.update(row.as_bytes());
    hasher.update(canonical);
    let mut head = [0; SUM_BYTES];
    head.copy_from_slice(&hasher.finalize().as_bytes()[..SUM_BYTES]);
    Sum(u128::from_le_bytes(head))
}

/// The bucket of a row.
#[must_use]
pub const fn bucket_of(row: RowId) -> u8 {
    row.as_bytes()[15]
}

/// The 256 sums of one collection in one scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets(Box<[Sum; BUCKETS]>);

impl Default for Buckets {
    fn default() -> Self {
        Self(Box::new([Sum::default(); BUCKETS]))
    }
}

impl Buckets {
    /// The sum of one bucket.
    #[must_use]
    pub fn bucket(&self, bucket: u8) -> Sum {
        self.0[usize::from(bucket)]
    }

    /// The sum of one bucket, to change.
    pub fn bucket_mut(&mut self, bucket: u8) -> &mut Sum {
        &mut self.0[usize::from(bucket)]
    }

    /// The sum over all buckets.
    #[must_use]
    pub fn total(&self) -> Sum {
        Sum(self.0.iter().fold(0, |total, sum| total.wrapping_add(sum.0)))
    }

    /// The buckets in which two copies differ.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u8> + 'a {
        (0..=u8::MAX).filter(|bucket| self.bucket(*bucket) != other.bucket(*bucket))
    }

    /// Their 4,096 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|sum| sum.0.to_le_bytes()).collect()
    }

    /// Reads 4,096 bytes; `None` for any other length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != BUCKETS * SUM_BYTES {
            return None;
        }
        let mut buckets = Self::default();
        for (sum, chunk) in buckets.0.iter_mut().zip(bytes.chunks_exact(SUM_BYTES)) {
            *sum = Sum(u128::from_le_bytes(chunk.try_into().ok()?));
        }
        Some(buckets)
    }
}

/// The totals of each collection in each scope that a device may read.
pub type Totals = BTreeMap<(Scope, CollectionId), Sum>;

/// One hash over all totals that are not zero: what a checkpoint carries.
#[must_use]
pub fn root<'a>(totals: impl Iterator<Item = (&'a Scope, CollectionId, Sum)>) -> Sum {
    let mut hasher = blake3::Hasher::new();
    for (scope, collection, total) in totals.filter(|(_, _, total)| total.0 != 0) {
        hasher.update(&(scope.as_str().len() as u64).to_le_bytes());
        hasher.update(scope.as_str().as_bytes());
        hasher.update(&collection.0.to_le_bytes());
        hasher.update(&total.0.to_le_bytes());
    }
    let mut head = [0; SUM_BYTES];
    head.copy_from_slice(&hasher.finalize().as_bytes()[..SUM_BYTES]);
    Sum(u128::from_le_bytes(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let key = DigestKey([7; 32]);
        let rows: Vec<Sum> = (0..9)
            .map(|n| row_sum(&key, CollectionId(1), RowId::from_bytes([n; 16]), &[n]))
            .collect();
        let mut forward = Sum::default();
        rows.iter().for_each(|row| forward.add(*row));
        let mut backward = Sum::default();
        rows.iter().rev().for_each(|row| backward.add(*row));
        assert_eq!(forward, backward);
        rows.iter().for_each(|row| forward.remove(*row));
        assert_eq!(forward, Sum::default());
        assert_ne!(
            rows[0],
            row_sum(&DigestKey([8; 32]), CollectionId(1), RowId::from_bytes([0; 16]), &[0])
        );
        assert_ne!(rows[0], row_sum(&key, CollectionId(2), RowId::from_bytes([0; 16]), &[0]));
    }

    #[test]
    fn buckets_survive_storage_and_name_the_difference() {
        let mut buckets = Buckets::default();
        buckets.bucket_mut(3).add(Sum(5));
        let read = Buckets::from_bytes(&buckets.to_bytes()).unwrap();
        assert_eq!(read, buckets);
        buckets.bucket_mut(250).add(Sum(1));
        assert_eq!(read.differing(&buckets).collect::<Vec<_>>(), [250]);
        assert!(Buckets::from_bytes(&[0; 4095]).is_none());
    }

    /// Devices and servers of all versions have to agree on these.
    #[test]
    fn sums_buckets_and_roots_are_pinned() {
        let key = DigestKey(std::array::from_fn(|at| at as u8));
        let row = RowId::from_bytes(std::array::from_fn(|at| at as u8));
        let sum = row_sum(&key, CollectionId(0x102), row, b"row");
        assert_eq!(sum, Sum(PINNED_SUM));
        assert_eq!(bucket_of(row), 15, "its last byte");
        assert_eq!(Sum(0x11_0123_4567_89ab_cdef).short(), 0x0123_4567_89ab_cdef);
        let (site, tenant): (Scope, Scope) = ("site/a".parse().unwrap(), "tenant".parse().unwrap());
        let totals = [(&site, CollectionId(1), Sum(5)), (&tenant, CollectionId(2), sum)];
        assert_eq!(root(totals.into_iter()), Sum(PINNED_ROOT));
        let empty = [
            (&site, CollectionId(1), Sum(0)),
            totals[0],
            (&site, CollectionId(3), Sum(0)),
            totals[1],
        ];
        assert_eq!(root(empty.into_iter()), Sum(PINNED_ROOT), "what holds nothing does not count");
        let other = [(&tenant, CollectionId(1), Sum(5)), totals[1]];
        assert_ne!(root(other.into_iter()), Sum(PINNED_ROOT));
    }

    #[test]
    fn a_total_is_the_sum_of_all_buckets() {
        let mut buckets = Buckets::default();
        assert_eq!(buckets.total(), Sum(0));
        buckets.bucket_mut(3).add(Sum(7));
        buckets.bucket_mut(250).remove(Sum(2));
        assert_eq!(buckets.total(), Sum(5));
        assert_eq!((buckets.bucket(3), buckets.bucket(4)), (Sum(7), Sum(0)));
        assert_eq!(Buckets::default().differing(&buckets).collect::<Vec<_>>(), [3, 250]);
    }

    #[test]
    fn a_sum_travels_as_16_bytes_and_a_key_is_never_shown() {
        let bytes = minicbor::to_vec(Sum(1)).unwrap();
        assert_eq!(bytes, [&[0x50, 1][..], &[0; 15]].concat());
        assert_eq!(minicbor::decode::<Sum>(&bytes).unwrap(), Sum(1));
        assert!(minicbor::decode::<Sum>(&[0x4f; 16]).is_err(), "15 bytes");
        assert_eq!(format!("{:?}", DigestKey([7; 32])), "DigestKey(..)");
    }

    const PINNED_SUM: u128 = 262_388_165_817_598_263_540_808_068_790_134_165_772;
    const PINNED_ROOT: u128 = 177_554_677_423_440_836_790_408_215_063_702_434_605;
}

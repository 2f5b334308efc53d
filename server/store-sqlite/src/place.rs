//! Where a change lies: the number of its scope and its seq in one integer, by which the table is sorted.

use std::ops::RangeInclusive;

use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlResult, ToSqlOutput, ValueRef};

use crate::failure::Failure;

/// Bits of a place that hold the seq.
pub(crate) const SEQ_BITS: u32 = 40;
/// Largest seq of a tenant: at 1,000 rows a second it lasts for 34 years.
pub(crate) const MAX_SEQ: u64 = (1 << SEQ_BITS) - 1;
/// Most scopes of a tenant.
pub(crate) const MAX_SCOPES: i64 = (1 << (63 - SEQ_BITS)) - 1;

/// The place of a change among all changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(i64);

impl Place {
    /// The place of a seq in a scope.
    pub fn new(scope: i64, seq: u64) -> Result<Self, Failure> {
        if !(0..=MAX_SCOPES).contains(&scope) {
            return Err(Failure::Exhausted("scopes"));
        }
        if seq > MAX_SEQ {
            return Err(Failure::Exhausted("numbers for its rows"));
        }
        Ok(Self((scope << SEQ_BITS) | seq.cast_signed()))
    }

    /// Everything in a scope after a seq.
    pub fn after(scope: i64, seq: u64) -> Result<RangeInclusive<Self>, Failure> {
        let last = Self::new(scope, MAX_SEQ)?;
        let first = match seq.checked_add(1).filter(|first| *first <= MAX_SEQ) {
            Some(first) => Self::new(scope, first)?,
            None => last,
        };
        Ok(first..=last)
    }

    /// The number of the scope.
    pub const fn scope(self) -> i64 {
        self.0 >> SEQ_BITS
    }

    /// The seq.
    pub const fn seq(self) -> u64 {
        self.0.cast_unsigned() & MAX_SEQ
    }
}

impl ToSql for Place {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.into())
    }
}

impl FromSql for Place {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        i64::column_result(value).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_sort_by_scope_and_then_by_seq() {
        let place = |scope, seq| Place::new(scope, seq).unwrap();
        let sorted =
            [place(0, 1), place(1, 0), place(1, MAX_SEQ), place(2, 7), place(MAX_SCOPES, MAX_SEQ)];
        assert!(sorted.is_sorted());
        for place in sorted {
            assert_eq!(Place::new(place.scope(), place.seq()).unwrap(), place);
        }
        assert!(Place::new(1, MAX_SEQ + 1).is_err());
        assert!(Place::new(MAX_SCOPES + 1, 1).is_err());
    }

    #[test]
    fn what_follows_stays_within_the_scope() {
        let after = Place::after(3, 5).unwrap();
        assert_eq!((after.start().seq(), after.end().seq()), (6, MAX_SEQ));
        assert_eq!((after.start().scope(), after.end().scope()), (3, 3));
        for beyond in [MAX_SEQ, u64::MAX] {
            assert_eq!(Place::after(3, beyond).unwrap().start().scope(), 3);
        }
    }
}

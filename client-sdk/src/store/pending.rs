//! The pending list of a row: which local transactions are laid over the server's state, and that state.

use std::collections::BTreeSet;

use super::codec::{Reader, put_varint};
use super::error::Failure;

/// What is laid over the server's state of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    /// The transactions that touch the row and are not part of the server's state yet.
    pub numbers: Numbers,
    /// The canonical bytes of the server's state; `None` where the server has no such row.
    pub base: Option<Vec<u8>>,
}

/// Transaction numbers, rising, as runs of neighbours: an author who types offline makes thousands of transactions
/// on one row, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Numbers {
    /// First and last number of each run. Runs do not touch.
    runs: Vec<(u64, u64)>,
}

impl Pending {
    /// The numbers, then the base to the end.
    pub(super) fn encode(&self) -> Vec<u8> {
        let base = self.base.as_deref().unwrap_or_default();
        let mut bytes = Vec::with_capacity(8 + base.len());
        put_varint(&mut bytes, self.numbers.runs.len() as u64);
        let mut before = 0;
        for (first, last) in &self.numbers.runs {
            put_varint(&mut bytes, first - before);
            put_varint(&mut bytes, last - first);
            before = *last;
        }
        bytes.extend_from_slice(base);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Failure> {
        let mut reader = Reader::new(bytes);
        let mut numbers = Numbers::default();
        let mut before = 0u64;
        for _ in 0..reader.varint()? {
            let first = before.saturating_add(reader.varint()?);
            let last = first.saturating_add(reader.varint()?);
            numbers.runs.push((first, last));
            before = last;
        }
        let base = reader.rest();
        Ok(Self { numbers, base: (!base.is_empty()).then(|| base.to_vec()) })
    }
}

impl Numbers {
    /// One number.
    pub(super) fn one(number: u64) -> Self {
        Self { runs: vec![(number, number)] }
    }

    /// One more number, which is not before the last: the transaction that is being written may touch a row often.
    pub(super) fn add(&mut self, number: u64) {
        match self.runs.last_mut() {
            Some((_, last)) if *last == number => {}
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => self.runs.push((number, number)),
        }
    }

    /// One more number, wherever it belongs.
    pub(super) fn insert(&mut self, number: u64) {
        let mut numbers: BTreeSet<u64> = self.iter().collect();
        numbers.insert(number);
        self.runs.clear();
        numbers.into_iter().for_each(|number| self.add(number));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.runs.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.runs.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// The numbers of which `stays` says so.
    pub(super) fn filtered(&self, stays: impl Fn(u64) -> bool) -> Self {
        let mut numbers = Self::default();
        self.iter().filter(|number| stays(*number)).for_each(|number| numbers.add(number));
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(list: &[u64]) -> Numbers {
        let mut numbers = Numbers::default();
        list.iter().for_each(|number| numbers.add(*number));
        numbers
    }

    #[test]
    fn pending_lists_survive_storage() {
        for pending in [
            Pending { numbers: Numbers::one(1), base: None },
            Pending { numbers: numbers(&[7, 8, 9, 70_000]), base: Some(vec![1, 2, 3]) },
        ] {
            assert_eq!(Pending::decode(&pending.encode()).unwrap(), pending);
        }
        assert_eq!(Pending { numbers: Numbers::one(1000), base: None }.encode().len(), 4);
        assert!(Pending::decode(&[5, 1]).is_err());
    }

    #[test]
    fn neighbours_are_one_run() {
        let typed = numbers(&(5..10_000).collect::<Vec<_>>());
        assert_eq!(typed.runs, [(5, 9_999)]);
        let fewer = typed.filtered(|number| number % 1_000 != 0);
        assert_eq!(fewer.runs.len(), 10);
        assert!(fewer.contains(999) && !fewer.contains(1_000) && !fewer.contains(4));
        assert!(typed.filtered(|_| false).is_empty());
        assert_eq!(numbers(&[3, 3, 4, 9]).iter().collect::<Vec<_>>(), [3, 4, 9]);
        let mut late = numbers(&[3, 9]);
        late.insert(5);
        late.insert(4);
        assert_eq!(late.runs, [(3, 5), (9, 9)]);
    }
}

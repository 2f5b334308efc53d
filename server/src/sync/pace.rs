//! The pace of a tenant: how much it may push, so that one that pushes without end leaves the processors to the others.
//!
//! A tenant pays for each commit in time, after it: the next one begins when all before are paid for (the generic cell
//! rate algorithm, ITU-T I.371). A long push is divided, so that no commit of it is long. Whoever pushes less than it
//! may saves up for [`MOST_SAVED`]; a lane that has just begun has saved nothing, so that nobody gains by connecting
//! anew.

use std::time::Duration;

use farshore_store::pushed::PushedTransaction;
use tokio::time::Instant;

/// What a tenant that pushes little saves up at most, in time.
const MOST_SAVED: Duration = Duration::from_secs(1);
/// A tenant that is held back commits about so often: what a whole second allows would be one long commit.
const COMMITS_PER_SECOND: usize = 40;
/// Parts into which a push is divided that is longer than a commit of its tenant, at most.
pub const MAX_PARTS_OF_PUSH: usize = 64;
/// How often the log names a tenant that is held back.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

/// The most bytes for one commit of a tenant that may push so many a second, where the configuration allows
/// `max_bytes`.
#[must_use]
pub fn most_bytes(bytes_per_second: usize, max_bytes: usize) -> usize {
    match bytes_per_second {
        0 => max_bytes,
        rate => max_bytes.min(rate.div_ceil(COMMITS_PER_SECOND)),
    }
}

/// Divides the transactions of a push into parts of about so many bytes, or larger ones where there would be more than
/// [`MAX_PARTS_OF_PUSH`].
pub fn in_parts(transactions: Vec<PushedTransaction>, bytes: usize) -> Vec<Vec<PushedTransaction>> {
    let all: usize = transactions.iter().map(PushedTransaction::encoded_bytes).sum();
    let enough = bytes.max(all.div_ceil(MAX_PARTS_OF_PUSH));
    let (mut parts, mut part, mut part_bytes) = (Vec::new(), Vec::new(), 0);
    for transaction in transactions {
        if part_bytes >= enough {
            parts.push(std::mem::take(&mut part));
            part_bytes = 0;
        }
        part_bytes += transaction.encoded_bytes();
        part.push(transaction);
    }
    parts.push(part);
    parts
}

/// How fast a tenant may push, and where it stands.
#[derive(Debug)]
pub struct Pace {
    /// 0: as fast as it likes.
    bytes_per_second: usize,
    /// When everything is paid for that was committed.
    paid: Instant,
    named: Option<Instant>,
}

impl Pace {
    /// So many bytes of transactions a second, or as many as it likes where that is 0.
    #[must_use]
    pub fn new(bytes_per_second: usize) -> Self {
        Self { bytes_per_second, paid: Instant::now(), named: None }
    }

    /// Takes note of a commit of so many bytes; how long it is until that is paid for.
    pub fn charge(&mut self, bytes: usize) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let saved = now.checked_sub(MOST_SAVED).unwrap_or(now);
        let price = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        self.paid = self.paid.max(saved) + price;
        self.paid.saturating_duration_since(now)
    }

    /// Whether the log is to name the tenant, which is held back; not again within [`BETWEEN_WARNINGS`].
    pub fn is_to_be_named(&mut self) -> bool {
        let is_due = self.named.is_none_or(|named| named.elapsed() >= BETWEEN_WARNINGS);
        if is_due {
            self.named = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use farshore_sync_core::hlc::Hlc;
    use farshore_sync_core::mutation::Transaction;
    use tokio::time::advance;

    use super::*;

    const RATE: usize = 100_000;

    /// Commits of so many bytes for a minute, as fast as they are allowed; how much that is.
    async fn pushed_in_a_minute(pace: &mut Pace, bytes: usize) -> usize {
        let begun = Instant::now();
        let mut pushed = 0;
        while begun.elapsed() < Duration::from_secs(60) {
            pushed += bytes;
            advance(pace.charge(bytes)).await;
        }
        pushed
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_pushes_what_it_may_and_no_more() {
        for bytes in [1_000, 10_000, 1_000_000] {
            let pushed = pushed_in_a_minute(&mut Pace::new(RATE), bytes).await;
            assert!((60 * RATE..=60 * RATE + bytes).contains(&pushed), "{pushed} by {bytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_pushed_little_has_saved_a_second_and_no_more() {
        let mut pace = Pace::new(RATE);
        advance(Duration::from_secs(3_600)).await;
        assert_eq!(pace.charge(RATE), Duration::ZERO);
        assert_eq!(pace.charge(RATE), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_has_just_begun_has_saved_nothing() {
        assert_eq!(Pace::new(RATE).charge(RATE / 2), Duration::from_millis(500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_without_a_limit_never_waits() {
        assert_eq!(Pace::new(0).charge(usize::MAX), Duration::ZERO);
    }

    #[test]
    fn a_tenant_that_may_push_little_has_small_commits() {
        let most = [(0, 50_000), (RATE, 50_000), (RATE, 1_000)];
        let most = most.map(|(rate, max_bytes)| most_bytes(rate, max_bytes));
        assert_eq!(most, [50_000, RATE / COMMITS_PER_SECOND, 1_000]);
    }

    #[test]
    fn a_push_is_divided_where_it_is_longer_than_a_commit() {
        let transaction = |number: u64| {
            let transaction = Transaction { number, stamp: Hlc(number), mutations: vec![] };
            PushedTransaction::read(&transaction.encode()).unwrap()
        };
        let one = transaction(1).encoded_bytes();
        let lengths = |transactions: u64, bytes: usize| -> Vec<usize> {
            let parts = in_parts((1..=transactions).map(transaction).collect(), bytes);
            let numbers = parts.iter().flatten().map(PushedTransaction::number);
            assert!(numbers.eq(1..=transactions), "each once, in order");
            parts.iter().map(Vec::len).collect()
        };
        assert_eq!(lengths(0, one), [0], "a push may have nothing but what is settled");
        assert_eq!(lengths(5, 2 * one), [2, 2, 1]);
        assert_eq!(lengths(5, 100 * one), [5]);
        let parts = lengths(100, 1).len();
        assert!((MAX_PARTS_OF_PUSH / 2..=MAX_PARTS_OF_PUSH).contains(&parts), "{parts}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_is_held_back_is_named_once_a_minute() {
        let mut pace = Pace::new(RATE);
        assert!(pace.is_to_be_named() && !pace.is_to_be_named());
        advance(BETWEEN_WARNINGS).await;
        assert!(pace.is_to_be_named());
    }
}

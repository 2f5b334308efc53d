//! What is asked of tenants by chance, and what was seen.

use std::ops::AddAssign;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::TENANTS;

/// Most queries of one transaction.
const MOST_AT_ONCE: u64 = 24;
/// One transaction of so many has something go wrong in its middle.
const TROUBLE_EVERY: u64 = 4;
/// How long an impatient client waits, at most: sometimes long enough for a transaction and sometimes not.
const MOST_PATIENCE_US: u64 = 8_000;
/// What every canary begins with; two digits follow.
const MARKER: &str = "canary-";

/// What is asked of a tenant, and how many rows must come.
const QUERIES: [(&str, u64); 6] = [
    ("SELECT name FROM main.devices", 1),
    ("SELECT encode(state, 'escape') FROM main.changes ORDER BY seq LIMIT 5", 5),
    ("SELECT encode(state, 'escape') || scope FROM main.changes WHERE seq = 3", 1),
    ("SELECT encode(device, 'escape') FROM main.marks LIMIT 1", 1),
    ("SELECT title FROM rows.notes LIMIT 2", 2),
    ("SELECT title || (SELECT name FROM main.devices) FROM rows.notes LIMIT 1", 1),
];
/// What fails in the middle of a transaction; the tenant that is asked for is another one.
const FAILING: [&str; 4] = [
    "SELECT 1 / 0",
    "SELECT name FROM other.devices",
    "SELECT name FROM devices",
    "SET LOCAL ROLE nobody_is_called_so",
];

/// The sign of a tenant, which is its name, too.
pub(super) fn canary(tenant: u64) -> String {
    format!("{MARKER}{tenant:02}")
}

/// What was seen.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    /// Queries whose answers were looked at.
    pub answered: u64,
    /// Transactions that ended well.
    pub transactions: u64,
    /// Transactions in which something went wrong.
    pub failed: u64,
    /// Transactions that nobody waited for to their end.
    pub dropped: u64,
    /// Rows with the canary of another tenant.
    pub foreign: u64,
    /// Answers with another number of rows than there are, or rows without any canary.
    pub wrong: u64,
}

impl AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.answered += other.answered;
        self.transactions += other.transactions;
        self.failed += other.failed;
        self.dropped += other.dropped;
        self.foreign += other.foreign;
        self.wrong += other.wrong;
    }
}

impl Seen {
    /// Looks at the answers to some queries.
    pub fn rows(&mut self, tenant: u64, expected: u64, rows: &[PgRow]) {
        let texts = rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>();
        self.texts(tenant, expected, texts.iter().map(String::as_str));
    }

    pub fn texts<'t>(
        &mut self,
        tenant: u64,
        expected: u64,
        texts: impl ExactSizeIterator<Item = &'t str>,
    ) {
        let own = canary(tenant);
        self.wrong += u64::from(texts.len() as u64 != expected);
        for text in texts {
            let canaries =
                || text.match_indices(MARKER).map(|(at, _)| text.get(at..at + own.len()));
            self.foreign += u64::from(canaries().any(|canary| canary != Some(&own)));
            self.wrong += u64::from(canaries().next().is_none());
        }
    }
}

/// Chance enough for a client (xorshift).
pub(super) struct Chance(pub u64);

impl Chance {
    const fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn query(&mut self) -> (&'static str, u64) {
        QUERIES[usize::try_from(self.below(QUERIES.len() as u64)).unwrap()]
    }
}

/// One transaction to come, made by chance: the queries of one round trip, and one more by itself.
pub(super) struct Plan {
    pub tenant: u64,
    pub script: String,
    /// The queries in the script.
    pub queries: u64,
    pub rows: u64,
    pub last: (&'static str, u64),
    pub failing: Option<&'static str>,
    pub patience: Option<Duration>,
    pub kind: u64,
    /// What tells the device of a commit from all others.
    pub nonce: u64,
}

impl Plan {
    pub fn by(chance: &mut Chance) -> Self {
        let tenant = chance.below(TENANTS);
        let queries = 1 + chance.below(MOST_AT_ONCE - 1);
        let (mut script, mut rows) = (String::new(), 0);
        for _ in 0..queries {
            let (query, expected) = chance.query();
            script.push_str(query);
            script.push(';');
            rows += expected;
        }
        let trouble = |chance: &mut Chance| chance.below(TROUBLE_EVERY) == 0;
        let failing = trouble(chance)
            .then(|| FAILING[usize::try_from(chance.below(FAILING.len() as u64)).unwrap()]);
        let patience =
            trouble(chance).then(|| Duration::from_micros(chance.below(MOST_PATIENCE_US)));
        let (last, kind, nonce) = (chance.query(), chance.below(16), chance.below(1 << 24));
        Self { nonce, tenant, script, queries, rows, last, failing, patience, kind }
    }
}

//! The tables that look the same in every back-end.

/// A table that every back-end has with the same columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainTable {
    /// Its name.
    pub name: &'static str,
    /// Its columns, each a 64-bit integer, text or bytes.
    pub columns: &'static [&'static str],
    /// How many of the first columns are its key, by which it is sorted.
    pub key_columns: usize,
}

/// The tables that are copied as they are, in the order in which they come; a record names one by its place here.
pub const PLAIN_TABLES: [PlainTable; 5] = [
    PlainTable {
        name: "schemas",
        columns: &["version", "follows", "json", "applied_at_ms"],
        key_columns: 1,
    },
    PlainTable {
        name: "signing_keys",
        columns: &[
            "generation",
            "kid",
            "algorithm",
            "sealed_private_key",
            "public_jwk",
            "created_at_ms",
            "retired_at_ms",
        ],
        key_columns: 1,
    },
    PlainTable {
        name: "devices",
        columns: &["id", "user_id", "name", "grants", "suspended", "created_at_ms"],
        key_columns: 1,
    },
    PlainTable {
        name: "marks",
        columns: &["device", "high_water", "settled", "last_stamp"],
        key_columns: 1,
    },
    PlainTable {
        name: "outcomes",
        columns: &["device", "number", "content", "answer"],
        key_columns: 2,
    },
];

impl PlainTable {
    /// Selects everything, in the canonical order.
    #[must_use]
    pub fn select(&self) -> String {
        let (columns, key) = (self.columns.join(", "), self.columns[..self.key_columns].join(", "));
        format!("SELECT {columns} FROM main.{} ORDER BY {key}", self.name)
    }

    /// Inserts a number of rows at once, whose values follow one another as `$1`, `$2` and so on.
    #[must_use]
    pub fn insert(&self, rows: usize) -> String {
        let columns = self.columns.len();
        let row = |row: usize| {
            let values: Vec<_> =
                (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
            format!("({})", values.join(", "))
        };
        let rows: Vec<_> = (0..rows).map(row).collect();
        let names = self.columns.join(", ");
        format!("INSERT INTO main.{} ({names}) VALUES {}", self.name, rows.join(", "))
    }
}

//! Statements with their values.
//!
//! None is kept prepared: a statement that outlived its transaction would be on a server connection that a pooler has
//! given to somebody else by then. That costs a second round trip and planning each time; see
//! [`crate::database::Transaction::rows`] for what that is. Keeping them costs the server memory, too: the statement that
//! writes a commit takes a quarter of a MiB on each connection for each tenant (Postgres 15).

use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, Encode, Postgres, Type};

/// A statement and the values of `$1`, `$2` and so on.
#[derive(Debug)]
pub(crate) struct Query {
    pub text: String,
    pub arguments: Result<PgArguments, BoxDynError>,
}

impl Query {
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), arguments: Ok(PgArguments::default()) }
    }

    /// The next value.
    #[must_use]
    pub fn bind<'q, T: Encode<'q, Postgres> + Type<Postgres>>(mut self, value: T) -> Self {
        self.add(value);
        self
    }

    fn add<'q, T: Encode<'q, Postgres> + Type<Postgres>>(&mut self, value: T) {
        if let Ok(arguments) = &mut self.arguments
            && let Err(error) = arguments.add(value)
        {
            self.arguments = Err(error);
        }
    }

    fn values(&self) -> usize {
        self.arguments.as_ref().map_or(0, |arguments| arguments.len())
    }
}

/// A statement that is put together from parts, each of which counts its values from `$1`: one round trip instead of
/// one for each part.
#[derive(Debug)]
pub(crate) struct Parts {
    separator: &'static str,
    query: Query,
}

impl Parts {
    /// No parts yet; this stands between them.
    pub fn new(separator: &'static str) -> Self {
        Self { separator, query: Query::new("") }
    }

    /// Adds a part, whose values follow with [`Parts::bind`].
    pub fn part(&mut self, text: &str) -> &mut Self {
        let values_before = self.query.values();
        let whole = &mut self.query.text;
        if !whole.is_empty() {
            whole.push_str(self.separator);
        }
        let mut pieces = text.split('$');
        whole.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            let digits = piece.len() - piece.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, rest) = piece.split_at(digits);
            let number: usize = number.parse().expect("every $ of a part has its number");
            whole.push_str(&format!("${}{rest}", values_before + number));
        }
        self
    }

    /// The next value of the part that was added last.
    pub fn bind<'q, T: Encode<'q, Postgres> + Type<Postgres>>(&mut self, value: T) -> &mut Self {
        self.query.add(value);
        self
    }

    pub fn into_query(self) -> Query {
        self.query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_counts_its_values_from_one() {
        let mut parts = Parts::new(" UNION ALL ");
        parts.part("SELECT $1, $2").bind(1_i64).bind(2_i64);
        parts.part("SELECT 0");
        parts.part("SELECT $2::text, $1").bind(3_i64).bind("four");
        let query = parts.into_query();
        assert_eq!(query.text, "SELECT $1, $2 UNION ALL SELECT 0 UNION ALL SELECT $4::text, $3");
        assert_eq!(query.values(), 4);
    }
}

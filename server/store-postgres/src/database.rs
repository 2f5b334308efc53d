//! Transactions that are ended or thrown away.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::timeout;

use crate::config::{PostgresConfig, PostgresLimits};
use crate::connections::{Connections, PoolFigures, Turn};
use crate::failure::Failure;
use crate::query::Query;

/// How much longer than the server's own timeout we wait for an answer, for what the network takes.
const NETWORK_GRACE: Duration = Duration::from_secs(5);

/// The way to the database.
#[derive(Debug)]
pub(crate) struct Database(Arc<Connections>);

/// How long statements may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Those that a device waits for.
    Hot,
    /// Those that read or change a whole tenant.
    Maintenance,
}

/// A transaction. Its connection is given back once it has ended: where it is dropped before, after a `ROLLBACK`, and
/// where that fails, not at all. So nobody ever gets a connection with a transaction that somebody else began.
pub(crate) struct Transaction {
    /// None once it has ended.
    turn: Option<Turn>,
    patience: Duration,
}

impl Database {
    /// Connects when it has to.
    pub fn new(config: PostgresConfig) -> Arc<Self> {
        Arc::new(Self(Connections::new(config)))
    }

    /// How its connections are used now.
    pub fn figures(&self) -> PoolFigures {
        self.0.figures()
    }

    /// Begins a transaction: `BEGIN`, the limits, and then `opening`, in one round trip. Returns what the opening
    /// selected, too.
    ///
    /// A connection that turns out dead is thrown away for the next one: nothing was asked of it yet. So is one that
    /// does not let us take on a role: a session of Postgres that collects the roles that it may take on while another
    /// one makes a role may keep a list without that, for as long as nobody makes the next one.
    pub async fn begin(
        &self,
        begin: &str,
        pace: Pace,
        opening: &str,
    ) -> Result<(Transaction, Vec<PgRow>), Failure> {
        self.begin_near(0, begin, pace, opening).await
    }

    /// The same, on the connection where this number is at home, if it is free.
    pub async fn begin_near(
        &self,
        home: u64,
        begin: &str,
        pace: Pace,
        opening: &str,
    ) -> Result<(Transaction, Vec<PgRow>), Failure> {
        let script = format!("{begin};{};{opening}", self.limits(pace));
        let mut stale_connections = 0;
        loop {
            let turn = Some(self.0.turn(home).await?);
            let mut transaction = Transaction { turn, patience: self.patience(pace) };
            match transaction.script(script.clone()).await {
                Ok(rows) => return Ok((transaction, rows)),
                Err(failure @ Failure::Sqlx(_))
                    if (failure.is_dead_connection() || failure.is_denied())
                        && stale_connections < self.limits_of().max_connections.get() =>
                {
                    stale_connections += 1;
                    transaction.close();
                    tracing::debug!(%failure, "a connection had ended, or did not know what we may");
                }
                Err(failure) => return transaction.end(Err(failure)).await,
            }
        }
    }

    fn limits(&self, pace: Pace) -> String {
        let plans = match pace {
            // Statements of the hot path look some rows up by index: their plans must not flip with the statistics of
            // a table that has just grown. Compiling one takes longer than running it.
            Pace::Hot => {
                ";SET LOCAL enable_seqscan = off;SET LOCAL enable_hashjoin = off;\
                 SET LOCAL enable_mergejoin = off;SET LOCAL jit = off"
            }
            Pace::Maintenance => "",
        };
        format!(
            "SET LOCAL search_path = pg_catalog, pg_temp;\
             SET LOCAL statement_timeout = {};\
             SET LOCAL lock_timeout = {};\
             SET LOCAL idle_in_transaction_session_timeout = {}{plans}",
            self.statement_timeout_ms(pace),
            self.limits_of().lock_timeout_ms,
            self.limits_of().statement_timeout_ms,
        )
    }

    fn limits_of(&self) -> &PostgresLimits {
        &self.0.config().limits
    }

    fn statement_timeout_ms(&self, pace: Pace) -> u32 {
        match pace {
            Pace::Hot => self.limits_of().statement_timeout_ms,
            Pace::Maintenance => self.limits_of().maintenance_timeout_ms,
        }
    }

    fn patience(&self, pace: Pace) -> Duration {
        Duration::from_millis(self.statement_timeout_ms(pace).into()) + NETWORK_GRACE
    }
}

impl Transaction {
    /// What a statement selects.
    ///
    /// It is parsed and planned anew each time, with a round trip for the parse. On Postgres 15 that is 0.7 ms of a
    /// group commit. A statement that is kept prepared would outlive the transaction, which a pooler does not allow.
    pub async fn rows(&mut self, query: Query) -> Result<Vec<PgRow>, Failure> {
        let Query { text, arguments } = query;
        let arguments = arguments.map_err(Failure::Encode)?;
        let statement = sqlx::query_with(AssertSqlSafe(text), arguments).persistent(false);
        within(self.patience, statement.fetch_all(self.connection())).await
    }

    /// Runs a statement; how many rows it changed.
    pub async fn execute(&mut self, query: Query) -> Result<u64, Failure> {
        let Query { text, arguments } = query;
        let arguments = arguments.map_err(Failure::Encode)?;
        let statement = sqlx::query_with(AssertSqlSafe(text), arguments).persistent(false);
        let done = within(self.patience, statement.execute(self.connection())).await?;
        Ok(done.rows_affected())
    }

    /// Runs statements without values, in one round trip; what all of them select.
    pub async fn script(&mut self, text: String) -> Result<Vec<PgRow>, Failure> {
        let script = sqlx::raw_sql(AssertSqlSafe(text));
        within(self.patience, script.fetch_all(self.connection())).await
    }

    /// What a statement without values selects, row by row as it arrives.
    pub fn stream(&mut self, text: String) -> BoxStream<'_, Result<PgRow, sqlx::Error>> {
        sqlx::query(AssertSqlSafe(text)).persistent(false).fetch(self.connection())
    }

    /// Commits what was done, or takes it back where it failed. Durable on return.
    pub async fn end<T>(mut self, done: Result<T, Failure>) -> Result<T, Failure> {
        // Where the server does not even end it, the connection is closed, which takes everything back as well.
        match done {
            Ok(done) => match self.script("COMMIT".to_owned()).await {
                Ok(_) => {
                    self.turn = None;
                    Ok(done)
                }
                Err(failure) => {
                    self.close();
                    Err(failure)
                }
            },
            Err(failure) => {
                let alive = !failure.is_dead_connection();
                if alive && self.script("ROLLBACK".to_owned()).await.is_ok() {
                    self.turn = None;
                } else {
                    self.close();
                }
                Err(failure)
            }
        }
    }

    /// Ends it by closing the connection.
    fn close(mut self) {
        if let Some(turn) = self.turn.take() {
            turn.close();
        }
    }

    fn connection(&mut self) -> &mut PgConnection {
        self.turn.as_mut().expect("it has not ended").connection()
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            turn.roll_back();
        }
    }
}

async fn within<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Failure> {
    match timeout(patience, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Failure::NoAnswer { timeout_ms: patience.as_millis() }),
    }
}

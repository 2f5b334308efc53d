//! The pool, and transactions that are ended or thrown away.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Postgres};
use tokio::time::{Instant, sleep, timeout};

use crate::config::PostgresConfig;
use crate::failure::Failure;
use crate::query::Query;

/// How much longer than the server's own timeout we wait for an answer, for what the network takes.
const NETWORK_GRACE: Duration = Duration::from_secs(5);

/// How long we wait before we ask again a server whose queue of new connections is full.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(20);
/// How long a connection may be idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a connection may live: what the server remembers for it grows with every tenant that it has seen, by some
/// dozen KiB each.
const MAX_LIFETIME: Duration = Duration::from_secs(600);

/// The way to the database.
#[derive(Debug)]
pub(crate) struct Database {
    pool: PgPool,
    config: PostgresConfig,
}

/// How a pool of connections is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolFigures {
    /// Connections that are open.
    pub open: u32,
    /// Those of them that nobody uses now.
    pub idle: u32,
    /// Most that may be open.
    pub limit: u32,
}

/// How long statements may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Those that a device waits for.
    Hot,
    /// Those that read or change a whole tenant.
    Maintenance,
}

/// A transaction. Unless [`Transaction::end`] ran to its end, its connection is closed rather than given back, so that
/// nobody ever gets a connection with a transaction that somebody else began.
pub(crate) struct Transaction {
    connection: PoolConnection<Postgres>,
    patience: Duration,
    ended: bool,
}

impl Database {
    /// A pool that connects when it has to.
    pub fn new(config: PostgresConfig) -> Arc<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(config.limits.max_connections.get())
            .acquire_timeout(Duration::from_millis(config.limits.acquire_timeout_ms.into()))
            // Waiting is how a full pool works; who waits for too long gets an error.
            .acquire_slow_threshold(Duration::from_millis(config.limits.acquire_timeout_ms.into()))
            .idle_timeout(IDLE_TIMEOUT)
            .max_lifetime(MAX_LIFETIME)
            // `begin` finds out by itself, without a round trip for each transaction.
            .test_before_acquire(false)
            .connect_lazy_with(config.url.options());
        Arc::new(Self { pool, config })
    }

    /// How the pool is used now.
    pub fn figures(&self) -> PoolFigures {
        PoolFigures {
            open: self.pool.size(),
            idle: u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX),
            limit: self.config.limits.max_connections.get(),
        }
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
        let script = format!("{begin};{};{opening}", self.limits(pace));
        let mut stale_connections = 0;
        loop {
            let connection = self.acquire().await?;
            let mut transaction =
                Transaction { connection, patience: self.patience(pace), ended: false };
            match transaction.script(script.clone()).await {
                Ok(rows) => return Ok((transaction, rows)),
                Err(failure @ Failure::Sqlx(_))
                    if (failure.is_dead_connection() || failure.is_denied())
                        && stale_connections < self.config.limits.max_connections.get() =>
                {
                    stale_connections += 1;
                    tracing::debug!(%failure, "a connection had ended, or did not know what we may");
                }
                Err(failure) => return transaction.end(Err(failure)).await,
            }
        }
    }

    /// A connection of the pool. A server whose queue of new connections is full is asked again: on a Unix socket it says
    /// so at once instead of letting us wait.
    async fn acquire(&self) -> Result<PoolConnection<Postgres>, Failure> {
        let timeout_ms = self.config.limits.acquire_timeout_ms;
        let deadline = Instant::now() + Duration::from_millis(timeout_ms.into());
        loop {
            match self.pool.acquire().await {
                Ok(connection) => return Ok(connection),
                Err(sqlx::Error::PoolTimedOut) => return Err(Failure::NoConnection { timeout_ms }),
                Err(sqlx::Error::Io(error))
                    if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline =>
                {
                    sleep(FULL_QUEUE_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
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
            self.config.limits.lock_timeout_ms,
            self.config.limits.statement_timeout_ms,
        )
    }

    const fn statement_timeout_ms(&self, pace: Pace) -> u32 {
        match pace {
            Pace::Hot => self.config.limits.statement_timeout_ms,
            Pace::Maintenance => self.config.limits.maintenance_timeout_ms,
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
        within(self.patience, statement.fetch_all(&mut *self.connection)).await
    }

    /// Runs a statement; how many rows it changed.
    pub async fn execute(&mut self, query: Query) -> Result<u64, Failure> {
        let Query { text, arguments } = query;
        let arguments = arguments.map_err(Failure::Encode)?;
        let statement = sqlx::query_with(AssertSqlSafe(text), arguments).persistent(false);
        let done = within(self.patience, statement.execute(&mut *self.connection)).await?;
        Ok(done.rows_affected())
    }

    /// Runs statements without values, in one round trip; what all of them select.
    pub async fn script(&mut self, text: String) -> Result<Vec<PgRow>, Failure> {
        let script = sqlx::raw_sql(AssertSqlSafe(text));
        within(self.patience, script.fetch_all(&mut *self.connection)).await
    }

    /// What a statement without values selects, row by row as it arrives.
    pub fn stream(&mut self, text: String) -> BoxStream<'_, Result<PgRow, sqlx::Error>> {
        sqlx::query(AssertSqlSafe(text)).persistent(false).fetch(&mut *self.connection)
    }

    /// Commits what was done, or takes it back where it failed. Durable on return.
    pub async fn end<T>(mut self, done: Result<T, Failure>) -> Result<T, Failure> {
        match done {
            Ok(done) => {
                self.script("COMMIT".to_owned()).await?;
                self.ended = true;
                Ok(done)
            }
            Err(failure) => {
                // Where not even that works, the connection is closed, which takes everything back as well.
                let alive = !failure.is_dead_connection();
                if alive && self.script("ROLLBACK".to_owned()).await.is_ok() {
                    self.ended = true;
                }
                Err(failure)
            }
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
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

//! The peer: Postgres by hand, through the driver that our server uses: each transaction is one statement that inserts
//! the rows of an UNNEST of arrays, prepared once.

use std::time::{Duration, Instant};

use farshore_sync_core::ids::RowId;
use farshore_sync_core::value::Value;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, AssertSqlSafe, Connection as _, PgConnection};
use tokio::task::JoinSet;

use crate::flights::Flight;
use crate::outcome::{Failure, Outcome};
use crate::postgres::sql_type;

/// Where rows go. The role that owns the database inherits nothing, so that `public` is not its own.
const SCHEMA: &str = "by_hand";
const TABLE: &str = "by_hand.flights";

/// A database, and a thread of our own to speak to it.
#[derive(Debug)]
pub struct Driver {
    runtime: tokio::runtime::Runtime,
    url: String,
}

/// The values of one statement: an array for each column.
struct Batch {
    ids: Vec<Vec<u8>>,
    columns: Vec<Column>,
}

enum Column {
    Numbers(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
}

impl Driver {
    pub fn new(url: &str) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, url: url.to_owned() })
    }

    /// Runs statements in one transaction, in one round trip; how long it took.
    pub fn run(&self, statements: &str) -> Outcome<Duration> {
        self.runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.url).await?;
            let started = Instant::now();
            let script = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
            script.execute(&mut connection).await?;
            let took = started.elapsed();
            connection.close().await?;
            Ok(took)
        })
    }

    /// Inserts rows into a new table over so many connections, so many rows in each transaction; rows a second.
    pub fn insert(
        &self,
        connections: usize,
        ids: &[RowId],
        flights: &[Flight],
        rows_per_transaction: usize,
    ) -> Outcome<f64> {
        let like = flights.first().ok_or("no flights")?;
        let types: Vec<&str> = like.iter().map(|(_, value)| sql_type(value)).collect();
        let columns = like.iter().zip(&types).map(|((name, _), kind)| format!("\"{name}\" {kind}"));
        let columns = columns.collect::<Vec<_>>().join(", ");
        self.run(&format!(
            "CREATE SCHEMA IF NOT EXISTS {SCHEMA}; DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (id bytea PRIMARY KEY, {columns})"
        ))?;
        let arrays = types.iter().zip(2..).map(|(kind, number)| format!("${number}::{kind}[]"));
        let arrays = arrays.collect::<Vec<_>>().join(", ");
        let insert = format!("INSERT INTO {TABLE} SELECT * FROM unnest($1::bytea[], {arrays})");
        let batches = ids.chunks(rows_per_transaction).zip(flights.chunks(rows_per_transaction));
        let batches: Vec<Batch> =
            batches.map(|(ids, flights)| batch(ids, flights, &types)).collect();
        let mut parts: Vec<Vec<Batch>> = (0..connections).map(|_| Vec::new()).collect();
        for (at, batch) in batches.into_iter().enumerate() {
            parts[at % connections].push(batch);
        }
        self.runtime.block_on(self.insert_parts(parts, insert, flights.len()))
    }

    async fn insert_parts(
        &self,
        parts: Vec<Vec<Batch>>,
        insert: String,
        rows: usize,
    ) -> Outcome<f64> {
        let mut connected = Vec::new();
        for part in parts {
            connected.push((PgConnection::connect(&self.url).await?, part));
        }
        let started = Instant::now();
        let mut inserting = JoinSet::new();
        for (mut connection, part) in connected {
            let insert = insert.clone();
            inserting.spawn(async move {
                for batch in part {
                    let statement = AssertSqlSafe(insert.clone());
                    let query = sqlx::query_with(statement, arguments(batch)?);
                    query.execute(&mut connection).await?;
                }
                Ok::<_, Failure>(())
            });
        }
        while let Some(inserted) = inserting.join_next().await {
            inserted??;
        }
        Ok(rows as f64 / started.elapsed().as_secs_f64())
    }
}

fn batch(ids: &[RowId], flights: &[Flight], types: &[&str]) -> Batch {
    let column = |(at, kind): (usize, &&str)| {
        let values = flights.iter().map(|flight| &flight[at].1);
        match *kind {
            "bigint" => Column::Numbers(values.map(number).collect()),
            _ => Column::Texts(values.map(text).collect()),
        }
    };
    let columns = types.iter().enumerate().map(column).collect();
    Batch { ids: ids.iter().map(|id| id.as_bytes().to_vec()).collect(), columns }
}

fn arguments(batch: Batch) -> Outcome<PgArguments> {
    let mut arguments = PgArguments::default();
    arguments.add(batch.ids)?;
    for column in batch.columns {
        match column {
            Column::Numbers(numbers) => arguments.add(numbers)?,
            Column::Texts(texts) => arguments.add(texts)?,
        }
    }
    Ok(arguments)
}

const fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) | Value::Timestamp(number) => Some(*number),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

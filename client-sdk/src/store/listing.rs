//! What waits, what was refused and where the store stands, for the app to show.

use farshore_sync_core::digest::Sum;
use farshore_sync_core::ids::{CollectionId, ColumnId, RowId, Scope};
use farshore_sync_core::mutation::{Mutation, Op, Transaction};
use farshore_sync_core::reason::ReasonCode;
use rusqlite::Connection;

use super::digests::Totals;
use super::error::Failure;
use super::layout::Layout;
use super::numbers::Scopes;
use super::progress::{Progress, from_sql};

/// Most quarantined transactions that one listing gives, the oldest first.
pub const MAX_QUARANTINE_LISTED: usize = 10_000;

/// Where a store stands, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Transactions that the server has not answered.
    pub unanswered: u64,
    /// Transactions that are not known to be in a checkpoint, the unanswered ones included.
    pub unconfirmed: u64,
    /// Transactions in the quarantine.
    pub quarantined: u64,
    /// The seq up to which everything is stored; 0 before the first checkpoint.
    pub cursor: u64,
    /// Whether a checkpoint was ever reached: the first fill is over.
    pub filled: bool,
    /// How many stamps the server had to correct.
    pub corrections: u64,
    /// By how many milliseconds the last correction moved a stamp; negative means back.
    pub last_correction_ms: i64,
}

/// What one mutation does, without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MutationSummary {
    /// The name of the collection; its number where the schema does not know it.
    pub collection: String,
    /// The row.
    pub row: RowId,
    /// `insert`, `update`, `delete`, `restore`, `increment`, `set_add`, `set_remove`, `document` or `offer`.
    pub operation: &'static str,
    /// The columns that it touches.
    pub columns: Vec<String>,
}

/// One transaction of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Its number on this device.
    pub number: u64,
    /// When it was written, in milliseconds since 1970, by the device's clock.
    pub written_at_ms: u64,
    /// What it does.
    pub mutations: Vec<MutationSummary>,
    /// What is known of it.
    pub state: OutboxState,
}

/// What is known of a transaction of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxState {
    /// The server has not answered.
    Waiting,
    /// The server has it; a checkpoint that reaches `seq` brings it back.
    Answered {
        /// The seq of its commit.
        seq: u64,
    },
}

/// A transaction that the server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Its number in the quarantine.
    pub id: u64,
    /// Its number as a transaction.
    pub number: u64,
    /// Why it was refused.
    pub code: ReasonCode,
    /// The same for people.
    pub message: String,
    /// The index of the mutation that was refused.
    pub refused_index: usize,
    /// What it would do.
    pub mutations: Vec<MutationSummary>,
    /// Since when it is here, in milliseconds since 1970.
    pub since_ms: u64,
}

/// Where the store stands, in numbers.
pub(super) fn counts(connection: &Connection) -> Result<Counts, Failure> {
    let progress = Progress::load(connection)?;
    Ok(Counts {
        unanswered: progress.unanswered,
        unconfirmed: progress.unconfirmed,
        quarantined: progress.quarantined,
        cursor: progress.cursor,
        filled: progress.filled,
        corrections: progress.corrections,
        last_correction_ms: progress.last_correction_ms,
    })
}

/// The oldest transactions of the outbox.
pub(super) fn outbox(
    connection: &Connection,
    layout: &Layout,
    limit: usize,
) -> Result<Vec<OutboxEntry>, Failure> {
    let mut statement =
        connection.prepare_cached("SELECT bytes, answered FROM fs_outbox ORDER BY number")?;
    let mut rows = statement.query([])?;
    let mut entries = Vec::new();
    while entries.len() < limit
        && let Some(row) = rows.next()?
    {
        let transaction = decode(&row.get::<_, Vec<u8>>(0)?)?;
        let answered: Option<i64> = row.get(1)?;
        entries.push(OutboxEntry {
            number: transaction.number,
            written_at_ms: transaction.stamp.wall_ms(),
            mutations: summaries(layout, &transaction),
            state: match answered {
                None => OutboxState::Waiting,
                Some(seq) => OutboxState::Answered { seq: from_sql(seq) },
            },
        });
    }
    Ok(entries)
}

/// The quarantined transactions, oldest first.
pub(super) fn quarantine(
    connection: &Connection,
    layout: &Layout,
) -> Result<Vec<Quarantined>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT number, code, message, refused_index, since_ms, bytes FROM fs_quarantine ORDER BY number",
    )?;
    let mut rows = statement.query([])?;
    let mut entries = Vec::new();
    while entries.len() < MAX_QUARANTINE_LISTED
        && let Some(row) = rows.next()?
    {
        let transaction = decode(&row.get::<_, Vec<u8>>(5)?)?;
        let code: String = row.get(1)?;
        entries.push(Quarantined {
            id: from_sql(row.get(0)?),
            number: transaction.number,
            code: code.parse().map_err(|_| Failure::damaged(format!("reason code {code:?}")))?,
            message: row.get(2)?,
            refused_index: usize::try_from(row.get::<_, u32>(3)?).unwrap_or(usize::MAX),
            mutations: summaries(layout, &transaction),
            since_ms: from_sql(row.get(4)?),
        });
    }
    Ok(entries)
}

/// The digest of what the server has confirmed.
pub(super) fn digests(connection: &Connection) -> Result<Vec<(Scope, CollectionId, Sum)>, Failure> {
    let (scopes, totals) = (Scopes::load(connection)?, Totals::load(connection)?);
    let totals = totals.in_granted(&scopes);
    Ok(totals.map(|(scope, collection, total)| (scope.clone(), collection, total)).collect())
}

fn decode(bytes: &[u8]) -> Result<Transaction, Failure> {
    Transaction::decode(bytes).map_err(|error| Failure::damaged(error.to_string()))
}

fn summaries(layout: &Layout, transaction: &Transaction) -> Vec<MutationSummary> {
    transaction.mutations.iter().map(|mutation| summary(layout, mutation)).collect()
}

fn summary(layout: &Layout, mutation: &Mutation) -> MutationSummary {
    let (operation, columns): (_, Vec<ColumnId>) = match &mutation.op {
        Op::Insert { cells } => {
            ("insert", cells.as_slice().iter().map(|(column, _)| *column).collect())
        }
        Op::Update { cells } => {
            ("update", cells.as_slice().iter().map(|(column, _)| *column).collect())
        }
        Op::Delete => ("delete", Vec::new()),
        Op::Restore => ("restore", Vec::new()),
        Op::Increment { column, .. } => ("increment", vec![*column]),
        Op::SetAdd { column, .. } => ("set_add", vec![*column]),
        Op::SetRemove { column, .. } => ("set_remove", vec![*column]),
        Op::Document { column, .. } => ("document", vec![*column]),
        Op::Offer { state } => ("offer", state.cells.iter().map(|cell| cell.column).collect()),
    };
    let collection = layout.collection(mutation.collection);
    let name_of = |column: ColumnId| {
        let known = collection.and_then(|layout| Some(&layout.columns[layout.column(column)?]));
        known.map_or_else(|| column.to_string(), |known| known.column.name.clone())
    };
    MutationSummary {
        collection: collection
            .map_or_else(|| mutation.collection.to_string(), |layout| layout.name().to_owned()),
        row: mutation.row,
        operation,
        columns: columns.into_iter().map(name_of).collect(),
    }
}

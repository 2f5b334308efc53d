//! What devices push that have no store: transactions that are encoded and compressed beforehand, so that it is the
//! server that is measured.

use farshore_api::envelope;
use farshore_sync_core::hlc::Hlc;
use farshore_sync_core::ids::RowId;
use farshore_sync_core::mutation::{Cells, Mutation, Op, Transaction};
use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;
use farshore_sync_core::wire::limits::PUSH_TARGET_BYTES;
use farshore_sync_core::wire::{ClientFrame, Frame as _, Push};
use serde::{Deserialize, Serialize};

use crate::base64;
use crate::connection::{Connection, Standing, hello, socket_url};
use crate::device::now_ms;
use crate::flights::{COLLECTION, Flight, SCHEMA};
use crate::legs::progress;
use crate::outcome::Outcome;
use crate::pushing;
use crate::server::Server;

/// Rows of one transaction.
pub const ROWS_PER_TRANSACTION: usize = 100;
/// How a device cuts what it has into transactions and pushes.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub rows_per_transaction: usize,
    /// After so many bytes of transactions a push is full.
    pub push_bytes: usize,
    /// Pushes that a device has under way.
    pub pushes_in_flight: usize,
}

impl Shape {
    /// What the SDK does with a full outbox.
    pub const BULK: Self = Self {
        rows_per_transaction: ROWS_PER_TRANSACTION,
        push_bytes: PUSH_TARGET_BYTES,
        pushes_in_flight: 4,
    };
    /// One row, and the next one when that is acknowledged.
    pub const ONE_BY_ONE: Self =
        Self { rows_per_transaction: 1, push_bytes: 1, pushes_in_flight: 1 };
}

/// Everything that one device will push.
#[derive(Debug, Serialize, Deserialize)]
pub struct Load {
    url: String,
    token: String,
    #[serde(with = "base64")]
    hello: Vec<u8>,
    pub pushes: Vec<Sealed>,
    in_flight: usize,
    /// All rows that the pushes touch.
    pub rows: usize,
}

/// One push, ready to be sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sealed {
    #[serde(with = "base64")]
    pub message: Vec<u8>,
    /// The number of its last transaction.
    pub last_number: u64,
}

/// What a device pushes where.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub server: &'a Server,
    pub tenant: &'a str,
    pub schema: &'a Schema,
    /// The scope of everything that is pushed, with its right.
    pub grant: &'a str,
}

impl Load {
    /// Makes a device known to the server and prepares what it will push: for each id a flight, from the first one
    /// again where there are fewer flights.
    pub fn prepare(
        target: Target<'_>,
        shape: Shape,
        ids: &[RowId],
        flights: &[Flight],
    ) -> Outcome<Self> {
        let encoded = transactions(target.schema, shape.rows_per_transaction, ids, flights)?;
        Self::of_transactions(target, shape, &encoded, ids.len())
    }

    /// Makes a device known to the server that will push these transactions, which touch so many rows.
    pub fn of_transactions(
        target: Target<'_>,
        shape: Shape,
        transactions: &[Vec<u8>],
        rows: usize,
    ) -> Outcome<Self> {
        let token = target.server.token(target.tenant, target.grant)?;
        let hello = hello(target.schema, target.grant, Standing::default())?;
        Ok(Self::to_anybody(socket_url(target.server), token, hello, shape, transactions, rows))
    }

    /// Prepares it for whoever takes this token and this first message.
    pub fn to_anybody(
        url: String,
        token: String,
        hello: Vec<u8>,
        shape: Shape,
        transactions: &[Vec<u8>],
        rows: usize,
    ) -> Self {
        let pushes = pushes(transactions, shape);
        Self { url, token, hello, pushes, in_flight: shape.pushes_in_flight, rows }
    }

    /// Cuts it into so many that one device pushes one after the other; what does not divide evenly is left out.
    pub fn split(self, parts: usize) -> Vec<Self> {
        let (pushes, rows) = (self.pushes.len() / parts, self.rows / parts);
        let mut rest = self.pushes.into_iter();
        let part = |_| Self {
            url: self.url.clone(),
            token: self.token.clone(),
            hello: self.hello.clone(),
            pushes: rest.by_ref().take(pushes).collect(),
            in_flight: self.in_flight,
            rows,
        };
        (0..parts).map(part).collect()
    }

    /// The messages that it will send.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        self.pushes.iter().map(|push| push.message.as_slice())
    }

    /// Pushes everything from this process, where nobody takes the time.
    pub fn push(self) -> Outcome {
        pushing::push_all(vec![self], || Ok(()), |_| {}).map(|_| ())
    }

    /// Connects the device.
    pub async fn connect(&self) -> Outcome<Connection> {
        let (connection, _) = Connection::open(&self.url, &self.token, &self.hello).await?;
        Ok(connection)
    }

    /// Which number must be acknowledged before this push may be sent; 0 where none must.
    pub fn to_be_answered_before(&self, at: usize) -> u64 {
        at.checked_sub(self.in_flight).map_or(0, |at| self.pushes[at].last_number)
    }
}

/// Puts rows on the server before a bench begins.
pub fn seed(server: &Server, tenant: &str, ids: &[RowId], flights: &[Flight]) -> Outcome {
    let schema = Schema::parse(SCHEMA)?;
    let target = Target { server, tenant, schema: &schema, grant: "tenant:rw" };
    let load = Load::prepare(target, Shape::BULK, ids, flights)?;
    let bar = progress(&format!("seeding {} rows", ids.len()), ids.len());
    let shown = bar.clone();
    let acknowledged = move |answered| shown.set_position(answered * ROWS_PER_TRANSACTION as u64);
    pushing::push_all(vec![load], || Ok(()), acknowledged)?;
    bar.finish_and_clear();
    Ok(())
}

/// Transactions of inserts, encoded, with numbers from 1.
pub fn transactions(
    schema: &Schema,
    rows_per_transaction: usize,
    ids: &[RowId],
    flights: &[Flight],
) -> Outcome<Vec<Vec<u8>>> {
    inserts(schema, COLLECTION, rows_per_transaction, ids, flights)
}

/// Transactions of inserts into any collection: for each id a row, from the first one again where there are fewer.
pub fn inserts(
    schema: &Schema,
    collection: &str,
    rows_per_transaction: usize,
    ids: &[RowId],
    rows: &[Flight],
) -> Outcome<Vec<Vec<u8>>> {
    let collection = schema.collection_named(collection).ok_or("no such collection")?;
    let mut rows = rows.iter().cycle();
    let inserts = ids.chunks(rows_per_transaction).map(|ids| {
        let insert = |(id, row): (&RowId, &Flight)| {
            let cell = |(name, value): &(&'static str, Value)| {
                let column = collection.column_named(name).ok_or("no such column")?;
                Ok((column.column_id(), value.clone()))
            };
            let cells = Cells::new(row.iter().map(cell).collect::<Outcome<_>>()?);
            let (collection, row) = (collection.collection_id(), *id);
            Ok(Mutation { collection, row, op: Op::Insert { cells } })
        };
        ids.iter().zip(rows.by_ref()).map(insert).collect()
    });
    encode(inserts)
}

/// Transactions that write one column of these rows.
pub fn updates(
    schema: &Schema,
    rows_per_transaction: usize,
    ids: &[RowId],
    column: &str,
    value: &Value,
) -> Outcome<Vec<Vec<u8>>> {
    let collection = schema.collection_named(COLLECTION).ok_or("no flights")?;
    let column = collection.column_named(column).ok_or("no such column")?.column_id();
    let cells = Cells::new(vec![(column, value.clone())]);
    let update = |row: &RowId| {
        let (collection, op) = (collection.collection_id(), Op::Update { cells: cells.clone() });
        Mutation { collection, row: *row, op }
    };
    encode(ids.chunks(rows_per_transaction).map(|ids| Ok(ids.iter().map(update).collect())))
}

fn encode(transactions: impl Iterator<Item = Outcome<Vec<Mutation>>>) -> Outcome<Vec<Vec<u8>>> {
    let mut stamp = Hlc::from_wall_ms(now_ms());
    let mut encode = |(number, mutations): (u64, Outcome<_>)| {
        stamp = stamp.next();
        Ok(Transaction { number, stamp, mutations: mutations? }.encode())
    };
    (1..).zip(transactions).map(&mut encode).collect()
}

/// Transactions in pushes. Each says what was answered when it may be sent.
fn pushes(transactions: &[Vec<u8>], shape: Shape) -> Vec<Sealed> {
    let mut pushes: Vec<Sealed> = Vec::new();
    let mut rest = transactions;
    let mut number = 0;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |transaction: &&Vec<u8>| {
            bytes += transaction.len();
            bytes <= shape.push_bytes
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (batch, after) = rest.split_at(count);
        rest = after;
        number += count as u64;
        let settled =
            pushes.len().checked_sub(shape.pushes_in_flight).map_or(0, |at| pushes[at].last_number);
        let transactions = batch.iter().map(|transaction| transaction.clone().into()).collect();
        let frame = ClientFrame::Push(Push { settled, transactions });
        pushes.push(Sealed { message: envelope::seal(&frame.to_bytes()), last_number: number });
    }
    pushes
}

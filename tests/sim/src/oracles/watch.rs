//! What one device must show at every moment: whole transactions, its own writes, and never less than before.

use std::collections::BTreeMap;

use farshore_client::store::{ColumnValue, QueryError, SqlValue};
use farshore_client::{Client, Status};
use farshore_sync_core::schema::ColumnType;
use farshore_sync_core::value::Value;

use super::{Cell, Deed, Role, RowKey, Shape, View, Violation};

/// Counters by the place of their collection and column in the shape, and the bytes of their row's id.
pub type Counters = BTreeMap<(usize, usize, Vec<u8>), i64>;

/// What a device showed so far.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    seen: Counters,
    quarantined: Vec<u64>,
    cursor: u64,
    retired: bool,
}

impl Watch {
    /// From now on the server may have less than was seen: it was restored from a backup, and what it lacks comes back
    /// when some device offers it.
    pub fn retire(&mut self) {
        self.retired = true;
    }

    /// What was seen may be gone for a good reason: rights were taken away, a transaction was given up.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    /// Rows of one transaction are visible together. Only a first fill, which the status tells, may show a part.
    ///
    /// # Errors
    /// Where the SDK does not read.
    pub fn whole(
        shape: &Shape,
        client: &Client,
        status: &Status,
    ) -> Result<Vec<Violation>, QueryError> {
        if !status.filled {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for collection in shape.collections.iter().filter(|known| known.role == Role::Batches) {
            let sql = format!(
                "SELECT batch, count(id), max(size) FROM {} GROUP BY batch HAVING count(id) <> max(size)",
                collection.name
            );
            for row in client.query(&sql, &[])?.rows {
                if let [SqlValue::Int(batch), SqlValue::Int(there), SqlValue::Int(size)] = row[..] {
                    let what = format!("{there} of the {size} rows of transaction {batch}");
                    found.push(Violation::Torn(what));
                }
            }
        }
        Ok(found)
    }

    /// Every counter that a device shows, without those of rows that somebody deletes: what waits on a row when it is
    /// deleted does not come back with it.
    ///
    /// # Errors
    /// Where the SDK does not read.
    pub fn counters(
        shape: &Shape,
        version: u32,
        client: &Client,
        deleted: &[RowKey],
    ) -> Result<Counters, QueryError> {
        // One query for all of them: this is asked after every step of every run.
        let mut selects = Vec::new();
        for (at, collection) in shape.collections_of(version).iter().enumerate() {
            let counters = collection.columns.iter().enumerate();
            for (column, counter) in counters.filter(|(_, of)| of.kind == ColumnType::Counter) {
                let (counter, collection) = (&counter.name, &collection.name);
                selects.push(format!("SELECT {at}, {column}, id, {counter} FROM {collection}"));
            }
        }
        if selects.is_empty() {
            return Ok(Counters::new());
        }
        let mut shown = Counters::new();
        for row in client.query(&selects.join(" UNION ALL "), &[])?.rows {
            if let [
                SqlValue::Int(at),
                SqlValue::Int(column),
                SqlValue::Bytes(id),
                SqlValue::Int(value),
            ] = &row[..]
                && let (Ok(at), Ok(column)) = (usize::try_from(*at), usize::try_from(*column))
                && !deleted.iter().any(|(_, row)| row.as_bytes()[..] == id[..])
            {
                shown.insert((at, column, id.clone()), *value);
            }
        }
        Ok(shown)
    }

    /// The transactions that wait in the quarantine, by the ids of their entries.
    ///
    /// # Errors
    /// Where the SDK does not read.
    pub fn quarantined(client: &Client, status: &Status) -> Result<Vec<u64>, QueryError> {
        if status.quarantined == 0 {
            return Ok(Vec::new());
        }
        Ok(client.quarantine()?.iter().map(|entry| entry.id).collect())
    }

    /// Counters only ever go up, so that a smaller one was taken back.
    #[must_use]
    pub fn monotonic(
        &mut self,
        shown: Counters,
        status: &Status,
        quarantined: Vec<u64>,
    ) -> Vec<Violation> {
        // A first fill shows pages as they come, under what this device wrote itself.
        if !status.filled || self.retired {
            self.forget();
            return Vec::new();
        }
        if quarantined != self.quarantined || status.cursor < self.cursor {
            self.forget();
        }
        (self.quarantined, self.cursor) = (quarantined, status.cursor);
        let less = shown.iter().filter_map(|(cell, shown)| {
            let before = self.seen.get(cell).filter(|before| shown < before)?;
            let (collection, column, id) = cell;
            Some(Violation::WentBack(format!(
                "counter {column} of collection {collection}, row {id:02x?}, was {before} and is {shown}"
            )))
        });
        let found = less.collect();
        self.seen = shown;
        found
    }
}

/// Who writes reads it at once: `shown` are the rows of a transaction right after it was made.
#[must_use]
pub fn own_writes(deeds: &[Deed], shown: &View) -> Vec<Violation> {
    let mut lives: BTreeMap<&RowKey, bool> = BTreeMap::new();
    let mut scalars: BTreeMap<&Cell, &Value> = BTreeMap::new();
    for deed in deeds {
        lives.insert(deed.row(), !matches!(deed, Deed::Delete { .. }));
        if let Deed::Write { cell, value, .. } = deed {
            scalars.insert(cell, value);
        }
    }
    let mut found = Vec::new();
    for (row, lives) in &lives {
        if *lives != shown.contains_key(*row) {
            found.push(Violation::WentBack(format!(
                "right after its own write, row {row:?} is there: {}",
                !lives
            )));
        }
    }
    for (cell, written) in scalars {
        let Some(columns) = shown.get(&cell.0) else { continue };
        let value = match columns.get(&cell.1) {
            Some(ColumnValue::Scalar(value)) => value,
            _ => &Value::Null,
        };
        if value != written {
            found.push(Violation::WentBack(format!(
                "right after its own write of {written:?}, {cell:?} is {value:?}"
            )));
        }
    }
    found
}

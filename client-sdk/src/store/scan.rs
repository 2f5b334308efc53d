//! Walking over rows, wherever they are kept. Only purging, rehashing and repairing do that.

use farshore_sync_core::digest::Sum;
use farshore_sync_core::ids::{CollectionId, RowId};

use super::error::Failure;
use super::numbers::ScopeNumber;
use super::rows::RowKey;
use super::transaction::{Tx, sum_from_sql};

impl Tx<'_> {
    /// The rows whose server state is in a scope, or that would be in it.
    pub(super) fn keys_in(&self, scope: ScopeNumber) -> Result<Vec<RowKey>, Failure> {
        let mut keys = Vec::new();
        for layout in self.layout.collections() {
            let sql = format!("SELECT id FROM \"{}\" WHERE fs_scope = ?1", layout.table());
            let mut statement = self.connection.prepare_cached(&sql)?;
            for id in statement.query_map([scope.0], |row| row.get(0))? {
                keys.push((layout.id, RowId::from_bytes(id?)));
            }
        }
        for table in ["fs_graves", "fs_unknown"] {
            let sql = format!("SELECT collection, id FROM {table} WHERE scope = ?1");
            let mut statement = self.connection.prepare_cached(&sql)?;
            for row in statement.query_map([scope.0], |row| Ok((row.get(0)?, row.get(1)?)))? {
                let (collection, id) = row?;
                keys.push((CollectionId(collection), RowId::from_bytes(id)));
            }
        }
        Ok(keys)
    }

    /// Visits every row whose server state is counted in a digest, of one collection or of all.
    pub(super) fn each_counted(
        &self,
        only: Option<CollectionId>,
        mut visit: impl FnMut(RowKey, ScopeNumber, Sum),
    ) -> Result<(), Failure> {
        let wanted = |collection: &CollectionId| only.is_none_or(|only| only == *collection);
        for layout in self.layout.collections().filter(|layout| wanted(&layout.id)) {
            let sql = format!(
                "SELECT id, fs_scope, fs_sum FROM \"{}\" WHERE fs_sum IS NOT NULL",
                layout.table()
            );
            let mut statement = self.connection.prepare_cached(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let key = (layout.id, RowId::from_bytes(row.get(0)?));
                visit(key, ScopeNumber(row.get(1)?), sum_from_sql(row.get(2)?));
            }
        }
        for table in ["fs_graves", "fs_unknown"] {
            let sql =
                format!("SELECT collection, id, scope, sum FROM {table} WHERE sum IS NOT NULL");
            let mut statement = self.connection.prepare_cached(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let collection = CollectionId(row.get(0)?);
                if wanted(&collection) {
                    let key = (collection, RowId::from_bytes(row.get(1)?));
                    visit(key, ScopeNumber(row.get(2)?), sum_from_sql(row.get(3)?));
                }
            }
        }
        Ok(())
    }
}

//! The way of the shared resource queries into a tenant.

use async_trait::async_trait;
use farshore_store::StoreError;
use farshore_store::sql::{SchemaCache, Sql, SqlRow, SqlValue, Statement};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{CachedStatement, Connection, ToSql};

use crate::failure::Failure;
use crate::tenant::SqliteTenant;

#[async_trait]
impl Sql for SqliteTenant {
    async fn query(
        &self,
        operation: &'static str,
        statement: Statement,
    ) -> Result<Vec<SqlRow>, StoreError> {
        self.read(operation, move |_, snapshot| {
            let mut prepared = bind(snapshot, &statement)?;
            let columns = prepared.column_count();
            let mut rows = prepared.raw_query();
            let mut answer = Vec::new();
            while let Some(row) = rows.next()? {
                let values = (0..columns).map(|column| value_at(row.get_ref(column)?));
                answer.push(SqlRow(values.collect::<Result<_, Failure>>()?));
            }
            Ok(answer)
        })
        .await
    }

    async fn execute(
        &self,
        operation: &'static str,
        statements: Vec<Statement>,
    ) -> Result<Vec<u64>, StoreError> {
        self.write(operation, move |_, transaction| {
            let run = |statement| Ok(bind(transaction, statement)?.raw_execute()? as u64);
            statements.iter().map(run).collect()
        })
        .await
    }

    fn schema_cache(&self) -> &SchemaCache {
        &self.0.schemas
    }
}

/// Binds by name: SQLite counts `$1` where it first meets it, which need not be the first place.
fn bind<'a>(
    database: &'a Connection,
    statement: &Statement,
) -> Result<CachedStatement<'a>, Failure> {
    let mut prepared = database.prepare_cached(statement.text)?;
    for (position, value) in (1..).zip(&statement.values) {
        if let Some(index) = prepared.parameter_index(&format!("${position}"))? {
            prepared.raw_bind_parameter(index, Bound(value))?;
        }
    }
    Ok(prepared)
}

pub(crate) struct Bound<'a>(pub &'a SqlValue);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            SqlValue::Null => ToSqlOutput::Owned(Value::Null),
            SqlValue::Int(number) => ToSqlOutput::Owned(Value::Integer(*number)),
            SqlValue::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            SqlValue::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

pub(crate) fn value_at(value: ValueRef<'_>) -> Result<SqlValue, Failure> {
    match value {
        ValueRef::Null => Ok(SqlValue::Null),
        ValueRef::Integer(number) => Ok(SqlValue::Int(number)),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Ok(SqlValue::from(text)),
            Err(error) => Err(Failure::Damaged(error.to_string())),
        },
        ValueRef::Blob(bytes) => Ok(SqlValue::from(bytes)),
        ValueRef::Real(_) => Err(Failure::Damaged("a float where none is stored".to_owned())),
    }
}

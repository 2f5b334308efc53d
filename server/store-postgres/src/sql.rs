//! The way of the shared resource queries into a tenant.

use async_trait::async_trait;
use farshore_store::StoreError;
use farshore_store::sql::{SchemaCache, Sql, SqlRow, SqlValue, Statement};
use farshore_store::sync_core::schema::Schema;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgRow, PgTypeInfo};
use sqlx::{Encode, Postgres, Row as _, Type, TypeInfo as _, ValueRef as _};

use crate::database::Pace;
use crate::failure::Failure;
use crate::names::Names;
use crate::query::Query;
use crate::tenant::PostgresTenant;

/// The type `unknown`: the server finds out what is meant, as for a literal.
const UNKNOWN: Oid = Oid(705);

#[async_trait]
impl Sql for PostgresTenant {
    async fn query(
        &self,
        operation: &'static str,
        statement: Statement,
    ) -> Result<Vec<SqlRow>, StoreError> {
        self.during(operation, async {
            let mut read = self.0.read(Pace::Hot).await?;
            let rows = read.transaction.rows(query(&self.0.names, statement)).await;
            let rows = rows.and_then(|rows| rows.iter().map(values).collect());
            read.transaction.end(rows).await
        })
        .await
    }

    async fn execute(
        &self,
        operation: &'static str,
        statements: Vec<Statement>,
    ) -> Result<Vec<u64>, StoreError> {
        self.during(operation, async {
            let mut write = self.0.write(Pace::Hot).await?;
            let mut changed = Ok(Vec::with_capacity(statements.len()));
            for statement in statements {
                let rows = write.transaction.execute(query(&self.0.names, statement)).await;
                changed = changed.and_then(|mut changed: Vec<u64>| {
                    changed.push(rows?);
                    Ok(changed)
                });
                if changed.is_err() {
                    break;
                }
            }
            write.transaction.end(changed).await
        })
        .await
    }

    async fn schema_registered(&self, schema: &Schema) {
        self.0.follow_schema(schema).await;
    }

    fn schema_cache(&self) -> &SchemaCache {
        &self.0.schemas
    }
}

fn query(names: &Names, statement: Statement) -> Query {
    let query = Query::new(names.qualify(statement.text));
    statement.values.into_iter().fold(query, |query, value| query.bind(Bound(value)))
}

pub(crate) struct Bound(pub SqlValue);

impl Type<Postgres> for Bound {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(UNKNOWN)
    }
}

impl Encode<'_, Postgres> for Bound {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        match &self.0 {
            SqlValue::Null => Ok(IsNull::Yes),
            SqlValue::Int(number) => number.encode_by_ref(buffer),
            SqlValue::Text(text) => text.encode_by_ref(buffer),
            SqlValue::Bytes(bytes) => bytes.encode_by_ref(buffer),
        }
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(match &self.0 {
            SqlValue::Null => PgTypeInfo::with_oid(UNKNOWN),
            SqlValue::Int(_) => <i64 as Type<Postgres>>::type_info(),
            SqlValue::Text(_) => <String as Type<Postgres>>::type_info(),
            SqlValue::Bytes(_) => <Vec<u8> as Type<Postgres>>::type_info(),
        })
    }
}

pub(crate) fn values(row: &PgRow) -> Result<SqlRow, Failure> {
    (0..row.len()).map(|column| value(row, column)).collect::<Result<_, _>>().map(SqlRow)
}

fn value(row: &PgRow, column: usize) -> Result<SqlValue, Failure> {
    let raw = row.try_get_raw(column)?;
    if raw.is_null() {
        return Ok(SqlValue::Null);
    }
    let kind = raw.type_info();
    match kind.name() {
        "INT8" => Ok(SqlValue::Int(row.try_get(column)?)),
        "TEXT" => Ok(SqlValue::Text(row.try_get(column)?)),
        "BYTEA" => Ok(SqlValue::Bytes(row.try_get(column)?)),
        other => Err(Failure::Damaged(format!("a {other} where none is stored"))),
    }
}

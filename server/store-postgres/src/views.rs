//! A view for each collection, for people who read with SQL: typed columns, the values that readers see, no deleted
//! rows.
//!
//! The views follow the schema: at its registration, and at the next opening where that was interrupted. They serve
//! people, so nothing fails for them; what keeps them back is logged. Whoever reads them needs the right to read the
//! tenant's rows (the views check the reader's, not their owner's) and names the tenant by `farshore.tenant`.

use farshore_store::sync_core::schema::{Collection, Column, ColumnType, Schema};
use farshore_store::sync_core::value::Value;

use crate::database::{Database, Pace};
use crate::failure::Failure;
use crate::names::{Names, Roles};

/// The parts of a stored row, by their place in it.
const CELLS: u8 = 2;
const COUNTERS: u8 = 5;
const SETS: u8 = 6;
/// The numbers of microseconds since 1970 that a timestamp of Postgres takes.
const TIMESTAMPS: &str = "BETWEEN -210866803200000000 AND 9223371331200000000";

/// Brings the views of a tenant to a version of its schema.
pub(crate) async fn follow(
    database: &Database,
    names: &Names,
    roles: &Roles,
    schema: &Schema,
) -> Result<(), Failure> {
    match replace(database, names, roles, schema, Before::Kept).await {
        // A view can take further columns only behind those that it has.
        Err(Failure::Sqlx(sqlx::Error::Database(_))) => {
            replace(database, names, roles, schema, Before::Dropped).await
        }
        done => done,
    }
}

/// What becomes of the views that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// They are replaced in their place, together with what builds on them.
    Kept,
    /// They go first; where something builds on one, that is an error.
    Dropped,
}

async fn replace(
    database: &Database,
    names: &Names,
    roles: &Roles,
    schema: &Schema,
    before: Before,
) -> Result<(), Failure> {
    let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
    let (transaction, _) =
        database.begin(begin, Pace::Maintenance, &script(names, roles, schema, before)).await?;
    transaction.end(Ok(())).await
}

fn script(names: &Names, roles: &Roles, schema: &Schema, before: Before) -> String {
    let (owner, tenant, role) = (roles.owner(), &names.key, roles.of(&names.key));
    let mut script = format!(
        "SET LOCAL ROLE {owner};\nSET LOCAL farshore.tenant = '{tenant}';\n\
         SET LOCAL standard_conforming_strings = on;\n"
    );
    script.push_str(&names.qualify("SELECT FROM main.standing FOR NO KEY UPDATE;\n"));
    for collection in &schema.collections {
        let view = format!("{}.\"{}\"", names.views(), collection.name);
        if before == Before::Dropped {
            script.push_str(&format!("DROP VIEW IF EXISTS {view};\n"));
        }
        let select = names.qualify(&select(collection));
        script.push_str(&format!(
            "CREATE OR REPLACE VIEW {view} WITH (security_invoker = true) AS {select};\n\
             GRANT SELECT ON {view} TO {role};\n"
        ));
    }
    let done = format!("UPDATE main.standing SET views = {}", schema.version);
    script.push_str(&names.qualify(&done));
    script
}

fn select(collection: &Collection) -> String {
    let mut columns: Vec<&Column> = collection.columns.iter().collect();
    columns.sort_by_key(|column| column.column_id());
    let columns: String = columns.into_iter().filter_map(column).collect();
    // Without the offset the row would be read once for each column.
    format!(
        "SELECT encode(r.id, 'hex')::uuid AS id{columns} FROM main.changes r \
         CROSS JOIN LATERAL (SELECT (farshore.cbor(r.state, 0)).item AS v OFFSET 0) AS decoded \
         WHERE r.collection = {} AND r.kind = 0",
        collection.collection_id().0
    )
}

/// A column of a view; documents have none, since only automerge reads them.
fn column(column: &Column) -> Option<String> {
    let number = column.column_id().0;
    let text = format!("(v->{CELLS}->>'{number}')");
    let scalar = match column.column_type {
        ColumnType::Bool => format!("{text}::boolean"),
        ColumnType::Int => format!("{text}::bigint"),
        ColumnType::Real => format!("{text}::double precision"),
        // JSON is kept as it was written, which may be no JSON at all.
        ColumnType::Text | ColumnType::Json => text,
        ColumnType::Bytes => format!("{text}::bytea"),
        ColumnType::Uuid => format!("substr({text}, 3)::uuid"),
        ColumnType::Timestamp => format!(
            "CASE WHEN {text}::bigint {TIMESTAMPS} \
             THEN timestamptz 'epoch' + {text}::bigint * interval '1 microsecond' END"
        ),
        ColumnType::Counter => {
            let sum = format!(
                "SELECT greatest(least(coalesce(sum((t.value->>0)::numeric - (t.value->>1)::numeric), \
                 0), {}), {})::bigint FROM jsonb_each(v->{COUNTERS}->'{number}') AS t",
                i64::MAX,
                i64::MIN
            );
            return Some(format!(", ({sum}) AS \"{}\"", column.name));
        }
        ColumnType::Set => {
            let elements = format!(
                "SELECT e.key FROM jsonb_each(v->{SETS}->'{number}') AS e WHERE EXISTS ( \
                 SELECT FROM jsonb_each(e.value) AS d WHERE (d.value->>1)::boolean) \
                 ORDER BY e.key COLLATE \"C\""
            );
            return Some(format!(", ARRAY({elements}) AS \"{}\"", column.name));
        }
        ColumnType::Document => return None,
    };
    let value = match literal(&column.default_value()) {
        None => scalar,
        Some(default) => {
            format!("CASE WHEN v->{CELLS} ? '{number}' THEN {scalar} ELSE {default} END")
        }
    };
    Some(format!(", {value} AS \"{}\"", column.name))
}

/// A value as it is written in SQL; `None` for NULL.
fn literal(value: &Value) -> Option<String> {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    Some(match value {
        Value::Null => return None,
        Value::Bool(truth) => truth.to_string(),
        Value::Int(number) => format!("'{number}'::bigint"),
        Value::Real(number) => format!("'{:?}'::double precision", number.get()),
        Value::Text(text) | Value::Json(text) => {
            format!("'{}'", text.replace('\0', "").replace('\'', "''"))
        }
        Value::Bytes(bytes) => format!("'\\x{}'::bytea", hex(bytes)),
        Value::Timestamp(micros) => {
            format!("timestamptz 'epoch' + '{micros}'::bigint * interval '1 microsecond'")
        }
        Value::Uuid(bytes) => format!("'{}'::uuid", hex(bytes)),
    })
}

//! The tables of a tenant, and their walls.
//!
//! A step is never changed once it was released; what changes comes as a further step. A tenant is brought to the
//! newest step when it is opened, each step in a transaction of its own, so that a start never waits for all tenants
//! and a process that is killed between two steps leaves a schema from which the next opening goes on.
//!
//! A step holds the lock of the tenant's `standing` row: nodes that still run the version before wait for it as for
//! any commit and go on afterwards, so it must be short (new tables, new columns without a rewrite), and what it makes
//! must not disturb them.

use crate::names::{Names, Roles};

/// One step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// What to run, on the tenant's tables as `main.table`.
    pub statements: &'static str,
    /// The tables that it makes: each gets its walls.
    pub tables: &'static [&'static str],
}

/// The steps to the newest format. The format of a schema is how many of them it went.
pub(crate) const STEPS: &[Step] = &[Step {
    statements: include_str!("migrations/1.sql"),
    tables: &[
        "standing",
        "changes",
        "chunks",
        "sums",
        "marks",
        "outcomes",
        "devices",
        "signing_keys",
        "schemas",
    ],
}];

/// What one step runs for a tenant, as the owner of the tables.
pub(crate) fn script(step: &Step, names: &Names, roles: &Roles) -> String {
    let mut script = names.qualify(step.statements);
    for table in step.tables {
        script.push_str(&wall(&names.qualify(&format!("main.{table}")), names, roles));
    }
    script
}

/// A table shows its rows only to a transaction that names the tenant, and is open to the tenant's role alone. The
/// owner, too, sees nothing without the name.
///
/// The condition is a `CASE` since the planner takes half of all rows to pass one, and 1 of 200 to pass a comparison:
/// with that it would read whole tables for a hundred rows.
fn wall(table: &str, names: &Names, roles: &Roles) -> String {
    let (tenant, role) = (&names.key, roles.of(&names.key));
    format!(
        "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;\n\
         ALTER TABLE {table} FORCE ROW LEVEL SECURITY;\n\
         CREATE POLICY tenant ON {table} \
             USING (CASE WHEN pg_catalog.current_setting('farshore.tenant', true) = '{tenant}' \
                 THEN true ELSE false END);\n\
         GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role};\n"
    )
}

//! The tables of a tenant. `user_version` counts the steps that a file has taken.

use farshore_store::StoreError;
use rusqlite::{Connection, TransactionBehavior};

use crate::failure::Failure;

/// Each step leads from the version that is its index to the next one; a released step never changes.
const STEPS: &[&str] = &[include_str!("migrations/1.sql"), include_str!("migrations/2.sql")];

/// The version that this program writes.
pub(crate) const NEWEST_VERSION: u32 = STEPS.len() as u32;

/// Brings a file to the newest version, each step in a transaction of its own.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), Failure> {
    loop {
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: u32 = step.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version > NEWEST_VERSION {
            let newer = StoreError::NewerFormat { found: version, newest: NEWEST_VERSION };
            return Err(newer.into());
        }
        let Some(statements) = STEPS.get(version as usize) else { return Ok(()) };
        step.execute_batch(statements)?;
        step.pragma_update(None, "user_version", version + 1)?;
        step.commit()?;
    }
}

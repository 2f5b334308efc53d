//! Scopes as small integers, so that rows and indexes stay small.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use farshore_store::sync_core::ids::Scope;
use rusqlite::{Connection, OptionalExtension as _};

use crate::failure::Failure;

/// Most scopes that an open tenant remembers; beyond that it starts to remember anew.
const MAX_REMEMBERED: usize = 10_000;

/// The numbers that an open tenant remembers, committed here or in the journal. A number never changes.
#[derive(Debug, Default)]
pub(crate) struct ScopeNumbers(RwLock<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    numbers: HashMap<Scope, i64>,
    scopes: HashMap<i64, Scope>,
}

impl ScopeNumbers {
    /// The number of a scope; `None` where no row was ever in it.
    pub fn number(&self, database: &Connection, scope: &Scope) -> Result<Option<i64>, Failure> {
        if let Some(number) = self.read(|known| known.numbers.get(scope).copied()) {
            return Ok(Some(number));
        }
        let found = find(database, scope)?;
        if let Some(number) = found {
            self.remember(scope, number);
        }
        Ok(found)
    }

    /// The scope that has a number.
    pub fn scope(&self, database: &Connection, number: i64) -> Result<Scope, Failure> {
        if let Some(scope) = self.read(|known| known.scopes.get(&number).cloned()) {
            return Ok(scope);
        }
        let mut statement = database.prepare_cached("SELECT name FROM scopes WHERE number = ?1")?;
        let name: String = statement.query_row([number], |row| row.get(0))?;
        let scope: Scope = name.parse().map_err(|error| Failure::Damaged(format!("{error}")))?;
        self.remember(&scope, number);
        Ok(scope)
    }

    /// Forgets them all: some may have gone with a transaction that was undone.
    pub fn forget(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Remembered::default();
    }

    fn remember(&self, scope: &Scope, number: i64) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.numbers.len() >= MAX_REMEMBERED {
            *known = Remembered::default();
        }
        known.scopes.insert(number, scope.clone());
        known.numbers.insert(scope.clone(), number);
    }

    fn read<T>(&self, look: impl FnOnce(&Remembered) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Gives numbers to scopes inside of one writing transaction.
pub(crate) struct Interner<'a> {
    database: &'a Connection,
    committed: &'a ScopeNumbers,
    /// Not committed yet, so not remembered yet.
    given: HashMap<Scope, i64>,
}

impl<'a> Interner<'a> {
    pub fn new(database: &'a Connection, committed: &'a ScopeNumbers) -> Self {
        Self { database, committed, given: HashMap::new() }
    }

    /// The number of a scope, which gets one where it has none.
    pub fn number(&mut self, scope: &Scope) -> Result<i64, Failure> {
        if let Some(number) = self.given.get(scope) {
            return Ok(*number);
        }
        // What is found and was not given here was committed before.
        if let Some(number) = self.committed.number(self.database, scope)? {
            return Ok(number);
        }
        let add = "INSERT INTO scopes (name) VALUES (?1) RETURNING number";
        let mut statement = self.database.prepare_cached(add)?;
        let number = statement.query_row([scope.as_str()], |row| row.get(0))?;
        self.given.insert(scope.clone(), number);
        Ok(number)
    }
}

fn find(database: &Connection, scope: &Scope) -> Result<Option<i64>, Failure> {
    let mut statement = database.prepare_cached("SELECT number FROM scopes WHERE name = ?1")?;
    Ok(statement.query_row([scope.as_str()], |row| row.get(0)).optional()?)
}

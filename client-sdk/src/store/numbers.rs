//! Devices and scopes under short numbers, and what is granted in the scopes.

use std::collections::HashMap;

use farshore_sync_core::ids::{DeviceId, Scope};
use farshore_sync_core::wire::{Grant, Rights};
use rusqlite::{Connection, params};

use super::error::Failure;
use super::progress::{from_sql, to_sql};
use super::row_meta::DeviceNumbers;

/// The number of a scope in this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ScopeNumber(pub i64);

/// The devices that the store knows.
#[derive(Debug, Default)]
pub(super) struct Devices {
    numbers: HashMap<DeviceId, u64>,
    ids: HashMap<u64, DeviceId>,
}

impl Devices {
    pub(super) fn load(connection: &Connection) -> Result<Self, Failure> {
        let mut devices = Self::default();
        let mut statement = connection.prepare_cached("SELECT number, id FROM fs_devices")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            devices.remember(from_sql(row.get(0)?), DeviceId::from_bytes(row.get(1)?));
        }
        Ok(devices)
    }

    pub(super) fn id_of(&self, number: u64) -> Option<DeviceId> {
        self.ids.get(&number).copied()
    }

    fn remember(&mut self, number: u64, device: DeviceId) {
        self.numbers.insert(device, number);
        self.ids.insert(number, device);
    }
}

/// The devices with the connection on which a new one is written down.
pub(super) struct DevicesIn<'a> {
    pub devices: &'a mut Devices,
    pub connection: &'a Connection,
}

impl DeviceNumbers for DevicesIn<'_> {
    fn number_of(&mut self, device: DeviceId) -> Result<u64, Failure> {
        if let Some(number) = self.devices.numbers.get(&device) {
            return Ok(*number);
        }
        let number = self.devices.numbers.len() as u64;
        let mut statement = self
            .connection
            .prepare_cached("INSERT INTO fs_devices (number, id) VALUES (?1, ?2)")?;
        statement.execute(params![to_sql(number), device.as_bytes()])?;
        self.devices.remember(number, device);
        Ok(number)
    }
}

/// The scopes that the store knows.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    numbers: HashMap<Scope, ScopeNumber>,
    /// What is granted, sorted by scope: a page names scopes by their place here.
    granted: Vec<Granted>,
}

/// A scope that the device holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Granted {
    pub number: ScopeNumber,
    pub grant: Grant,
    /// The seq up to which its rows were fetched, staged ones included; `None` is the cursor.
    pub fetched: Option<u64>,
    /// The seq up to which its rows were applied, where the next fetch starts if staged pages are dropped.
    pub applied: Option<u64>,
}

impl Scopes {
    pub(super) fn load(connection: &Connection) -> Result<Self, Failure> {
        let mut scopes = Self::default();
        let mut statement = connection
            .prepare_cached("SELECT number, scope, rights, fetched, applied FROM fs_scopes")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (number, text): (_, String) = (ScopeNumber(row.get(0)?), row.get(1)?);
            let scope: Scope =
                text.parse().map_err(|error| Failure::damaged(format!("fs_scopes: {error}")))?;
            let rights: Option<bool> = row.get(2)?;
            let (fetched, applied): (Option<i64>, Option<i64>) = (row.get(3)?, row.get(4)?);
            if let Some(may_write) = rights {
                let rights = if may_write { Rights::Write } else { Rights::Read };
                let grant = Grant { scope: scope.clone(), rights };
                let (fetched, applied) = (fetched.map(from_sql), applied.map(from_sql));
                scopes.granted.push(Granted { number, grant, fetched, applied });
            }
            scopes.numbers.insert(scope, number);
        }
        scopes.granted.sort_by(|a, b| a.grant.scope.cmp(&b.grant.scope));
        Ok(scopes)
    }

    pub(super) fn granted(&self) -> &[Granted] {
        &self.granted
    }

    pub(super) fn grants(&self) -> Vec<Grant> {
        self.granted.iter().map(|granted| granted.grant.clone()).collect()
    }

    pub(super) fn may_write(&self, number: ScopeNumber) -> bool {
        let granted = self.granted.iter().find(|granted| granted.number == number);
        granted.is_some_and(|granted| granted.grant.rights == Rights::Write)
    }

    /// The number of a scope, which it gets now if it has none.
    pub(super) fn number_of(
        &mut self,
        connection: &Connection,
        scope: &Scope,
    ) -> Result<ScopeNumber, Failure> {
        if let Some(number) = self.numbers.get(scope) {
            return Ok(*number);
        }
        let mut statement =
            connection.prepare_cached("INSERT INTO fs_scopes (scope) VALUES (?1)")?;
        statement.execute([scope.as_str()])?;
        let number = ScopeNumber(connection.last_insert_rowid());
        self.numbers.insert(scope.clone(), number);
        Ok(number)
    }

    /// Replaces what is granted; positions come with it.
    pub(super) fn replace_granted(
        &mut self,
        connection: &Connection,
        granted: Vec<Granted>,
    ) -> Result<(), Failure> {
        let clear = "UPDATE fs_scopes SET rights = NULL, fetched = NULL, applied = NULL WHERE rights IS NOT NULL";
        connection.prepare_cached(clear)?.execute([])?;
        granted.iter().try_for_each(|scope| save_granted(connection, scope))?;
        self.granted = granted;
        Ok(())
    }

    /// A page brought one granted scope up to a seq, and was staged.
    pub(super) fn staged_to(
        &mut self,
        connection: &Connection,
        index: usize,
        seq: u64,
    ) -> Result<(), Failure> {
        let granted = self.granted_mut(index)?;
        granted.fetched = Some(seq);
        save_granted(connection, granted)
    }

    /// A page brought one granted scope up to a seq, and was applied.
    pub(super) fn applied_to(
        &mut self,
        connection: &Connection,
        index: usize,
        seq: u64,
    ) -> Result<(), Failure> {
        let granted = self.granted_mut(index)?;
        (granted.fetched, granted.applied) = (Some(seq), Some(seq));
        save_granted(connection, granted)
    }

    fn granted_mut(&mut self, index: usize) -> Result<&mut Granted, Failure> {
        self.granted
            .get_mut(index)
            .ok_or_else(|| Failure::protocol("a position of a scope that is not granted"))
    }

    /// All granted scopes stand alike: at a seq, or in step at the cursor.
    pub(super) fn all_at(
        &mut self,
        connection: &Connection,
        seq: Option<u64>,
    ) -> Result<(), Failure> {
        if self.granted.iter().all(|granted| granted.fetched == seq && granted.applied == seq) {
            return Ok(());
        }
        self.granted.iter_mut().for_each(|granted| (granted.fetched, granted.applied) = (seq, seq));
        let mut statement = connection.prepare_cached(
            "UPDATE fs_scopes SET fetched = ?1, applied = ?1 WHERE rights IS NOT NULL",
        )?;
        statement.execute([seq.map(to_sql)])?;
        Ok(())
    }
}

fn save_granted(connection: &Connection, granted: &Granted) -> Result<(), Failure> {
    let mut statement = connection.prepare_cached(
        "UPDATE fs_scopes SET rights = ?2, fetched = ?3, applied = ?4 WHERE number = ?1",
    )?;
    statement.execute(params![
        granted.number.0,
        granted.grant.rights == Rights::Write,
        granted.fetched.map(to_sql),
        granted.applied.map(to_sql)
    ])?;
    Ok(())
}

//! What a transaction of a run writes.

use std::collections::BTreeMap;

use farshore_client::store::{ColumnValue, WriteError, WriteTransaction};
use farshore_sync_core::ids::RowId;
use farshore_sync_core::schema::ColumnType;
use farshore_sync_core::value::Value;
use test_chance::Chance;

use crate::causal::{self, Seen};
use crate::history::{Cell, Deed, RowKey};
use crate::plan::{Op, OpKind};
use crate::shape::{
    self, CollectionShape, ColumnShape, Role, SITE_COLUMN, Shape, TEXT_FIELD, VALUES_COLUMN,
};

/// Registers that a device makes which sees none.
const REGISTERS_MADE: usize = 4;

/// Writes one transaction, and writes down what it did.
pub(super) struct Author<'a, 'b> {
    pub shape: &'a Shape,
    pub version: u32,
    pub sites: &'a [String],
    pub rows: &'a BTreeMap<String, Vec<RowId>>,
    pub deleted: &'a [RowKey],
    pub now_ms: u64,
    /// Numbers that nothing in the run has yet.
    pub numbers: &'a mut u64,
    pub transaction: &'a mut WriteTransaction<'b>,
    pub deeds: &'a mut Vec<Deed>,
    pub read: &'a mut Option<Seen>,
}

impl Author<'_, '_> {
    /// Does one thing, as chance wants it.
    pub(super) fn carry_out(&mut self, op: &Op) -> Result<(), WriteError> {
        let chance = &mut Chance::of(op.pick);
        match op.kind {
            OpKind::Insert => self.insert(chance),
            OpKind::Batch => self.batch(chance),
            OpKind::Update => self.update(chance),
            OpKind::Increment => self.increment(chance),
            OpKind::SetAdd => self.set_add(chance),
            OpKind::SetRemove => self.set_remove(chance),
            OpKind::Type => self.type_word(chance),
            OpKind::Move => self.move_row(chance),
            OpKind::Delete => match self.a_row(chance) {
                Some((collection, row)) => {
                    self.transaction.delete(&collection.name, row)?;
                    self.deeds.push(Deed::Delete { row: (collection.name.clone(), row) });
                    Ok(())
                }
                None => Ok(()),
            },
            OpKind::Restore => self.restore(chance),
            OpKind::Registers => self.registers(chance),
        }
    }

    fn number(&mut self) -> u64 {
        *self.numbers += 1;
        *self.numbers
    }

    fn a_collection(&self, chance: &mut Chance) -> Option<CollectionShape> {
        let known = self.shape.collections_of(self.version);
        let some: Vec<_> = known.iter().filter(|known| known.role == Role::Any).collect();
        chance.pick(&some).map(|found| (*found).clone())
    }

    fn a_row(&self, chance: &mut Chance) -> Option<(CollectionShape, RowId)> {
        let collection = self.a_collection(chance)?;
        let row = *chance.pick(self.rows.get(&collection.name)?)?;
        Some((collection, row))
    }

    fn a_column(
        &self,
        chance: &mut Chance,
        kind: ColumnType,
    ) -> Option<(CollectionShape, RowId, ColumnShape)> {
        let (collection, row) = self.a_row(chance)?;
        let some: Vec<_> = self.columns(&collection).filter(|column| column.kind == kind).collect();
        let column = (*chance.pick(&some)?).clone();
        Some((collection, row, column))
    }

    fn columns<'s>(
        &self,
        collection: &'s CollectionShape,
    ) -> impl Iterator<Item = &'s ColumnShape> + use<'s> {
        let newest = self.version > 1;
        collection.columns.iter().filter(move |column| newest || !column.added)
    }

    fn scope_of(
        &self,
        collection: &CollectionShape,
        chance: &mut Chance,
    ) -> Option<Option<String>> {
        if collection.by_site {
            chance.pick(self.sites).map(|site| Some(site.clone()))
        } else {
            Some(None)
        }
    }

    fn visible(&mut self, row: &RowKey) -> Result<BTreeMap<String, ColumnValue>, WriteError> {
        Ok(self.transaction.get(&row.0, row.1)?.map(|row| row.columns).unwrap_or_default())
    }

    fn insert(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let Some(collection) = self.a_collection(chance) else { return Ok(()) };
        let Some(site) = self.scope_of(&collection, chance) else { return Ok(()) };
        let row = shape::draw_row(self.now_ms, chance);
        let columns = self.columns(&collection).cloned().collect::<Vec<_>>();
        let mut values = Vec::new();
        for column in &columns {
            if column.kind.is_scalar() && (column.group.is_some() || !chance.once_in(3)) {
                let number = self.number();
                values.push((column.name.clone(), self.shape.value(column.kind, number)));
            }
        }
        self.put_new(&collection, row, site, values)
    }

    fn put_new(
        &mut self,
        collection: &CollectionShape,
        row: RowId,
        site: Option<String>,
        mut values: Vec<(String, Value)>,
    ) -> Result<(), WriteError> {
        let scope = site.as_deref().map_or_else(shape::tenant_scope, shape::site_scope);
        values.extend(site.map(|site| (SITE_COLUMN.to_owned(), Value::Text(site))));
        let cells: Vec<(&str, Value)> =
            values.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        self.transaction.insert(&collection.name, Some(row), &cells)?;
        let row = (collection.name.clone(), row);
        self.deeds.push(Deed::Insert { row: row.clone(), scope });
        self.deeds.extend(values.into_iter().map(|(column, value)| Deed::Write {
            cell: (row.clone(), column),
            value,
            over: None,
        }));
        Ok(())
    }

    fn batch(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let batches = self.shape.collections.iter().find(|known| known.role == Role::Batches);
        let Some(collection) = batches.cloned() else { return Ok(()) };
        let Some(site) = self.scope_of(&collection, chance) else { return Ok(()) };
        let (batch, size) = (self.number(), chance.between(2, 6));
        for _ in 0..size {
            let row = shape::draw_row(self.now_ms, chance);
            let number = self.number();
            let values = vec![
                ("batch".to_owned(), self.shape.value(ColumnType::Int, batch)),
                ("size".to_owned(), self.shape.value(ColumnType::Int, size)),
                ("word".to_owned(), self.shape.value(ColumnType::Text, number)),
            ];
            self.put_new(&collection, row, site.clone(), values)?;
        }
        Ok(())
    }

    fn update(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let Some((collection, row)) = self.a_row(chance) else { return Ok(()) };
        let scalars: Vec<_> =
            self.columns(&collection).filter(|column| column.kind.is_scalar()).cloned().collect();
        let mut values = Vec::new();
        for column in &scalars {
            if chance.once_in(2) {
                let number = self.number();
                let null = chance.once_in(12);
                let value = if null { Value::Null } else { self.shape.value(column.kind, number) };
                values.push((column.clone(), value));
            }
        }
        if values.is_empty() {
            return Ok(());
        }
        let key = (collection.name.clone(), row);
        let before = self.visible(&key)?;
        let cells: Vec<(&str, Value)> =
            values.iter().map(|(column, value)| (column.name.as_str(), value.clone())).collect();
        self.transaction.update(&collection.name, row, &cells)?;
        let groups: Vec<u64> = values.iter().filter_map(|(column, _)| column.group).collect();
        let scalar = |name: &str| match before.get(name) {
            Some(ColumnValue::Scalar(value)) => Some(value.clone()),
            _ => None,
        };
        for column in &scalars {
            let over = scalar(&column.name);
            let written = values.iter().find(|(written, _)| written.name == column.name);
            let value = match written {
                Some((_, value)) => Some(value.clone()),
                // What moves together with a written column is written again as it was.
                None if column.group.is_some_and(|group| groups.contains(&group)) => over.clone(),
                None => None,
            };
            if let Some(value) = value {
                let cell: Cell = (key.clone(), column.name.clone());
                self.deeds.push(Deed::Write { cell, value, over });
            }
        }
        Ok(())
    }

    fn increment(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let counter = self.a_column(chance, ColumnType::Counter);
        let Some((collection, row, column)) = counter else { return Ok(()) };
        let delta = i64::try_from(chance.between(1, 9)).unwrap_or(1);
        self.transaction.increment(&collection.name, row, &column.name, delta)?;
        self.deeds.push(Deed::Add { cell: ((collection.name, row), column.name), delta });
        Ok(())
    }

    fn set_add(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let set = self.a_column(chance, ColumnType::Set);
        let Some((collection, row, column)) = set else { return Ok(()) };
        let number = self.number();
        let element = self.shape.value(ColumnType::Text, number);
        self.transaction.set_add(&collection.name, row, &column.name, element.clone())?;
        self.deeds.push(Deed::SetAdd { cell: ((collection.name, row), column.name), element });
        Ok(())
    }

    /// Reads every register, and writes to some. Who sees none makes some.
    fn registers(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let known = self.shape.collections.iter().find(|known| known.role == Role::Registers);
        let Some(collection) = known.cloned() else { return Ok(()) };
        let rows = self.rows.get(&collection.name).cloned().unwrap_or_default();
        let mut seen = Seen::new();
        for row in &rows {
            let columns = self.visible(&(collection.name.clone(), *row))?;
            if let Some(ColumnValue::Set(values)) = columns.get(VALUES_COLUMN) {
                seen.insert(*row, values.iter().filter_map(causal::int).collect());
            }
        }
        *self.read = Some(seen);
        if rows.is_empty() {
            for _ in 0..REGISTERS_MADE {
                let row = shape::draw_row(self.now_ms, chance);
                self.put_new(&collection, row, None, Vec::new())?;
            }
            return Ok(());
        }
        for _ in 0..chance.below(4) {
            let Some(row) = chance.pick(&rows).copied() else { return Ok(()) };
            let element = Value::Int(i64::try_from(self.number()).unwrap_or(i64::MAX));
            self.transaction.set_add(&collection.name, row, VALUES_COLUMN, element.clone())?;
            let cell = ((collection.name.clone(), row), VALUES_COLUMN.to_owned());
            self.deeds.push(Deed::SetAdd { cell, element });
        }
        Ok(())
    }

    fn set_remove(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let set = self.a_column(chance, ColumnType::Set);
        let Some((collection, row, column)) = set else { return Ok(()) };
        let key = (collection.name.clone(), row);
        let before = self.visible(&key)?;
        let Some(ColumnValue::Set(elements)) = before.get(&column.name) else { return Ok(()) };
        let Some(element) = chance.pick(elements).cloned() else { return Ok(()) };
        self.transaction.set_remove(&collection.name, row, &column.name, element.clone())?;
        self.deeds.push(Deed::SetRemove { cell: (key, column.name), element });
        Ok(())
    }

    fn type_word(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let document = self.a_column(chance, ColumnType::Document);
        let Some((collection, row, column)) = document else { return Ok(()) };
        let word = format!("<{}:{}>", self.shape.canary, self.number());
        let transaction = &mut *self.transaction;
        transaction.edit_text(&collection.name, row, &column.name, TEXT_FIELD, 0, 0, &word)?;
        self.deeds.push(Deed::Type { cell: ((collection.name, row), column.name), word });
        Ok(())
    }

    fn move_row(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let Some((collection, row)) = self.a_row(chance) else { return Ok(()) };
        let site = chance.pick(self.sites).cloned();
        let Some(site) = site.filter(|_| collection.by_site) else { return Ok(()) };
        let value = Value::Text(site);
        let cells = [(SITE_COLUMN, value.clone())];
        self.transaction.update(&collection.name, row, &cells)?;
        let cell = ((collection.name, row), SITE_COLUMN.to_owned());
        self.deeds.push(Deed::Write { cell, value, over: None });
        Ok(())
    }

    fn restore(&mut self, chance: &mut Chance) -> Result<(), WriteError> {
        let known = self.shape.collections_of(self.version);
        let is_known = |row: &&RowKey| known.iter().any(|collection| collection.name == row.0);
        let some: Vec<_> = self.deleted.iter().filter(is_known).collect();
        let Some(row) = chance.pick(&some).map(|row| (*row).clone()) else { return Ok(()) };
        self.transaction.restore(&row.0, row.1)?;
        self.deeds.push(Deed::Restore { row });
        Ok(())
    }
}

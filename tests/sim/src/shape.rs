//! The shape of a tenant's data, drawn anew for each run: collections, column types, groups, scopes, and a second
//! version of the schema that adds to the first.

use farshore_sync_core::ids::{RowId, Scope};
use farshore_sync_core::schema::{ColumnType, Schema};
use farshore_sync_core::value::Value;
use serde_json::{Value as Json, json};
use test_chance::Chance;

/// The field of a document that runs write to.
pub const TEXT_FIELD: &str = "body";
/// The column that puts a row into the scope of a site.
pub const SITE_COLUMN: &str = "site_id";
/// The collection of registers, and the column that holds what was written to one: see [`crate::causal`].
pub const REGISTERS: &str = "registers";
/// The set of everything that was written to a register.
pub const VALUES_COLUMN: &str = "written";
/// What a column that came with the second version holds in rows that were written before it.
pub const ADDED_DEFAULT: i64 = 7;

const KINDS: [ColumnType; 11] = [
    ColumnType::Bool,
    ColumnType::Int,
    ColumnType::Real,
    ColumnType::Text,
    ColumnType::Bytes,
    ColumnType::Timestamp,
    ColumnType::Uuid,
    ColumnType::Json,
    ColumnType::Counter,
    ColumnType::Set,
    ColumnType::Document,
];

/// The data of one tenant.
#[derive(Debug, Clone)]
pub struct Shape {
    /// A word that stands in everything of this tenant and nowhere else.
    pub canary: String,
    /// The sites.
    pub sites: Vec<String>,
    /// The collections; the last one is of the second version alone.
    pub collections: Vec<CollectionShape>,
}

/// One collection.
#[derive(Debug, Clone)]
pub struct CollectionShape {
    /// Its name.
    pub name: String,
    /// Which rows it holds.
    pub role: Role,
    /// Whether its rows are in the scope of a site; else they are in the tenant's.
    pub by_site: bool,
    /// Its columns, without that of the site.
    pub columns: Vec<ColumnShape>,
}

/// What rows of a collection are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Anything is done to them.
    Any,
    /// They are only ever inserted, several by one transaction: `batch`, `size`.
    Batches,
    /// Registers, in the scope of the tenant: see [`crate::causal`].
    Registers,
}

/// One column.
#[derive(Debug, Clone)]
pub struct ColumnShape {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: ColumnType,
    /// The columns with the same number move together.
    pub group: Option<u64>,
    /// Whether the second version of the schema added it.
    pub added: bool,
}

impl Shape {
    /// A shape.
    pub fn draw(chance: &mut Chance) -> Self {
        let canary = format!("{:016x}", chance.next());
        let sites = (0..chance.between(1, 3)).map(|site| format!("s{site}-{canary}")).collect();
        let count = chance.between(1, 3);
        let mut collections: Vec<_> =
            (0..count).map(|number| CollectionShape::draw(number, chance)).collect();
        collections.push(CollectionShape::batches(chance));
        collections.push(CollectionShape::draw(9, chance));
        Self { canary, sites, collections }
    }

    /// The shape of a tenant that has registers only.
    pub fn registers(chance: &mut Chance) -> Self {
        let canary = format!("{:016x}", chance.next());
        let sites = vec![format!("s0-{canary}")];
        let column =
            ColumnShape { name: VALUES_COLUMN.into(), ..ColumnShape::new(0, ColumnType::Set) };
        let registers = CollectionShape {
            name: REGISTERS.into(),
            role: Role::Registers,
            by_site: false,
            columns: vec![column],
        };
        Self { canary, sites, collections: vec![registers, CollectionShape::draw(9, chance)] }
    }

    /// The collections of a version of the schema.
    #[must_use]
    pub fn collections_of(&self, version: u32) -> &[CollectionShape] {
        &self.collections[..self.collections.len() - usize::from(version < 2)]
    }

    /// A version of the schema.
    ///
    /// # Panics
    /// Where what was drawn is no schema.
    #[must_use]
    pub fn schema(&self, version: u32) -> Schema {
        let collections: Vec<Json> = self
            .collections_of(version)
            .iter()
            .map(|collection| collection.json(version))
            .collect();
        let file = json!({"name": "sim", "version": version, "collections": collections});
        Schema::parse(&file.to_string()).expect("drawn schemas are schemas")
    }

    /// Every scope that rows can be in.
    #[must_use]
    pub fn scopes(&self) -> Vec<Scope> {
        let sites = self.sites.iter().map(|site| site_scope(site));
        std::iter::once(tenant_scope()).chain(sites).collect()
    }

    /// A value that no other number gives, bools aside.
    #[must_use]
    pub fn value(&self, kind: ColumnType, number: u64) -> Value {
        let int = i64::try_from(number).unwrap_or(i64::MAX);
        match kind {
            ColumnType::Bool => Value::Bool(number.is_multiple_of(2)),
            ColumnType::Int => Value::Int(int),
            ColumnType::Real => Value::from(int as f64 + 0.5),
            ColumnType::Text => Value::Text(format!("{}:{number}", self.canary)),
            ColumnType::Bytes => Value::Bytes(format!("{}:{number}", self.canary).into_bytes()),
            ColumnType::Timestamp => Value::Timestamp(int),
            ColumnType::Uuid => Value::Uuid(u128::from(number).to_be_bytes()),
            ColumnType::Json => {
                Value::Json(format!("{{\"n\":{number},\"w\":\"{}\"}}", self.canary))
            }
            ColumnType::Counter | ColumnType::Set | ColumnType::Document => Value::Null,
        }
    }
}

impl CollectionShape {
    fn draw(number: u64, chance: &mut Chance) -> Self {
        let first = ColumnShape::new(0, ColumnType::Counter);
        let more = chance.between(2, 6);
        let groups = chance.below(2);
        let drawn = (1..=more).map(|at| {
            let kind = *chance.pick(&KINDS).expect("there are kinds");
            let group = (groups > 0 && kind.is_scalar() && chance.once_in(2)).then_some(1);
            ColumnShape { group, ..ColumnShape::new(at, kind) }
        });
        let mut columns: Vec<_> = std::iter::once(first).chain(drawn).collect();
        if columns.iter().filter(|column| column.group.is_some()).count() == 1 {
            columns.iter_mut().for_each(|column| column.group = None);
        }
        columns.push(ColumnShape { added: true, ..ColumnShape::new(more + 1, ColumnType::Int) });
        let by_site = chance.once_in(2);
        Self { name: format!("c{number}"), role: Role::Any, by_site, columns }
    }

    fn batches(chance: &mut Chance) -> Self {
        let column =
            |name: &str, kind| ColumnShape { name: name.into(), ..ColumnShape::new(0, kind) };
        let columns = vec![
            column("batch", ColumnType::Int),
            column("size", ColumnType::Int),
            column("word", ColumnType::Text),
        ];
        Self { name: "batches".into(), role: Role::Batches, by_site: chance.once_in(2), columns }
    }

    fn json(&self, version: u32) -> Json {
        let scope = if self.by_site { "site/{site_id}" } else { "tenant" };
        let site = self.by_site.then(|| json!({"id": 100, "name": SITE_COLUMN, "type": "text"}));
        let columns = (1..).zip(&self.columns).filter(|(_, column)| version > 1 || !column.added);
        let columns = columns.map(|(id, column)| column.json(id));
        let columns: Vec<Json> = columns.chain(site).collect();
        json!({"name": self.name, "scope": scope, "columns": columns})
    }
}

impl ColumnShape {
    fn new(number: u64, kind: ColumnType) -> Self {
        Self { name: format!("{}{number}", kind.as_str()), kind, group: None, added: false }
    }

    fn json(&self, id: u16) -> Json {
        let mut json = json!({"id": id, "name": self.name, "type": self.kind.as_str()});
        if let Some(group) = self.group {
            json["group"] = format!("g{group}").into();
        }
        if self.kind == ColumnType::Document {
            json["root"] = json!({TEXT_FIELD: "text"});
        }
        if self.added {
            json["default"] = ADDED_DEFAULT.into();
        }
        json
    }
}

/// The scope of rows that belong to no site.
///
/// # Panics
/// Never: the text is a scope.
#[must_use]
pub fn tenant_scope() -> Scope {
    "tenant".parse().expect("it is a scope")
}

/// The scope of a site.
///
/// # Panics
/// Where the site's name does not make a scope.
#[must_use]
pub fn site_scope(site: &str) -> Scope {
    format!("site/{site}").parse().expect("the names of sites make scopes")
}

/// A row's id.
pub fn draw_row(now_ms: u64, chance: &mut Chance) -> RowId {
    let bytes = chance.bytes();
    RowId::from_parts(now_ms, bytes.first_chunk().expect("there are 16 bytes"))
}

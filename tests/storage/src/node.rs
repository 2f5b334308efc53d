//! The server's SQLite store of several tenants that share a journal. A step is one of one of them.

use std::path::Path;
use std::sync::Arc;

use farshore_store_sqlite::JournalMode;
use test_chance::Chance;

use crate::subject::{Observation, Problem, Subject};
use crate::tenant::{OpenTenant, Tenant, catalog, runtime, scope};

/// The tenants.
const NAMES: [&str; 3] = ["acme", "demo", "zoo"];

/// Several tenants.
pub struct Node {
    seed: u64,
    tenants: Vec<Tenant>,
}

impl Subject for Node {
    const NAME: &'static str = "node";
    type Store = Vec<OpenTenant>;
    const RUNS_ALIKE: bool = true;

    fn belongs_together(damaged: &str, file: &str) -> bool {
        let stem = |name: &str| name.split('.').next().map(str::to_owned);
        stem(damaged) == stem(file)
    }

    fn create(folder: &Path, seed: u64) -> Result<Self, Problem> {
        let runtime = runtime()?;
        let (catalog, authority) = catalog(folder, JournalMode::Shared)?;
        let create = |(at, name): (u64, _)| {
            Tenant::create_in(&catalog, &scope(&authority, name), &runtime, seed.wrapping_add(at))
        };
        let tenants = (0..).zip(NAMES).map(create).collect::<Result<_, _>>()?;
        Ok(Self { seed, tenants })
    }

    fn open(&self, folder: &Path) -> Result<Vec<OpenTenant>, Problem> {
        let runtime = Arc::new(runtime()?);
        let (catalog, authority) = catalog(folder, JournalMode::Shared)?;
        let open = |name| {
            OpenTenant::open(catalog.clone(), &scope(&authority, name), Arc::clone(&runtime))
        };
        NAMES.into_iter().map(open).collect()
    }

    fn close(&self, stores: Vec<OpenTenant>) -> Result<(), Problem> {
        drop(stores);
        Ok(())
    }

    fn tidy(&self, _: &Vec<OpenTenant>) -> Result<(), Problem> {
        Ok(())
    }

    fn step(&mut self, stores: &Vec<OpenTenant>, step: u64) -> Result<(), Problem> {
        let at = Chance::apart(self.seed, step).below(NAMES.len() as u64);
        let at = usize::try_from(at).unwrap_or_default();
        self.tenants[at].step(&stores[at], step)
    }

    fn observe(&self, stores: &Vec<OpenTenant>) -> Result<Observation, Problem> {
        let mut lines = Vec::new();
        for (tenant, store) in self.tenants.iter().zip(stores) {
            lines.extend(tenant.observe(store)?.0);
        }
        Ok(Observation(lines))
    }

    fn goes_on(&self, stores: &Vec<OpenTenant>, found: u64, begun: u64) -> Result<(), Problem> {
        let mut tenants = self.tenants.iter().zip(stores);
        tenants.try_for_each(|(tenant, store)| tenant.goes_on(store, found, begun))
    }
}
